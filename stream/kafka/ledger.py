"""Which slices are in hand and how far each partition is finished: the arithmetic behind every commit.

A slice is a run of records of one partition in offset order. Slices may finish in any order; a partition's committable
offset is the end of its contiguous finished prefix, so an offset is never committed over unfinished work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from stream.events import SourceRecord

__all__ = ["HEADER_BYTES", "UNIT_MAX_BYTES", "Ledger", "Partition", "Slice", "size_of"]

UNIT_MAX_BYTES = 1_048_576
"""Records scored together hold at most this many bytes, or are one record, whatever they take: a fetch of Kafka's
default size. How many take how long is found out beside (`stream.kafka.pace`)."""

HEADER_BYTES = 128
"""What a header takes as an object, beside its content: in a record, two bytes may stand for one."""


class Partition(NamedTuple):
    """A topic partition; equal to Faust's `TP` and aiokafka's `TopicPartition`, which are named tuples too."""

    topic: str
    partition: int


def size_of(record: SourceRecord) -> int:
    """Bytes that a record takes for what its producer put into it, value, key or headers."""
    size = len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += HEADER_BYTES + len(name) + len(value or b"")
    return size


@dataclass(slots=True, eq=False)
class Slice:
    """A run of records of one partition. `epoch` tells whether the partition was ours the whole time since."""

    partition: Partition
    records: Sequence[SourceRecord]
    epoch: int
    size_bytes: int
    serial: int = 0
    """Consecutive over all slices of a ledger, so that a slice lost between two hands is noticed."""
    fetched_at: float = 0.0
    """Monotonic seconds when the slice was fetched, for the queue-age metric."""
    is_finished: bool = field(default=False, init=False)

    @property
    def end(self) -> int:
        """Offset after the last record."""
        return self.records[-1].offset + 1


class Ledger:
    """Slices in hand per partition, in offset order, and what may be committed.

    Not thread-safe: it belongs to the event loop.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.records_in_hand = 0
        self.bytes_in_hand = 0
        self._serial = 0
        self._open: dict[Partition, deque[Slice]] = {}
        self._finished: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}

    def open(self, piece: Slice) -> None:
        """Register a slice; slices of a partition must be opened in offset order."""
        self._serial += 1
        piece.serial = self._serial
        self._open.setdefault(piece.partition, deque()).append(piece)
        self.records_in_hand += len(piece.records)
        self.bytes_in_hand += piece.size_bytes

    def cut(self, piece: Slice, *, max_records: int, max_bytes: int) -> Slice | None:
        """Shorten a slice to what is within the bounds, one record at least; return the rest, a slice of its own.

        None where all of it is, or where it is stale: then nobody will work on it.
        """
        if self.is_stale(piece) or (len(piece.records) <= max_records and piece.size_bytes <= max_bytes):
            return None
        count = size = 0
        for record in piece.records[: max(1, max_records)]:
            length = size_of(record)
            if count and size + length > max_bytes:
                break
            count, size = count + 1, size + length
        if count == len(piece.records):
            return None
        rest = replace(piece, records=piece.records[count:], size_bytes=piece.size_bytes - size)
        piece.records, piece.size_bytes = piece.records[:count], size
        queue = self._open[piece.partition]
        queue.insert(queue.index(piece) + 1, rest)
        return rest

    def finish(self, piece: Slice) -> None:
        """Mark a slice finished: every output of it is acknowledged by the broker. Stale slices are ignored."""
        if self.is_stale(piece) or piece.is_finished:
            return
        piece.is_finished = True
        self.records_in_hand -= len(piece.records)
        self.bytes_in_hand -= piece.size_bytes
        queue = self._open[piece.partition]
        while queue and queue[0].is_finished:
            self._finished[piece.partition] = queue.popleft().end

    def is_stale(self, piece: Slice) -> bool:
        """Tell whether the partition was taken away since the slice was fetched; its new owner will read it again."""
        return piece.epoch != self.epoch

    @property
    def is_empty(self) -> bool:
        """True when no slice is in hand."""
        return self.records_in_hand == 0

    def committable(self) -> dict[Partition, int]:
        """Offsets that may be committed now and are not committed yet."""
        return {
            partition: offset
            for partition, offset in self._finished.items()
            if offset > self._committed.get(partition, -1)
        }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Record that the broker accepted these offsets."""
        self._committed.update(offsets)

    def revoke_all(self) -> None:
        """Forget everything: the partitions are no longer ours. Slices in hand become stale."""
        self.epoch += 1
        self.records_in_hand = self.bytes_in_hand = 0
        self._open.clear()
        self._finished.clear()
        self._committed.clear()
