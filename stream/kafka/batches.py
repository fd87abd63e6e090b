r"""Record batches that Kafka accepts and aiokafka cannot read, or not within bounds, read here.

Of a batch a broker checks the CRC, the lengths and the number of its records, and little else. aiokafka's parser raises
at a header name that is not UTF-8, at surplus bits in a length and at bytes behind a compressed stream, and then every
fetch of that partition raises, for ever. It inflates kilobytes into all the memory there is. It takes a record's
attributes for a number of several bytes, and so may find another value in a record than Java's clients do. Offsets that
a producer made up it hands on as they are, and who follows them passes over other people's records. After `install`,
what has any of these is read by our own parser:

    header names        what is not UTF-8 in them becomes `\xNN`; aiokafka could write no such name into a dead letter
    attributes          one byte, whatever it is
    made-up offsets     the records are numbered as the broker counted them
    unreadable batches  each offset gets a record of nothing but a header, `fairway.unreadable`: a dead letter

A megabyte may also stand for millions of records, which are gigabytes as objects. A batch of more than `RUN_BYTES`,
once inflated, is therefore read run by run, and a fetch ends where it has given enough for one turn: what is left of it
is fetched again. A run that nobody can read is unreadable alone.

A wrong CRC stays an error: that is a broken disk, and nobody's input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from stream.kafka.inflating import inflate
from stream.kafka.parsing import CONTINUES, Headers, ParsedRecord, Run, cut, parse

__all__ = ["PRIVATE_NAMES", "UNREADABLE", "Batches", "FetchedRecords", "install"]

PRIVATE_NAMES = {"aiokafka.consumer.fetcher": ("MemoryRecords", "PartitionRecords")}
"""Private names this module relies on, by owner."""

UNREADABLE = "fairway.unreadable"
"""Header of a record that stands for one nobody can read; its value is the name of the error."""

RUN_BYTES = 1_048_576
"""Read at once: as much as a broker takes uncompressed by default, and 150,000 records at most."""

UNREADABLE_AT_ONCE = 8192
"""A batch nobody can read may say that it has two billion records, and gets as many answers."""

TURN_BYTES = 16_777_216
"""Sixteen times what a fetch of a partition has by default: text that people write does not compress better."""

TURN_RECORDS = 65_536
"""Sixteen bytes each in a default fetch: only records without content are smaller. 30 MB as objects."""

# From here on: version 2 of the "Message Format" in Kafka's documentation. A length counts from behind its own field.
LENGTH = Struct(">8xi")
HEADER_BYTES = 61
ATTRIBUTES_BYTE, CODEC_BITS = 22, 0b111
COUNT, COUNT_BYTE = Struct(">i"), 57


def install() -> None:
    """Let every aiokafka consumer of this process read such batches. A second call changes nothing."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = FetchedRecords


class FetchedRecords(PartitionRecords):
    """What is in one fetch of one partition; it says from which offset on, as a fetch may begin within a batch."""

    def __init__(self, tp: Any, records: Batches, aborted_transactions: Any, fetch_offset: int, *others: Any) -> None:
        records.turn.start = fetch_offset
        super().__init__(tp, records, aborted_transactions, fetch_offset, *others)


@dataclass(slots=True)
class _Turn:
    """What one fetch of a partition may still give before others have their turn, and from which offset on."""

    size: int
    records: int = TURN_RECORDS
    start: int = 0

    def spend(self, records: int, size: int) -> None:
        self.records -= records
        self.size -= size

    @property
    def is_over(self) -> bool:
        return self.size <= 0 or self.records <= 0


