from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import codec
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka import batches
from stream.kafka.batches import TURN_RECORDS, UNREADABLE, Batches, FetchedRecords
from stream.kafka.parsing import MAX_HEADERS
from tests.rawbatches import (
    GZIP,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    ZSTD,
    RawBatch,
    field,
    hostile_batches,
    marker,
    raw_batch,
    raw_record,
    zigzag,
)

PARTITION = TopicPartition("events", 0)
VALUES = (b"one", b"two" * 50, b"three")
HOSTILE = hostile_batches(VALUES)
UNREADABLE_ONES = ("behind gzip", "behind lz4", "behind snappy", "bomb")
NOW_MS = 1_767_268_800_000

Fields = tuple[Any, ...]


class RawName(str):  # noqa: SLOT000 - it needs room for its bytes
    """A header's name that aiokafka's Python writer writes as these bytes."""

    raw: bytes

    def encode(self, *_arguments: object) -> bytes:
        return self.raw


def raw_name(raw: bytes) -> RawName:
    name = RawName(raw.decode("latin-1"))
    name.raw = raw
    return name


def fields(record: Any) -> Fields:
    return (
        *(record.offset, record.timestamp, record.timestamp_type, record.key, record.value),
        [tuple(header) for header in record.headers],
    )


def read(data: bytes, records: Any = Batches) -> list[Fields]:
    """Every record in the bytes of a fetch."""
    found, fetch = [], records(data)
    while fetch.has_next():
        batch = fetch.next_batch()
        assert batch.validate_crc()
        found += [fields(record) for record in batch]
    return found


def fetched(
    data: bytes,
    *,
    records: Any = Batches,
    isolation: int = READ_UNCOMMITTED,
    aborted: Sequence[tuple[int, int]] = (),
    start: int = 0,
) -> Iterator[tuple[Any, int]]:
    """What aiokafka's fetcher makes of the bytes of a fetch: each record, and the position after it."""
    kind = FetchedRecords if records is Batches else PartitionRecords
    partition = kind(PARTITION, records(data), list(aborted), start, None, None, True, isolation)
    for record in partition:
        yield fields(record), partition.next_fetch_offset
    yield None, partition.next_fetch_offset


def fetched_in_turns(data: bytes, *, start: int = 0, end: int) -> Iterator[list[Fields]]:
    """What each fetch gives of a partition that ends at an offset, if all of them return the same bytes."""
    while start < end:
        *found, (_, position) = fetched(data, start=start)
        yield [record for record, _ in found]
        assert position > start
        start = position


@contextmanager
def small_turns(run_bytes: int, turn_records: int) -> Iterator[None]:
    """Batches of a few records are read as those of millions are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "RUN_BYTES", run_bytes)
        patch.setattr(batches, "TURN_RECORDS", turn_records)
        patch.setattr(batches._Turn.__init__, "__defaults__", (turn_records, 0))
        yield


blobs = st.none() | st.binary(max_size=200)
timestamps = st.integers(0, 2**62)
contents = st.tuples(timestamps, blobs, blobs, st.lists(st.tuples(st.binary(max_size=20), blobs), max_size=4))


@pytest.mark.parametrize("compression", range(5), ids=["none", "gzip", "snappy", "lz4", "zstd"])
@given(st.lists(contents, min_size=1, max_size=20), st.binary(max_size=5), st.integers(0, 2**40))
def test_what_aiokafka_writes_is_read(
    compression: int,
    written: list[tuple[int, bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]],
    prefix: bytes,
    base_offset: int,
) -> None:
    """Whatever bytes its header names are, a record that aiokafka's writer wrote is read as it was written."""
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 10**9)
    written = [*written, (NOW_MS, None, None, [(prefix + b"\xff", None)])]
    for number, (timestamp, key, value, headers) in enumerate(written):
        builder.append(number, timestamp, key, value, [(raw_name(name), content) for name, content in headers])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base_offset)

    with pytest.raises(UnicodeDecodeError):
        read(bytes(data), MemoryRecords)
    assert read(bytes(data)) == [
        (
            base_offset + number,
            timestamp,
            0,
            key,
            value,
            [(n.decode("utf-8", "backslashreplace"), v) for n, v in headers],
        )
        for number, (timestamp, key, value, headers) in enumerate(written)
    ]


