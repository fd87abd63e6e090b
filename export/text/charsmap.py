"""A table of characters and what they become in, a compiled trie out: the `Precompiled` normalizer of `tokenizers`.

The format is sentencepiece's: the length of a double array (Aoe 1989, as darts-clone packs it), the array, and the
replacements, each ended by a zero byte. However large the table, a text is mapped in one pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

__all__ = ["MAX_KEY_BYTES", "build_charsmap"]

MAX_KEY_BYTES = 5
"""The library looks a whole grapheme up only if it is shorter than 6 bytes; a longer key would never be found."""

_BLOCK = 256
_HAS_VALUE = 1 << 8
_IS_VALUE = 1 << 31
_LOOK_BACK = 256
_MAX_OFFSET = 1 << 21  # larger ones need the format's second form, which a table of characters never comes to


@dataclass(slots=True)
class _Node:
    """A beginning of keys, in bytes; `value` is set where it is a key itself."""

    children: dict[int, _Node] = field(default_factory=dict)
    value: int | None = None


def build_charsmap(replacements: Mapping[str, str]) -> bytes:
    """Compile `replacements`, whose keys are a character, or a prepended mark and a character.

    Raises `ExportError` for a key that the library would never find, or that holds the byte 0.
    """
    root = _Node()
    blob = bytearray()
    starts: dict[str, int] = {}
    for key, text in sorted(replacements.items()):
        encoded = key.encode()
        if not 0 < len(encoded) <= MAX_KEY_BYTES or 0 in encoded or "\0" in text:
            raise ExportError(f"the character map cannot hold {key!a}: a key has 1 to {MAX_KEY_BYTES} bytes, none 0")
        if text not in starts:
            starts[text] = len(blob)
            blob += text.encode() + b"\0"
        node = root
        for byte in encoded:
            node = node.children.setdefault(byte, _Node())
        node.value = starts[text]
    units = _to_units(root).astype("<u4").tobytes()
    return len(units).to_bytes(4, "little") + units + bytes(blob)


def _to_units(root: _Node) -> NDArray[np.uint32]:
    """Lay the trie out as an array in which the child of a node by byte b is at the node's base XOR b."""
    units: dict[int, int] = {0: 0}
    used: set[int] = {0}  # bases: two nodes with one base would take each other's children for their own
    start = 1
    waiting = deque([(root, 0)])
    while waiting:
        node, position = waiting.popleft()
        labels = sorted(node.children) if node.value is None else [0, *sorted(node.children)]
        position_of_first = _find_place(labels, units, used, start)
        # What was searched in vain is nearly full: leaving the rest of it empty is what keeps the search short.
        start = max(start, position_of_first - _LOOK_BACK)
        base = position_of_first ^ labels[0]
        used.add(base)
        offset = position ^ base
        if offset >= _MAX_OFFSET:
            raise ExportError("the character map is too large for its format; leave characters out")
        units[position] |= offset << 10
        if node.value is not None:
            units[position] |= _HAS_VALUE
            units[base] = node.value | _IS_VALUE
        for byte, child in node.children.items():
            units[base ^ byte] = byte
            waiting.append((child, base ^ byte))
    # A lookup may step anywhere in the block of a base, whatever the byte.
    array = np.zeros((max(*units, *used) // _BLOCK + 1) * _BLOCK, dtype=np.uint32)
    array[list(units)] = np.array(list(units.values()), dtype=np.uint32)
    return array


def _find_place(labels: list[int], units: dict[int, int], used: set[int], start: int) -> int:
    """The first place from `start` for the child by `labels[0]` such that all children and their base are free."""
    place = start
    while True:
        base = place ^ labels[0]
        if place not in units and base not in used and all(base ^ label not in units for label in labels):
            return place
        place += 1