class Batches:
    """The batches in one fetch of one partition; the fetcher takes it for aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data, self._end = data, 0
        self._records = MemoryRecords(data)
        self.size_in_bytes = self._records.size_in_bytes
        self.turn = _Turn(max(TURN_BYTES, len(data)))

    def has_next(self) -> bool:
        """Whether there is another batch, and the turn is not over."""
        return not self.turn.is_over and self._records.has_next()

    def next_batch(self) -> Any:  # what aiokafka hands out has no types
        """The next batch; to be called only where `has_next`."""
        batch, start = self._records.next_batch(), self._end
        self._end = start + LENGTH.size + LENGTH.unpack_from(self._data, start)[0]
        if type(batch) is not DefaultRecordBatch:
            return batch  # of an old version, which has no headers
        return _Batch(batch, memoryview(self._data)[start : self._end], self.turn)


class _Batch:
    """A batch as the fetcher uses it; all it asks for before it iterates is aiokafka's own."""

    def __init__(self, batch: Any, data: memoryview, turn: _Turn) -> None:
        self._batch, self._data, self._turn = batch, data, turn
        self.base_offset, self.next_offset, self.producer_id = batch.base_offset, batch.next_offset, batch.producer_id
        self.is_control_batch, self.is_transactional = batch.is_control_batch, batch.is_transactional
        self.validate_crc = batch.validate_crc
        self._next, self._end = self.base_offset, self.next_offset
        """The offsets that records not read yet can have."""

    def __next__(self) -> Any:
        return next(self._batch)  # the marker in a control batch, which only brokers write

    def __iter__(self) -> Iterator[Any]:
        turn = self._turn
        for records, size in self._runs():
            self._next = records[-1].offset + 1
            if self._next <= turn.start:
                continue
            yield from records
            turn.spend(len(records), size)
            if turn.is_over:
                self.next_offset = self._next  # from here on it is fetched again
                return

    def _runs(self) -> Iterator[tuple[Sequence[Any], int]]:
        """The records of each run that may have some from the turn's start on, and its size in bytes."""
        (left,) = COUNT.unpack_from(self._data, COUNT_BYTE)
        is_whole = left == self._end - self.base_offset  # compaction took none away
        try:
            payload = self._payload()
            for run in cut(payload, size=RUN_BYTES):
                left -= run.records
                if is_whole and self._next + run.records <= self._turn.start:
                    self._next += run.records
                    continue
                records = self._read(payload[run.start : run.end], run)
                yield self._numbered(records, before=self._end - left), run.end - run.start
        except (MemoryError, UnsupportedCodecError):
            raise  # what is wanting is ours
        except Exception as error:  # noqa: BLE001 - anybody's bytes: parsers and codecs raise what they like
            for first in range(max(self._next, self._turn.start), self._end, UNREADABLE_AT_ONCE):
                yield self._unreadable(range(first, min(first + UNREADABLE_AT_ONCE, self._end)), error), 0

    def _payload(self) -> bytes:
        data = self._data[HEADER_BYTES:]
        return inflate(self._batch.compression_type, data) if self._batch.compression_type else data.tobytes()

    def _read(self, data: bytes, run: Run) -> Sequence[Any]:
        """The records in the bytes of a run, numbered as these say."""
        # One record of more than a run may have any number of headers.
        if len(data) <= RUN_BYTES and run.attributes < CONTINUES:
            try:
                return list(self._alone(data, run.records))
            except MemoryError:
                raise
            except Exception:  # noqa: BLE001, S110 - as above
                pass
        try:
            return [self._record(record) for record in parse(data)]
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return self._unreadable(range(self._next, self._next + run.records), error)

    def _alone(self, data: bytes, records: int) -> Iterable[Any]:
        """A run as a batch of its own, for aiokafka's parser."""
        head = bytearray(self._data[:HEADER_BYTES])
        head[ATTRIBUTES_BYTE] &= ~CODEC_BITS
        COUNT.pack_into(head, COUNT_BYTE, records)
        batch: Iterable[Any] = DefaultRecordBatch(head + data)
        return batch

    def _record(self, parsed: ParsedRecord) -> Any:
        batch = self._batch
        created = (batch.first_timestamp + parsed.timestamp_delta + 2**63) % 2**64 - 2**63  # a sum of 64 bits
        timestamp = batch.max_timestamp if batch.timestamp_type else created  # type 1: when it was appended
        offset = self.base_offset + parsed.offset_delta
        return DefaultRecord(offset, timestamp, batch.timestamp_type, parsed.key, parsed.value, parsed.headers)

    def _unreadable(self, offsets: Sequence[int], error: Exception) -> Sequence[Any]:
        why: Headers = [(UNREADABLE, type(error).__name__.encode())]
        batch = self._batch
        timestamp = batch.max_timestamp if batch.timestamp_type else batch.first_timestamp
        return [DefaultRecord(offset, timestamp, batch.timestamp_type, None, None, why) for offset in offsets]

    def _numbered(self, records: Sequence[Any], *, before: int) -> Sequence[Any]:
        """Number records anew unless their offsets can be what they say.

        Compaction leaves gaps, and nothing else changes offsets. `before` is the first that is another run's.
        """
        offsets, first = [record.offset for record in records], self._next
        if offsets == list(range(first, first + len(offsets))):
            return records
        if all(a < b for a, b in pairwise((first - 1, *offsets, before))):
            return records
        return [
            DefaultRecord(offset, r.timestamp, r.timestamp_type, r.key, r.value, r.headers)
            for offset, r in enumerate(records, first)
        ]
