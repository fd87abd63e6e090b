"""`fairway worker` on a topic into which somebody writes batches that Kafka takes and its own clients choke on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, codec

from stream.events import RejectReason
from stream.kafka import deadletter, topics
from stream.kafka.accounts import PartitionAudit
from stream.kafka.audit import audit
from stream.kafka.batches import UNREADABLE
from stream.kafka.broker import LocalBroker
from stream.kafka.clients import connection
from stream.kafka.deadletter import DeadLetter
from stream.kafka.following import follow
from stream.kafka.redaction import describer
from stream.settings import Settings
from tests.conftest import own_settings
from tests.rawbatches import ZSTD, hostile_batches, raw_batch, raw_record, send_raw, zigzag
from tests.topics import Records, Sent, records_of, send
from tests.workers import WorkerProcess, until

pytestmark = pytest.mark.kafka

PARTITIONS = 2
HOSTILE = 14
UNREADABLE_BATCHES = 4
NEIGHBOURS = 20
SETTLE_S = 60.0
MANY = 100_000


def event(name: str) -> bytes:
    return json.dumps({"id": name, "created_at": "2026-01-01T12:00:00Z", "role": "output", "text": "a text"}).encode()


def neighbours(name: str, count: int = NEIGHBOURS) -> Iterator[Sent]:
    return ((number % PARTITIONS, b"k", event(f"{name}-{number}"), [("n", b"1")]) for number in range(count))


@dataclass(frozen=True)
class Run:
    """What became of hostile batches among good ones."""

    settings: Settings
    audit: PartitionAudit
    later: PartitionAudit
    decisions: Records
    letters: Records
    status: int


@pytest.fixture(scope="module")
def run(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Good and hostile batches by turns, a worker that reads them all, and good ones after that."""
    settings = own_settings(broker, bundle="stub", partitions=PARTITIONS, max_future_s=1e9)
    topics.create(settings)
    send(settings, settings.events_topic, neighbours("before"))
    hostile = hostile_batches([event(f"hostile-{number}") for number in range(3)])
    for name, batch in hostile.items():
        send_raw(settings, settings.events_topic, ((number, batch) for number in range(PARTITIONS)))
        send(settings, settings.events_topic, neighbours(name))
    broken = raw_record(0, b"no event", headers=[(b"tenant-\xff", b"\xfe"), (b"tenant-\xff", None)])
    send_raw(settings, settings.events_topic, [(0, raw_batch([broken]))])
    worker = WorkerProcess(settings, tmp_path_factory.mktemp("hostile") / "worker.log")
    try:
        worker.wait_ready()
        first = audit(settings, wait_s=SETTLE_S)
        send(settings, settings.events_topic, neighbours("after"))
        second = audit(settings, wait_s=SETTLE_S)
        until(lambda: worker.page("/live")[0] == 200, within_s=10)
        assert (first.lag, second.lag) == (0, 0), worker.tail()
        yield Run(
            settings,
            first.total,
            second.total,
            records_of(settings, settings.decisions_topic),
            records_of(settings, settings.dead_letter_topic),
            worker.stop(),
        )
    finally:
        worker.close()


def test_every_record_is_accounted_for(run: Run) -> None:
    """Each record of a hostile batch is decided, or dead-lettered where nobody can read it, and so are all others."""
    assert run.audit.is_sound, run.audit
    unreadable = 3 * UNREADABLE_BATCHES * PARTITIONS + 1
    assert run.audit.dead_lettered == unreadable
    assert run.audit.decided == 3 * HOSTILE * PARTITIONS + NEIGHBOURS * (HOSTILE + 1) - unreadable + 1
    assert (run.audit.duplicated, run.audit.redecided) == (0, 0)


def test_the_worker_goes_on(run: Run) -> None:
    """After all that, what arrives is decided, and the worker ends as it should when it is asked to."""
    assert run.later.is_sound, run.later
    assert run.later.decided == run.audit.decided + NEIGHBOURS
    assert run.status == 0


def test_a_dead_letter_keeps_names_that_are_not_utf8(run: Run) -> None:
    """In a dead letter, the bytes of a header's name that are not UTF-8 are readable, and its value is untouched."""
    (letter,) = (letter for letter in decoded(run.letters) if letter.reason == RejectReason.DECODE_ERROR)
    assert letter.original == [("tenant-\\xff", b"\xfe"), ("tenant-\\xff", None)]


