"""JSON bytes with one reading only: refuses what two JSON readers would read differently, or one of them not at all.

RFC 8259 leaves open what a repeated key, a number out of range, or deep nesting means, and real readers differ. Content
that we read one way and the next system another way is content we did not moderate, so such a record is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import msgspec

from stream.events import RejectReason

__all__ = ["Refusal", "is_free_of_repeats", "read"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record can have no decision; `error` says what is wrong and where, never what the content was."""

    reason: RejectReason
    error: str


def is_free_of_repeats(raw: bytes, *, colons: int) -> bool:
    r"""True only where no key is repeated in a JSON text; False says nothing.

    `colons` are those a reader's result accounts for: one for each key it kept, and those in strings it kept, all or
    some. In JSON every colon either follows a key or stands in a string. So if none is written as an escape (`\u003a`),
    `raw` has one for each key as written, and at least those that `colons` has in strings. Where the two numbers are
    equal, then, as many keys were kept as written: a sound test for a tenth of the cost of looking at each object.
    """
    return raw.count(b":") == colons and (b"\\" not in raw or (b"\\u003a" not in raw and b"\\u003A" not in raw))


def read(raw: bytes, *, max_depth: int) -> Any:
    """Decode JSON of any shape, or say as a `Refusal` why it has no single reading.

    msgspec refuses what is not JSON, and integers of thousands of digits. `Any`: the shape is somebody else's, and
    whoever takes values from it looks at each.
    """
    try:
        document = _decode(raw)
    except msgspec.DecodeError as error:
        return Refusal(RejectReason.DECODE_ERROR, str(error))
    except UnicodeDecodeError:
        return Refusal(RejectReason.DECODE_ERROR, "text is not UTF-8")
    except RecursionError:
        return _too_deep(max_depth)
    if not _is_shallow(raw, max_depth) and _depth(document) > max_depth:
        return _too_deep(max_depth)
    if not is_free_of_repeats(raw, colons=msgspec.json.encode(document).count(b":")) and _has_repeats(raw):
        return Refusal(RejectReason.DUPLICATE_KEY, "an object has a key twice, and readers differ in which they keep")
    return document


def _finite(digits: str) -> float:
    """A decimal within the range of a double; Python reads it, because msgspec takes 11 µs for one such as 1e300."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is beyond the range of a double")
    return number


_decode = msgspec.json.Decoder(float_hook=_finite).decode


def _is_shallow(raw: bytes, max_depth: int) -> bool:
    """True only where the text cannot nest too deep: each level needs a bracket of its own."""
    return raw.count(b"{") + raw.count(b"[") <= max_depth


def _has_repeats(raw: bytes) -> bool:
    """Whether a key is repeated: exact, by looking at each object's keys before a dict drops any."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found |= len({key for key, _ in pairs}) != len(pairs)

    try:
        json.loads(raw.decode(), object_pairs_hook=look, parse_int=str, parse_float=str)
    except RecursionError:
        return True  # what was kept is shallow, so this is in a value that was dropped
    return found


def _depth(document: Any) -> int:
    """How many levels of objects and arrays; level by level, so that no depth can exhaust the stack."""
    depth, level = 0, [document]
    while level := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    return depth


def _too_deep(max_depth: int) -> Refusal:
    return Refusal(RejectReason.DECODE_ERROR, f"nested more than {max_depth} deep (max_json_depth)")
