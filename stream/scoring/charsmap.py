"""The maps of characters in a tokenizer's file: refused where they lead the library astray, or make much of little.

A map is a trie as sentencepiece compiles it: the length of a double array (Aoe 1989), the array, and the replacements,
each ended by a zero byte. The library follows it without looking: an entry that points out of the array or out of the
replacements is a panic on the first text with such a character, which no text of a trial need have. So every place that
a text can lead to is visited here, once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import BundleError

__all__ = ["MAX_REPLACEMENT_BYTES", "longest_replaced", "refuse_hostile_maps"]

MAX_REPLACEMENT_BYTES = 256
"""What one character may become, through all maps of a tokenizer. Unicode's own longest form has 33 bytes, the longest
name of an emoji 42. Whether that is read quickly enough, a trial finds out with such characters."""

_LENGTH_BYTES, _UNIT_BYTES = 4, 4
_NODES_AT_ONCE = 1024
"""Each has 255 children to look for: some megabytes, however many nodes a map has."""
_SHOWN_BYTES = 16
"""Of a key; the keys of a trie that is one long line would fill the memory."""
_BLOCK = 255
"""From a node the library looks at any place of its block of 256, whichever byte comes next."""
_LABEL: Final = np.uint32(0x800000FF)
_VALUE: Final = np.uint32(0x7FFFFFFF)
_MEND = "export the bundle again from a sound tokenizer"


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a map, their first bytes, and `lengths`, (k,) int64, the bytes that each becomes."""

    keys: list[bytes]
    lengths: NDArray[np.int64]


def refuse_hostile_maps(tokenizer: Any) -> None:  # Any: JSON
    """Raise `BundleError` where a map of this tokenizer's file is damaged or makes a character too long."""
    together = 1
    for number, content in enumerate(_maps(tokenizer), start=1):
        name = f"character map {number} of the bundle's tokenizer (precompiled_charsmap)"
        found = _read(content, name)
        longest = int(found.lengths.max(initial=1))
        together *= max(1, longest)
        if together > MAX_REPLACEMENT_BYTES:
            worst = found.keys[int(np.argmax(found.lengths))].decode("utf-8", "replace")
            beside = "" if together == longest else f", and with the maps before it up to {together}"
            raise BundleError(
                f"{name} makes {worst!a} {longest} bytes long{beside}; {MAX_REPLACEMENT_BYTES} are allowed, or a short "
                "text could fill the memory: leave that rule out"
            )


def longest_replaced(tokenizer: Any) -> Iterator[str]:  # Any: JSON
    """Of each map, the characters with the longest replacement, as far as they are text."""
    for content in _maps(tokenizer):
        found = _read(content, "a character map")
        if found.keys:
            yield found.keys[int(np.argmax(found.lengths))].decode("utf-8", "replace")


def _maps(tokenizer: Any) -> Iterator[object]:  # Any: JSON
    """Whatever the library takes for a map: it is known by its name, wherever it is nested."""
    pending = [tokenizer.get("normalizer")] if isinstance(tokenizer, dict) else []
    while pending:
        item = pending.pop(0)
        if isinstance(item, dict):
            if "precompiled_charsmap" in item:
                yield item["precompiled_charsmap"]
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _read(content: object, name: str) -> _Keys:
    try:
        data = base64.b64decode(content if isinstance(content, str) else b"?", validate=True)
    except (binascii.Error, ValueError):
        raise BundleError(f"{name} is not base64: {_MEND}") from None
    size = int.from_bytes(data[:_LENGTH_BYTES], "little")
    there = len(data) - _LENGTH_BYTES
    if there < size or not size:
        raise BundleError(f"{name} is cut short: its table is to have {size} bytes, {max(0, there)} are there; {_MEND}")
    if size % (_UNIT_BYTES * (_BLOCK + 1)):
        raise BundleError(f"{name} has a table of {size} bytes, which is no number of whole blocks; {_MEND}")
    units = np.frombuffer(data, dtype="<u4", count=size // _UNIT_BYTES, offset=_LENGTH_BYTES)
    replacements = data[_LENGTH_BYTES + size :]
    try:
        replacements.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{name} has replacements that are no UTF-8 ({error.reason} at byte {error.start})") from None
    return _walk(units, replacements, name)


def _walk(units: NDArray[np.uint32], replacements: bytes, name: str) -> _Keys:
    """Follow every key, all of one length together. A place is visited once, so that a circle has an end."""
    waiting = _children_of(np.zeros(1, dtype=np.int64), units, name)
    keys, seen = [b""], np.zeros(len(units), dtype=np.bool_)
    found_keys, found_values = list[bytes](), list[int]()
    bytes_ = np.arange(1, _BLOCK + 1)
    while len(waiting):
        places = waiting[:_NODES_AT_ONCE, None] ^ bytes_
        node, at = np.nonzero((units[places] & _LABEL) == bytes_)
        reached, first = np.unique(places[node, at], return_index=True)
        is_new = ~seen[reached]
        reached, first = reached[is_new], first[is_new]
        seen[reached] = True
        longer = [(keys[node[i]] + bytes([bytes_[at[i]]]))[:_SHOWN_BYTES] for i in first.tolist()]
        bases = _children_of(reached, units, name)
        is_key = units[reached] >> 8 & 1 == 1
        found_keys += [longer[i] for i in np.flatnonzero(is_key).tolist()]
        found_values += (units[bases[is_key]] & _VALUE).tolist()
        waiting, keys = np.concatenate([waiting[_NODES_AT_ONCE:], bases]), keys[_NODES_AT_ONCE:] + longer
    return _measured(found_keys, np.array(found_values, dtype=np.int64), replacements, name)


def _children_of(places: NDArray[np.int64], units: NDArray[np.uint32], name: str) -> NDArray[np.int64]:
    """Where the children of the nodes at `places` begin, (n,) int64."""
    unit = units[places].astype(np.int64)
    bases: NDArray[np.int64] = places ^ (unit >> 10 << ((unit & 1 << 9) >> 6))
    if (bases >= len(units)).any():  # the others' blocks are in the table, as it has whole ones
        raise BundleError(f"{name} points to entry {bases.max()} of a table of {len(units)}: it is damaged; {_MEND}")
    return bases


def _measured(keys: list[bytes], starts: NDArray[np.int64], replacements: bytes, name: str) -> _Keys:
    if len(starts) and starts.max() > len(replacements):
        raise BundleError(
            f"{name} points to byte {starts.max()} of replacements of {len(replacements)}: it is damaged; {_MEND}"
        )
    content = np.frombuffer(replacements + b"\0", dtype=np.uint8)
    if (content[starts] & 0xC0 == 0x80).any():  # noqa: PLR2004 - a byte of UTF-8 that begins no character
        raise BundleError(f"{name} points into the middle of a replacement's character: it is damaged; {_MEND}")
    ends = np.flatnonzero(content == 0)
    lengths = ends[np.searchsorted(ends, starts)] - starts
    return _Keys(keys, lengths)