def test_what_nobody_can_read_is_a_tombstone_that_says_so(run: Run) -> None:
    """The dead letters of an unreadable batch name its records' coordinates and what was wrong with the batch."""
    letters = [letter for letter in decoded(run.letters) if letter.reason == RejectReason.TOMBSTONE]
    assert len({letter.source_id for letter in letters}) == 3 * UNREADABLE_BATCHES * PARTITIONS
    assert {value for letter in letters for name, value in letter.original if name == UNREADABLE} == {
        *(b"BadGzipFile", b"DecompressionError", b"error"),
    }


def test_a_person_can_watch_it(run: Run) -> None:
    """Tail shows every record of such a topic, under the offset it has."""
    total = run.later.events
    describe = describer(run.settings, run.settings.events_topic, content=True)
    shown = [
        (document["partition"], document["offset"])
        for record in islice(follow(run.settings, run.settings.events_topic, from_beginning=True), total)
        for document in [describe(record)]
    ]
    counts = [sum(partition == number for partition, _ in shown) for number in range(PARTITIONS)]
    assert sorted(shown) == [(number, offset) for number in range(PARTITIONS) for offset in range(counts[number])]


def test_much_in_a_few_bytes(broker: LocalBroker, tmp_path: Path) -> None:
    """Of a hundred thousand records and a record of millions of headers, each is answered, and few are in hand."""
    settings = own_settings(broker, bundle="stub", partitions=1, max_future_s=1e9, buffer_max_records=1024)
    topics.create(settings)
    payload = codec.zstd_encode(b"".join(raw_record(delta, None, key=None) for delta in range(MANY)))
    many = raw_batch([], count=MANY, attributes=ZSTD, payload=payload)
    headers = b"\x00\x00\x00\x01\x01" + zigzag(40 * MANY) + b"\x00\x01" * 40 * MANY
    full = raw_batch([], count=1, attributes=ZSTD, payload=codec.zstd_encode(zigzag(len(headers)) + headers))
    assert len(many.data) + len(full.data) < MANY
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    in_hand: list[float] = []

    def is_answered() -> bool:
        in_hand.append(worker.metric("fairway_records_in_hand"))
        return audit(settings).lag == 0

    try:
        worker.wait_ready()
        send(settings, settings.events_topic, [(0, b"k", event("before"), [])])
        send_raw(settings, settings.events_topic, [(0, many), (0, full)])
        send(settings, settings.events_topic, [(0, b"k", event("after"), [])])
        until(is_answered, within_s=SETTLE_S)
        report = audit(settings)
        assert worker.stop() == 0
    finally:
        worker.close()
    assert report.is_sound
    assert (report.total.decided, report.total.dead_lettered) == (2, MANY + 1)
    assert max(in_hand) <= 2 * 1024
    offsets = [letter.offset for letter in decoded(records_of(settings, settings.dead_letter_topic))]
    assert offsets == list(range(1, MANY + 2))


def test_a_producer_chooses_its_compression(broker: LocalBroker, tmp_path: Path) -> None:
    """Events are decided however their producer compressed them, and outputs are compressed as we are told."""
    settings = own_settings(broker, bundle="stub", partitions=1, compression="zstd")
    topics.create(settings)
    asyncio.run(send_compressed(settings))
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    try:
        worker.wait_ready()
        report = audit(settings, wait_s=SETTLE_S)
    finally:
        worker.close()
    assert report.is_sound
    assert report.total.decided == NEIGHBOURS * 4


async def send_compressed(settings: Settings) -> None:
    for compression in ("gzip", "snappy", "lz4", "zstd"):
        async with AIOKafkaProducer(**connection(settings), compression_type=compression) as producer:
            for partition, key, value, _ in neighbours(compression):
                await producer.send(settings.events_topic, value, key, partition % settings.partitions)


def decoded(letters: Records) -> list[DeadLetter]:
    found = [deadletter.decode(record.headers) for records in letters.values() for record in records]
    assert all(isinstance(letter, DeadLetter) for letter in found)
    return [letter for letter in found if isinstance(letter, DeadLetter)]