@given(st.lists(contents, min_size=1, max_size=20), st.integers(0, 4))
def test_a_good_batch_is_aiokafkas_own(
    written: list[tuple[int, bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]], compression: int
) -> None:
    """A batch that aiokafka can read gives the very records that aiokafka reads."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 10**9)
    for number, (timestamp, key, value, headers) in enumerate(written):
        builder.append(number, timestamp, key, value, [(name.decode("latin-1"), content) for name, content in headers])
    data = bytes(builder.build())

    assert read(data) == read(data, MemoryRecords)


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 6), min_size=1, max_size=6))
def test_made_up_offsets_are_replaced(deltas: list[int]) -> None:
    """Offsets that do not ascend within those the broker counted are counted anew, and every record is there."""
    batch = raw_batch([raw_record(delta, b"%d" % delta) for delta in deltas], base_offset=1000)

    found = read(batch.data)

    assert [record[0] for record in found] == list(range(1000, 1000 + len(deltas)))
    assert [record[4] for record in found] == [b"%d" % delta for delta in deltas]


@given(st.sets(st.integers(0, 30), max_size=20), st.integers(0, 5), st.booleans())
def test_the_gaps_of_compaction_stay(deltas: set[int], more: int, poisoned: bool) -> None:
    """Records that compaction has left in a batch keep their offsets, and the position goes behind the batch."""
    headers = [(b"\xff", b"")] if poisoned else []
    records = [raw_record(delta, b"v", headers=headers) for delta in sorted(deltas)]
    batch = raw_batch(records, base_offset=7, span=max(deltas, default=0) + 1 + more)

    *found, (_, position) = fetched(batch.data)

    assert [record[0] for record, _ in found] == [7 + delta for delta in sorted(deltas)]
    assert position == 7 + max(deltas, default=0) + 1 + more


@pytest.mark.parametrize("name", HOSTILE)
def test_no_batch_that_a_broker_takes_is_lost(name: str) -> None:
    """Every offset of a hostile batch has its record, and the batches around it are as if it were not there."""
    before, after = (raw_batch([raw_record(0, b"good")], base_offset=offset) for offset in (9, 13))
    hostile = bytearray(HOSTILE[name].data)
    struct.pack_into(">q", hostile, 0, 10)

    found = read(before.data + hostile + after.data)

    assert [record[0] for record in found] == [9, 10, 11, 12, 13]
    assert [record[4] for record in found if record[0] in {9, 13}] == [b"good"] * 2
    inside = [record[3:] for record in found[1:-1]]
    if name in UNREADABLE_ONES:
        assert all(record[:2] == (None, None) and record[2][0][0] == UNREADABLE for record in inside)
    else:
        assert [record[:2] for record in inside] == [(b"k", value) for value in VALUES]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in {"prehistoric", "unused bits", "bomb"}])
def test_aiokafka_alone_reads_hostile_batches_wrongly(name: str) -> None:
    """Without us each of these raises, or loses records: where that is mended upstream, we are done with it."""
    try:
        offsets = [record[0] for record in read(HOSTILE[name].data, MemoryRecords)]
    except Exception:  # noqa: BLE001 - of any kind, which is the point
        return
    assert offsets != [0, 1, 2]


def test_an_unreadable_batch_says_why() -> None:
    """Records that nobody can read are null, name the error and no content, and have the time of their batch."""
    (first, *_) = read(HOSTILE["behind gzip"].data)
    assert first == (0, NOW_MS, 0, None, None, [(UNREADABLE, b"BadGzipFile")])


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (b"\x12\x00\x00\x00\x01\x7f\x00", b"ValueError"),  # a value of minus 64 bytes and headers that are not there
        (b"\x0e\x00\x00\x00\x01\x06v\x00", b"ValueError"),  # a value that goes on behind the batch
        (b"\x10\x00\x00\x00\x01\x02v\x00", b"ValueError"),  # a record that is longer than what is in it
        (b"\x0e\x00\x00\x00\x01\x02v\x02", b"IndexError"),  # a header that is not there
        (b"\x20\x00\x00" + b"\x80" * 10 + b"\x00", b"ValueError"),  # a number without an end
    ],
)
def test_lengths_that_lie_are_found_out(lie: bytes, error: bytes) -> None:
    """A batch whose lengths contradict each other is unreadable as a whole: nothing in it can be told apart."""
    found = read(raw_batch([raw_record(0, b"v", headers=[(b"\xff", b"")]), lie]).data)
    assert [record[3:] for record in found] == [(None, None, [(UNREADABLE, error)])] * 2


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("headers", [[], [(b"\xff", b"")]], ids=["good", "poisoned"])
def test_a_record_can_have_the_brokers_time(headers: list[tuple[bytes, bytes | None]], compressed: bool) -> None:
    """Where the topic stamps records as they are appended, all of a batch have the time of that."""
    records = [raw_record(delta, b"v", headers=headers, timestamp_delta=-delta) for delta in range(3)]
    attributes, payload = LOG_APPEND_TIME, None
    if compressed:
        attributes, payload = LOG_APPEND_TIME | GZIP, gzip.compress(b"".join(records))
    batch = raw_batch(records, attributes=attributes, payload=payload, max_timestamp=NOW_MS + 5)
    assert {record[1:3] for record in read(batch.data)} == {(NOW_MS + 5, 1)}


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_times_overflow_as_they_do_in_aiokafka(first: int, delta: int) -> None:
    """The time of a record is a sum of 64 bits, whatever a producer adds up."""
    good, poisoned = (
        raw_batch([raw_record(0, b"v", timestamp_delta=delta, headers=headers)], first_timestamp=first)
        for headers in ([], [(b"\xff", b"")])
    )
    assert read(poisoned.data)[0][1] == read(good.data, MemoryRecords)[0][1]


def test_a_wrong_crc_stays_an_error() -> None:
    """Bytes that are not what was sent are refused, and nobody tries to read them."""
    data = bytearray(HOSTILE["header name"].data)
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="CRC"):
        list(fetched(bytes(data)))


def test_a_codec_that_is_wanting_stays_an_error() -> None:
    """A compression that this installation does not know is no fault of the records."""
    with pytest.raises(UnsupportedCodecError):
        read(raw_batch([raw_record(0, b"v")], attributes=7).data)


def test_a_batch_cut_short_waits_for_the_next_fetch() -> None:
    """Kafka cuts the last batch of a fetch where the fetch is full; what is there of it is not read."""
    whole, cut = HOSTILE["header name"].data, raw_batch([raw_record(0, b"next")], base_offset=3).data
    for length in (0, 5, 20, len(cut) - 1):
        assert len(read(whole + cut[:length])) == 3
    assert Batches(whole + cut[:5]).size_in_bytes() == len(whole) + 5
    assert not Batches(cut[:-1]).has_next()


@pytest.mark.parametrize("magic", [0, 1])
def test_an_old_format_is_read_as_before(magic: int) -> None:
    """What a topic holds since before Kafka 0.11 has no headers and passes through."""
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=0, batch_size=10_000)
    for number in range(3):
        builder.append(number, timestamp=NOW_MS, key=b"k", value=b"v%d" % number)
    data = bytes(builder.build())
    assert [record.value for fetch in [Batches(data)] for _ in range(3) for record in fetch.next_batch()] == [
        *(b"v0", b"v1", b"v2"),
    ]


def transactions(headers: Sequence[tuple[bytes, bytes | None]]) -> bytes:
    """Two producers' transactions, interleaved: 5 aborts, 6 commits, 5 aborts again, 5 commits; one batch of nobody."""
    offset, out = 0, b""
    for what in ("5", "6", "5", "abort 5", "plain", "6", "commit 6", "5", "abort 5", "5", "commit 5"):
        kind, _, producer = what.rpartition(" ")
        if kind:
            batch = marker(kind == "commit", base_offset=offset, producer_id=int(producer))
        else:
            number = -1 if what == "plain" else int(what)
            records = [raw_record(delta, b"%d" % (offset + delta), headers=headers) for delta in range(2)]
            attributes = TRANSACTIONAL if number > 0 else 0
            batch = raw_batch(records, base_offset=offset, attributes=attributes, producer_id=number)
        out, offset = out + batch.data, offset + batch.count
    return out


