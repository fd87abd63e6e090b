"""Records that are wrong on purpose, each with the reason it must be rejected for."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stream.events import RejectReason

__all__ = ["Malformed", "malformed"]

TOO_LARGE = 1_000_001
"""Bytes: above the default of `max_event_bytes`, below what Kafka takes."""
TOO_DEEP = 40
"""Levels: above the default of `max_json_depth`."""
BOMB_SIDE = 60_000
"""A picture of 60,000 x 60,000 pixels would need 10 GB once unpacked; as a file it has 70 bytes."""
TOO_MANY_AXES = 17
"""An event may have groups along 16 axes."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """One record: what is wrong with it, its value, and why it can have no decision."""

    name: str
    value: bytes | None
    reason: RejectReason


def malformed(now: datetime) -> list[Malformed]:
    """Make all of them; the time they pretend to be of is `now`."""
    event = {"id": "malformed", "created_at": now.isoformat(), "role": "post", "text": "Hello from nobody."}
    return [
        Malformed("deleted content", None, RejectReason.TOMBSTONE),
        Malformed("a megabyte of text", _encode(event | {"text": "la " * (TOO_LARGE // 3)}), RejectReason.TOO_LARGE),
        *(Malformed(name, value, RejectReason.DECODE_ERROR) for name, value in _not_json(_encode(event))),
        *(Malformed(name, value, RejectReason.DUPLICATE_KEY) for name, value in _repeats(_encode(event))),
        *(Malformed(name, _encode(wrong), RejectReason.SCHEMA_ERROR) for name, wrong in _wrong_shapes(event)),
        Malformed("a later version", _encode(event | {"schema_version": 2}), RejectReason.SCHEMA_VERSION),
        Malformed("no words", _encode(event | {"text": ""}), RejectReason.EMPTY_CONTENT),
        Malformed("nothing but spaces", _encode(event | {"text": "   "}), RejectReason.EMPTY_CONTENT),
        *(Malformed(name, _encode(wrong), RejectReason.TIMESTAMP) for name, wrong in _wrong_times(event, now)),
        *(Malformed(name, _encode(event | {"image": image}), RejectReason.IMAGE) for name, image in _wrong_images()),
    ]


def _encode(document: object) -> bytes:
    return json.dumps(document).encode()


def _not_json(event: bytes) -> Iterator[tuple[str, bytes]]:
    yield "plain text", b"hello, is anybody there?"
    yield "cut off", event[:-20]
    yield "not a number", event[:-1] + b', "score": NaN}'
    yield "two documents", event + event
    yield "not UTF-8", event.replace(b"Hello", b"\xff\xfe\xff")
    yield "a well of brackets", event[:-1] + b', "extra": ' + b"[" * TOO_DEEP + b"]" * TOO_DEEP + b"}"


def _repeats(event: bytes) -> Iterator[tuple[str, bytes]]:
    yield "two texts", event[:-1] + b', "text": "Or rather this one?"}'
    yield "an axis twice", event[:-1] + b', "groups": {"age": ["young"], "age": ["old"]}}'


def _wrong_shapes(event: dict[str, str]) -> Iterator[tuple[str, object]]:
    yield "a list", [event]
    yield "no role", {name: value for name, value in event.items() if name != "role"}
    yield "an unknown role", event | {"role": "poem"}
    yield "a number for an id", event | {"id": 7}
    yield "a time without offset", event | {"created_at": "2026-11-21T08:00:00"}
    yield "too many axes", event | {"groups": {f"axis-{number}": ["a"] for number in range(TOO_MANY_AXES)}}


def _wrong_times(event: dict[str, str], now: datetime) -> Iterator[tuple[str, object]]:
    yield "from tomorrow", event | {"created_at": (now + timedelta(days=1)).isoformat()}
    yield "from 1970", event | {"created_at": datetime.fromtimestamp(0, UTC).isoformat()}


def _wrong_images() -> Iterator[tuple[str, dict[str, Any]]]:
    """Fields of an event's image; a picture is looked at, never unpacked, and an address never fetched."""
    sound = base64.b64encode(_png(1, 1)).decode()
    bomb = base64.b64encode(_png(BOMB_SIDE, BOMB_SIDE)).decode()
    yield "an image bomb", {"media_type": "image/png", "data": bomb}
    yield "half an image", {"media_type": "image/png", "data": sound[:40]}
    yield "another kind of image", {"media_type": "image/gif", "data": sound}
    yield "no base64", {"media_type": "image/png", "data": "a picture of a bicycle"}
    yield "a file of ours", {"media_type": "image/png", "url": "file:///etc/hostname"}


def _png(width: int, height: int) -> bytes:
    """A PNG that says it has these sides, with the pixels of one white dot."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\x00\xff")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
