r"""Record batches that Kafka accepts and aiokafka cannot read, read here by the letter of the protocol.

Of a batch a broker checks the CRC, the lengths and the number of its records, and little else. aiokafka's parser raises
at a header name that is not UTF-8, at surplus bits in a length and at bytes behind a compressed stream, and then every
fetch of that partition raises, for ever. It inflates kilobytes into all the memory there is. Offsets that a producer
made up it hands on as they are, and who follows them passes over other people's records. After `install`, a batch with
any of these is read again by the parser below:

    header names        what is not UTF-8 in them becomes `\xNN`; aiokafka could write no such name into a dead letter
    made-up offsets     the records are numbered as the broker counted them
    unreadable batches  each offset gets a record of nothing but a header, `fairway.unreadable`: a dead letter

A wrong CRC stays an error: that is a broken disk, and nobody's input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from struct import Struct
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from stream.kafka.inflating import inflate

__all__ = ["PRIVATE_NAMES", "UNREADABLE", "Batches", "install"]

PRIVATE_NAMES = {"aiokafka.consumer.fetcher": ("MemoryRecords",)}
"""Private names this module relies on, by owner."""

UNREADABLE = "fairway.unreadable"
"""Header of a record that stands for one nobody can read; its value is the name of the error."""

# From here on: version 2 of the "Message Format" in Kafka's documentation. A length counts from behind its own field.
LENGTH = Struct(">8xi")
HEADER_BYTES = 61
ATTRIBUTES_BYTE, CODEC_BITS = 22, 0b111
VARINT_BITS, VARLONG_BITS = 32, 64

Headers = list[tuple[str, bytes | None]]


def install() -> None:
    """Let every aiokafka consumer of this process read such batches. A second call changes nothing."""
    fetcher.MemoryRecords = Batches


class Batches:
    """The batches in one fetch of one partition; the fetcher takes it for aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data, self._end = data, 0
        self._records = MemoryRecords(data)
        self.has_next, self.size_in_bytes = self._records.has_next, self._records.size_in_bytes

    def next_batch(self) -> Any:  # what aiokafka hands out has no types
        """The next batch; to be called only where `has_next`."""
        batch, start = self._records.next_batch(), self._end
        self._end = start + LENGTH.size + LENGTH.unpack_from(self._data, start)[0]
        if type(batch) is not DefaultRecordBatch:
            return batch  # of an old version, which has no headers
        return _Batch(batch, memoryview(self._data)[start : self._end])


class _Batch:
    """A batch as the fetcher uses it; all it asks for before it iterates is aiokafka's own."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch, self._data = batch, data
        self.base_offset, self.next_offset, self.producer_id = batch.base_offset, batch.next_offset, batch.producer_id
        self.is_control_batch, self.is_transactional = batch.is_control_batch, batch.is_transactional
        self.validate_crc = batch.validate_crc

    def __next__(self) -> Any:
        return next(self._batch)  # the marker in a control batch, which only brokers write

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(self._records())
        except (MemoryError, UnsupportedCodecError):
            raise  # what is wanting is ours
        except Exception as error:  # noqa: BLE001 - anybody's bytes: parsers and codecs raise what they like
            why: Headers = [(UNREADABLE, type(error).__name__.encode())]
            count = self.next_offset - self.base_offset
            return self._numbered([_Record(0, delta, None, None, why) for delta in range(count)])

    def _records(self) -> Iterable[Any]:
        batch, payload = self._batch, self._data[HEADER_BYTES:]
        if batch.compression_type:
            payload = memoryview(inflate(batch.compression_type, payload))
            head = bytearray(self._data[:HEADER_BYTES])
            head[ATTRIBUTES_BYTE] &= ~CODEC_BITS
            batch = DefaultRecordBatch(bytes(head) + payload)
        try:
            records = list(batch)
            if self._ascend([record.offset for record in records]):
                return records
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S110 - as above
            pass
        return self._numbered(list(_Parser(payload.tobytes())))

    def _ascend(self, offsets: Sequence[int]) -> bool:
        """Whether records can have these offsets: compaction leaves gaps, and nothing else changes their numbers."""
        if offsets == list(range(self.base_offset, self.next_offset)):
            return True
        return all(a < b for a, b in pairwise((self.base_offset - 1, *offsets, self.next_offset)))

    def _numbered(self, records: Sequence[_Record]) -> Iterator[Any]:
        batch = self._batch
        offsets = [self.base_offset + record.offset_delta for record in records]
        if not self._ascend(offsets):
            offsets = list(range(self.base_offset, self.base_offset + len(records)))
        for offset, record in zip(offsets, records, strict=True):
            created = _signed(batch.first_timestamp + record.timestamp_delta, VARLONG_BITS)
            timestamp = batch.max_timestamp if batch.timestamp_type else created  # type 1: when it was appended
            yield DefaultRecord(offset, timestamp, batch.timestamp_type, record.key, record.value, record.headers)


class _Record(NamedTuple):
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class _Parser:
    """Iterates over the records in the bytes of a batch. Raises `ValueError` or `IndexError` where these are wrong."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __iter__(self) -> Iterator[_Record]:
        while self._at < len(self._data):
            end = self._varint() + self._at
            self._at += 1  # attributes: a byte without a meaning yet
            yield _Record(self._varint(VARLONG_BITS), self._varint(), self._bytes(), self._bytes(), self._headers())
            if self._at != end:
                raise ValueError(f"a record that should end at byte {end} ends at {self._at}")

    def _headers(self) -> Headers:
        pairs = ((self._bytes() or b"", self._bytes()) for _ in range(self._varint()))
        return [(name.decode("utf-8", "backslashreplace"), value) for name, value in pairs]

    def _bytes(self) -> bytes | None:
        length = self._varint()
        if length < 0:
            return None
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError(f"{length} bytes should follow byte {start} of {len(self._data)}")
        return self._data[start : self._at]

    def _varint(self, bits: int = VARINT_BITS) -> int:
        """A zigzag number. Bits that do not fit are dropped, as brokers do."""
        raw = 0
        for shift in range(0, bits, 7):
            byte = self._data[self._at]
            self._at += 1
            raw |= (byte & 0x7F) << shift
            if not byte & 0x80:
                raw &= (1 << bits) - 1
                return (raw >> 1) ^ -(raw & 1)
        raise ValueError(f"a number of more than {bits} bits ends at byte {self._at}")


def _signed(number: int, bits: int) -> int:
    """What an integer of so many bits holds of a number."""
    return (number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