def since(data: bytes, start: int) -> bytes:
    """The batches from the one with an offset on, as a broker returns them."""
    batches_, at = Batches(data), 0
    while batches_.next_batch().next_offset <= start:
        at = batches_._end
    return data[at:]


@pytest.mark.parametrize("isolation", [READ_UNCOMMITTED, READ_COMMITTED], ids=["uncommitted", "committed"])
@pytest.mark.parametrize("start", [0, 1, 3, 8, 9, 16])
def test_transactions_are_what_they_were(isolation: int, start: int) -> None:
    """Control batches and aborted records are passed over and every position is right, from wherever one starts."""
    aborted = [(5, 0), (5, 12)]

    def what(headers: Sequence[tuple[bytes, bytes | None]], records: Any) -> list[tuple[Any, int]]:
        data = since(transactions(headers), start)
        return list(fetched(data, records=records, isolation=isolation, aborted=aborted, start=start))

    expected = what([], MemoryRecords)
    for headers in ([], [(b"\xff", b"")]):
        found = what(headers, Batches)
        assert [(record and record[:5], position) for record, position in found] == [
            (record and record[:5], position) for record, position in expected
        ]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_batch_is_taken_up_where_it_was_left(name: str) -> None:
    """Reading that begins within a hostile batch gives what is left of it, under the same offsets."""
    *whole, _ = fetched(HOSTILE[name].data)
    assert [position for _, position in whole] == [1, 2, 3]
    for start in range(3):
        *found, (_, position) = fetched(HOSTILE[name].data, start=start)
        assert (found, position) == (whole[start:], 3)


