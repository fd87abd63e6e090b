"""Dead letters: how an input that can have no decision is written down, read back and returned to its topic.

The value and key are the input's own, byte for byte, and so are the headers, where bytes of a name that are not UTF-8
are escaped. These headers are added:

    fairway.dlq.reason         one of `stream.events.RejectReason`
    fairway.dlq.error          what is wrong and where, never what the content was
    fairway.dlq.topic          where the input came from: topic, partition, offset
    fairway.dlq.partition
    fairway.dlq.offset
    fairway.dlq.timestamp      of the input, milliseconds since the epoch; absent if it had none
    fairway.dlq.attempts       how often it has been a dead letter, this time included
    fairway.dlq.worker         who wrote it
    fairway.dlq.value_omitted  `true` where the broker refused the value; there is none then

A redriven record carries `fairway.redrive.attempts` and `fairway.redrive.of`, the coordinates of the input it repeats.
Headers of these two prefixes on an input are trusted for nothing but the count of attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.events import Rejected, RejectReason, SourceRecord
from stream.kafka.ledger import Partition
from stream.kafka.publisher import OutRecord

__all__ = ["DeadLetter", "Foreign", "Headers", "decode", "encode", "redriven", "without_value"]

Headers = Sequence[tuple[str, bytes]]

DLQ = "fairway.dlq."
REDRIVE = "fairway.redrive."

# A rejection names a field or a byte offset; a longer text repeats itself, and headers count towards the record limit.
MAX_ERROR_CHARS = 1000
# What is kept of an input the broker refused: anything larger may be what it refused.
MAX_KEPT_BYTES = 65_536
# More redrives than this are a loop, and the number came from outside.
MAX_ATTEMPTS = 1_000_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the headers of a dead letter say. `original` are the headers the input came with."""

    reason: str
    error: str
    source: Partition
    offset: int
    timestamp_ms: int | None
    attempts: int
    worker: str
    value_omitted: bool
    original: list[tuple[str, bytes]]

    @property
    def source_id(self) -> str:
        """`topic:partition:offset` of the input: what its decision's id would have been."""
        return f"{self.source.topic}:{self.source.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A record that is not a dead letter of ours, and why."""

    why: str


def encode(record: SourceRecord, rejected: Rejected, *, source: Partition, worker: str) -> OutRecord:
    """Write the dead letter of one input: its key, value and headers, and why it is here."""
    headers = _own_headers(record, rejected.reason, rejected.error, source=source, worker=worker)
    return record.key, record.value, [*_original(record.headers), *headers]


def without_value(record: SourceRecord, *, source: Partition, worker: str) -> OutRecord:
    """Write a dead letter that fits any topic, for an input whose own dead letter the broker refused.

    The value is left out, and so are key and headers where they may be what was too large.
    """
    size = 0 if record.value is None else len(record.value)
    error = f"the broker refused the dead letter of a value of {size} bytes"
    headers = _own_headers(record, RejectReason.OUTPUT_REFUSED, error, source=source, worker=worker)
    headers.append((f"{DLQ}value_omitted", b"true"))
    original = _original(record.headers)
    kept = len(record.key or b"") + sum(len(name) + len(value or b"") for name, value in original)
    if kept > MAX_KEPT_BYTES:
        return None, None, headers
    return record.key, None, [*original, *headers]


def decode(headers: Headers) -> DeadLetter | Foreign:
    """Read a dead letter's headers; `Foreign` says what is missing or wrong in a record somebody else wrote."""
    own = {name.removeprefix(DLQ): value or b"" for name, value in headers if name.startswith(DLQ)}
    absent = [name for name in ("reason", "topic", "partition", "offset") if name not in own]
    if absent:
        return Foreign(f"no header {DLQ}{absent[0]}")
    numbers = {name: _number(own.get(name, b"")) for name in ("partition", "offset", "timestamp", "attempts")}
    partition, offset = numbers["partition"], numbers["offset"]
    if partition is None or offset is None:
        return Foreign(f"{DLQ}partition and {DLQ}offset are not numbers")
    return DeadLetter(
        reason=_text(own["reason"]),
        error=_text(own.get("error", b"")),
        source=Partition(_text(own["topic"]), partition),
        offset=offset,
        timestamp_ms=numbers["timestamp"],
        attempts=numbers["attempts"] or 1,
        worker=_text(own.get("worker", b"")),
        value_omitted=own.get("value_omitted") == b"true",
        original=_original(headers),
    )


def redriven(letter: DeadLetter) -> list[tuple[str, bytes]]:
    """The headers of the record that returns a dead letter's input to its topic."""
    return [
        *((name, value) for name, value in letter.original if not name.startswith(REDRIVE)),
        (f"{REDRIVE}attempts", str(letter.attempts).encode()),
        (f"{REDRIVE}of", letter.source_id.encode()),
    ]


def _own_headers(
    record: SourceRecord, reason: RejectReason, error: str, *, source: Partition, worker: str
) -> list[tuple[str, bytes]]:
    entries = {
        "reason": reason.value,
        "error": error[:MAX_ERROR_CHARS],
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(record.offset),
        "attempts": str(_redrives(record.headers) + 1),
        "worker": worker,
    }
    if record.timestamp is not None:
        entries["timestamp"] = str(record.timestamp)
    return [(DLQ + name, value.encode("utf-8", "replace")) for name, value in entries.items()]


def _original(headers: Headers) -> list[tuple[str, bytes]]:
    """The input's own headers: nobody but us may say where a dead letter came from."""
    return [(name, value) for name, value in headers if not name.startswith(DLQ)]


def _redrives(headers: Headers) -> int:
    """How often the input was redriven; 0 where the header is absent or nonsense."""
    for name, value in reversed(headers):
        if name == f"{REDRIVE}attempts":
            return min(_number(value or b"") or 0, MAX_ATTEMPTS)
    return 0


def _number(text: bytes) -> int | None:
    """A number as Kafka could have written it: ASCII digits, at most 19 of them."""
    return int(text) if len(text) <= 19 and text.isdigit() else None  # noqa: PLR2004 - digits of a 64-bit integer


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
