"""Record batches byte by byte, with whatever may be wrong in them, and a way past the clients' checks to a broker."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer, codec
from aiokafka.record.util import calc_crc32c

from stream.kafka.clients import connection
from stream.kafka.inflating import MAX_BYTES
from stream.settings import Settings

__all__ = [
    "GZIP",
    "LOG_APPEND_TIME",
    "TRANSACTIONAL",
    "ZSTD",
    "RawBatch",
    "field",
    "hostile_batches",
    "marker",
    "raw_batch",
    "raw_record",
    "send_raw",
    "zigzag",
]

NOW_MS = 1_767_268_800_000
"""2026-01-01T12:00:00Z"""
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20


@dataclass(frozen=True)
class RawBatch:
    """A batch as it goes over the wire, and how many records it says it has."""

    data: bytes
    count: int


def zigzag(number: int) -> bytes:
    left, out = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        out.append(0x80 | left & 0x7F)
        left >>= 7
    return bytes([*out, left])


def field(data: bytes | None) -> bytes:
    return zigzag(-1) if data is None else zigzag(len(data)) + data


def raw_record(
    delta: int,
    value: bytes | None,
    *,
    key: bytes | None = b"k",
    headers: Sequence[tuple[bytes, bytes | None]] = (),
    timestamp_delta: int = 0,
    attributes: int = 0,
    key_bytes: bytes | None = None,
) -> bytes:
    """One record; `key_bytes` replace the key and its length."""
    body = b"".join(
        [
            bytes([attributes]) + zigzag(timestamp_delta) + zigzag(delta),
            field(key) if key_bytes is None else key_bytes,
            field(value) + zigzag(len(headers)),
            *(field(name) + field(content) for name, content in headers),
        ]
    )
    return zigzag(len(body)) + body


def raw_batch(
    records: Sequence[bytes],
    *,
    base_offset: int = 0,
    attributes: int = 0,
    payload: bytes | None = None,
    first_timestamp: int = NOW_MS,
    max_timestamp: int = NOW_MS,
    producer_id: int = -1,
    count: int | None = None,
    span: int | None = None,
) -> RawBatch:
    """A batch of records with a CRC that is right.

    `payload` replaces their bytes, `count` how many they say they are, and `span` the number of their offsets.
    """
    count = len(records) if count is None else count
    last = (count if span is None else span) - 1
    timestamps = first_timestamp, max_timestamp
    fields = struct.pack(">hiqqqhii", attributes, last, *timestamps, producer_id, -1, -1, count)
    checked = fields + (b"".join(records) if payload is None else payload)
    head = struct.pack(">qiibI", base_offset, len(checked) + 9, -1, 2, calc_crc32c(checked))
    return RawBatch(head + checked, count)


def marker(kind: int, *, base_offset: int, producer_id: int) -> RawBatch:
    """The control batch that ends a transaction: 0 aborts it, 1 commits it."""
    record = raw_record(0, struct.pack(">hi", 0, 0), key=struct.pack(">hh", 0, kind))
    return raw_batch([record], base_offset=base_offset, attributes=TRANSACTIONAL | CONTROL, producer_id=producer_id)


def hostile_batches(values: Sequence[bytes]) -> dict[str, RawBatch]:
    """Batches of three records that a broker accepts and aiokafka refuses or misreads, by what is wrong with them."""
    good = [raw_record(delta, value) for delta, value in enumerate(values)]
    body, two = b"".join(good), b"".join(good[:2])
    snappy = codec.snappy_encode(body)

    def first(**wrong: object) -> RawBatch:
        return raw_batch([raw_record(0, values[0], **wrong), *good[1:]])  # type: ignore[arg-type]

    def numbered(*deltas: int) -> RawBatch:
        return raw_batch([raw_record(delta, value) for delta, value in zip(deltas, values, strict=True)])

    return {
        "header name": first(headers=[(b"tenant-\xff\xfe", b"1"), (b"", None)]),
        "surplus bits in a length": first(key_bytes=b"\x82\x80\x80\x80\x70k"),
        "attributes": first(attributes=0xFF),
        "same offset": numbered(0, 0, 0),
        "offsets backwards": numbered(2, 1, 0),
        "far offset": numbered(2**31 - 1, 1, 2),
        "far offset last": numbered(0, 1, 2**31 - 1),
        "negative offset": numbered(-7, 1, 2),
        "prehistoric": raw_batch(good, first_timestamp=-(2**62)),
        "unused bits": raw_batch(good, attributes=-0x80),
        "behind gzip": raw_batch(good, attributes=GZIP, payload=gzip.compress(body) + b"behind"),
        "behind lz4": raw_batch(good, attributes=LZ4, payload=codec.lz4_encode(body) + b"behind"),
        "behind snappy": raw_batch(good, attributes=SNAPPY, payload=snappy + b"\0\0"),
        "bomb": raw_batch([b""] * 3, attributes=ZSTD, payload=codec.zstd_encode(two + raw_record(2, bytes(MAX_BYTES)))),
    }


def send_raw(settings: Settings, topic: str, batches: Iterable[tuple[int, RawBatch]]) -> list[int]:
    """Write batches to partitions, in order; the offset of each one's first record."""

    async def send() -> list[int]:
        producer = AIOKafkaProducer(**connection(settings), acks="all")
        await producer.start()
        try:
            return [await _send(producer, topic, partition, batch) for partition, batch in batches]
        finally:
            await producer.stop()

    return asyncio.run(send())


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, batch: RawBatch) -> int:
    built = producer.create_batch()
    built._builder, built._relative_offset = _Built(batch.data), batch.count
    acknowledged = await producer.send_batch(built, topic, partition=partition)
    offset: int = (await acknowledged).offset
    return offset


@dataclass(frozen=True)
class _Built:
    """What aiokafka takes for the builder of a batch."""

    data: bytes

    def build(self) -> bytearray:
        return bytearray(self.data)

    def size(self) -> int:
        return len(self.data)