TINY = raw_record(0, None, key=None)
MANY = 200_000


def of_tiny(count: int, record: bytes = TINY, *, last: bytes = b"") -> RawBatch:
    """A few kilobytes that stand for so many records, each of which says that it is the first."""
    payload = codec.zstd_encode(record * (count - bool(last)) + last)
    return raw_batch([], count=count, attributes=ZSTD, payload=payload)


def test_another_value_than_javas_clients_read_is_not_found() -> None:
    """Attributes of a record that aiokafka takes for two bytes do not hide its value behind another one."""
    headers = b"\x00\x01" + b"\x02\x00\x00"
    body = b"\x80" + zigzag(0) + zigzag(0) + field(b"") + field(b"hate") + zigzag(2) + headers
    data = raw_batch([zigzag(len(body)) + body]).data

    assert read(data, MemoryRecords) == [(0, NOW_MS, 0, b"hate", b"\x00\x01", [("", b"")])]
    assert read(data) == [(0, NOW_MS, 0, b"", b"hate", [("", None), ("\x00", b"")])]


@given(
    st.lists(contents, min_size=1, max_size=20),
    st.integers(0, 4),
    st.booleans(),
    st.integers(1, 300),
    st.integers(1, 10),
    st.integers(0, 19),
)
def test_a_large_batch_is_read_in_turns(
    written: list[tuple[int, bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]],
    compression: int,
    made_up: bool,
    run_bytes: int,
    turn_records: int,
    start: int,
) -> None:
    """Cut anywhere, from any offset on, under any numbers, a batch gives every record once and in order."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 10**9)
    for number, (timestamp, key, value, headers) in enumerate(written):
        names = [(name.decode("latin-1"), content) for name, content in headers]
        builder.append(0 if made_up and number else number, timestamp, key, value, names)
    data = bytearray(builder.build())
    struct.pack_into(">i", data, 23, len(written) - 1)  # the offsets that the broker counts
    struct.pack_into(">I", data, 17, calc_crc32c(data[21:]))
    data += raw_batch([raw_record(0, b"behind")], base_offset=len(written)).data

    with small_turns(run_bytes, turn_records):
        turns = list(fetched_in_turns(bytes(data), start=min(start, len(written)), end=len(written) + 1))

    found = [record for turn in turns for record in turn]
    assert [record[0] for record in found] == list(range(min(start, len(written)), len(written) + 1))
    expected = [(t, 0, k, v, [(n.decode("latin-1"), c) for n, c in h]) for t, k, v, h in written]
    assert [record[1:] for record in found[:-1]] == expected[start:]
    assert found[-1][4] == b"behind"


@given(st.sets(st.integers(0, 30), min_size=1, max_size=20), st.integers(0, 5), st.booleans(), st.integers(0, 40))
def test_the_gaps_of_compaction_stay_in_turns(deltas: set[int], more: int, poisoned: bool, start: int) -> None:
    """Cut into runs, records that compaction has left keep their offsets, wherever one starts."""
    headers = [(b"\xff", b"")] if poisoned else []
    records = [raw_record(delta, b"v", headers=headers) for delta in sorted(deltas)]
    span = max(deltas) + 1 + more
    data = raw_batch(records, span=span).data

    with small_turns(25, 2):
        turns = list(fetched_in_turns(data, start=min(start, span - 1), end=span))

    found = [record[0] for turn in turns for record in turn]
    assert found == [delta for delta in sorted(deltas) if delta >= min(start, span - 1)]
    assert all(len(turn) <= 3 for turn in turns)


@given(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 40), min_size=1, max_size=20), st.integers(0, 20))
def test_made_up_offsets_leave_room_for_what_follows(deltas: list[int], more: int) -> None:
    """Cut into runs, records whose offsets cannot be true get some that ascend and are the batch's own."""
    records = [raw_record(delta, b"%d" % number) for number, delta in enumerate(deltas)]
    span = len(records) + more
    with small_turns(25, 4):
        found = [record for turn in fetched_in_turns(raw_batch(records, span=span).data, end=span) for record in turn]
    offsets = [record[0] for record in found]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] < span
    assert [record[4] for record in found] == [b"%d" % number for number in range(len(records))]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_batch_is_read_in_turns(name: str) -> None:
    """Cut into single records, a hostile batch gives what it gives whole."""
    *whole, _ = fetched(HOSTILE[name].data)
    with small_turns(1, 1):
        turns = list(fetched_in_turns(HOSTILE[name].data, end=3))
    if name not in UNREADABLE_ONES:
        assert turns == [[record] for record, _ in whole]
    assert [record for turn in turns for record in turn] == [record for record, _ in whole]


def test_many_records_are_not_in_memory_at_once() -> None:
    """A few kilobytes give at most a turn's records at a time, and of those that wait there are bytes alone."""
    batch = of_tiny(MANY)
    assert len(batch.data) < 1_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in fetched(batch.data)) - 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert TURN_RECORDS <= count < 4 * TURN_RECORDS
    assert peak < 150_000_000


def test_each_of_many_records_has_its_offset() -> None:
    """Turn by turn, a batch of very many records gives each of them, and others have their turns in between."""
    end = MANY
    turns = [[record[0] for record in turn] for turn in fetched_in_turns(of_tiny(MANY).data, end=end)]
    assert [offset for turn in turns for offset in turn] == list(range(end))
    assert 1 < len(turns) <= MANY / TURN_RECORDS


def test_records_may_not_have_any_number_of_headers() -> None:
    """One record of millions of headers is unreadable, and those that came with it are not."""
    many = 4_000_000
    body = b"\x00\x00\x00\x01\x01" + zigzag(many) + b"\x00\x01" * many
    few = raw_record(0, b"v", headers=[(b"n", None)] * MAX_HEADERS)
    batch = of_tiny(3, few, last=zigzag(len(body)) + body)
    tracemalloc.start()
    try:
        found = read(batch.data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [record[4] for record in found] == [b"v", b"v", None]
    assert [len(record[5]) for record in found] == [MAX_HEADERS, MAX_HEADERS, 1]
    assert found[2][5] == [(UNREADABLE, b"ValueError")]
    assert peak < 100_000_000


@pytest.mark.parametrize("start", [0, 2**30, 2**31 - 3])
def test_two_billion_records_that_nobody_can_read_are_answered_one_by_one(start: int) -> None:
    """Where a batch ends in the thousands of millions, one may go on anywhere in it, a turn at a time."""
    count = 2**31 - 1
    data = raw_batch([], count=count, attributes=GZIP, payload=b"no gzip").data
    *found, (_, position) = fetched(data, start=start)
    assert [record[0] for record, _ in found] == list(range(start, position))
    assert min(TURN_RECORDS, count - start) <= len(found) <= 2 * TURN_RECORDS
    assert {record[5][0][0] for record, _ in found} == {UNREADABLE}


def test_what_follows_an_unreadable_run_is_read() -> None:
    """In a large batch, a run that nobody can read is answered alone; behind a wrong length nothing is found."""
    good, lie = raw_record(0, b"good"), b"\x0e\x00\x00\x00\x01\x06v\x00"
    with small_turns(1, 100):
        whys = [record[5] for record in read(raw_batch([good, lie, good]).data)]
        lost = [record[5] for record in read(raw_batch([good, good, b"\x7f", good]).data)]
    assert whys == [[], [(UNREADABLE, b"ValueError")], []]
    assert lost == [[], *[[(UNREADABLE, b"ValueError")]] * 3]
