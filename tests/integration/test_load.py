from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.structs import TopicPartition
from typer.testing import CliRunner

from stream.commands.load import load
from stream.events import Rejected, RejectReason
from stream.kafka import deadletter
from stream.kafka.clients import connection
from stream.kafka.ledger import Partition
from stream.kafka.load import Event, Plan, run_load
from stream.kafka.publisher import OutRecord
from stream.settings import Settings

pytestmark = pytest.mark.kafka

Outputs = list[tuple[str, OutRecord]]
Answer = Callable[[ConsumerRecord], Outputs]
Encode = Callable[..., bytes]


@contextmanager
def worker(settings: Settings, answer: Answer) -> Iterator[None]:
    """A worker that writes, for each event, the outputs `answer` gives: topic and record of each."""
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(work(settings, answer, ready, stop)))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        stop.set()
        thread.join()


async def work(settings: Settings, answer: Answer, ready: threading.Event, stop: threading.Event) -> None:
    consumer = AIOKafkaConsumer(**connection(settings), auto_offset_reset="earliest")
    producer = AIOKafkaProducer(**connection(settings), max_batch_size=900_000)
    await consumer.start()
    await producer.start()
    consumer.assign([TopicPartition(settings.events_topic, number) for number in (0, 1)])
    ready.set()
    while not stop.is_set():
        for partition, records in (await consumer.getmany(timeout_ms=50)).items():
            for record in records:
                for topic, (key, value, headers) in answer(record):
                    await producer.send(topic, value, key, partition.partition, headers=headers)
    await producer.stop()
    await consumer.stop()


@pytest.fixture
def decide(created: Settings, encode_decision: Encode) -> Answer:
    """Answer an event with one decision."""

    def answer(record: ConsumerRecord) -> Outputs:
        decision = encode_decision(record.topic, record.partition, record.offset)
        return [(created.decisions_topic, (record.key, decision, []))]

    return answer


def events(count: int) -> Callable[[int], Iterator[Event]]:
    return lambda partitions: ((number % partitions, b"k%d" % number, b"{}") for number in range(count))


def test_every_event_is_matched_with_its_decision(created: Settings, decide: Answer) -> None:
    """All events get their answer, latencies are positive and ordered, and the schedule is kept."""
    with worker(created, decide):
        report = run_load(created, Plan(rate=500), events(500))

    assert (report.sent, report.decided, report.missing, report.duplicated) == (500, 500, 0, 0)
    assert 0 < report.since_due.percentile_s(50) <= report.since_due.percentile_s(99) <= report.since_due.longest_s
    assert len(report.since_sent) == 500
    assert report.sending_s >= 499 / 500


def test_missing_repeated_and_rejected_events_are_counted(created: Settings, decide: Answer) -> None:
    """An event without answer is missing, a second answer a duplicate, and a dead letter an answer too."""
    rejected = Rejected(0, RejectReason.SCHEMA_ERROR, "e")

    def answer(record: ConsumerRecord) -> Outputs:
        source = Partition(record.topic, record.partition)
        letter = deadletter.encode(record, rejected, source=source, worker="w")
        by_offset = {0: [], 1: decide(record) * 2, 2: [(created.dead_letter_topic, letter)]}
        return by_offset.get(record.offset, decide(record))

    with worker(created, answer):
        report = run_load(created, Plan(rate=1000, drain_s=3), events(40))

    # Two partitions of 20 events each.
    assert (report.sent, report.decided, report.dead_lettered) == (40, 36, 2)
    assert (report.missing, report.duplicated) == (2, 2)


def test_time_counts_from_the_schedule_and_not_from_sending(created: Settings, decide: Answer) -> None:
    """When events come late to be sent, time since they were due shows it and time since sending does not."""

    def late(partitions: int) -> Iterator[Event]:
        yield from events(10)(partitions)
        time.sleep(0.5)  # the stall under test
        yield from events(10)(partitions)

    with worker(created, decide):
        report = run_load(created, Plan(rate=1000), late)

    assert report.missing == 0
    assert report.since_due.longest_s > 0.4
    assert report.since_sent.longest_s < report.since_due.longest_s


@pytest.fixture
def run(created: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Run `fairway load` on a file of 20 events; exit status and standard output."""
    for name in ("bootstrap_servers", "events_topic", "decisions_topic", "dead_letter_topic"):
        monkeypatch.setenv(f"FAIRWAY_{name.upper()}", getattr(created, name))
    path = tmp_path / "content.jsonl"
    path.write_text("".join(json.dumps({"id": f"c{number}"}) + "\n" for number in range(20)))
    app = typer.Typer()
    app.command()(load)

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(path), "--rate", "1000", "--drain", "2", *arguments])
        return result.exit_code, result.stdout

    return run


def test_the_command_passes_when_its_limits_hold(
    created: Settings, decide: Answer, run: Callable[..., tuple[int, str]]
) -> None:
    """With every limit kept the exit status is 0 and the JSON says what was measured."""
    with worker(created, decide):
        status, output = run("--json", "--repeat", "5", "--limit-missing", "0", "--limit-p99-ms", "60000")

    results = json.loads(output)
    assert status == 0
    assert (results["sent"], results["decided"], results["broken"]) == (100, 100, [])
    assert results["since_due_p99_ms"] > 0


@pytest.mark.parametrize("limit", [("--limit-p99-ms", "0.001"), ("--limit-missing", "0")])
def test_the_command_fails_when_a_limit_is_broken(
    created: Settings, decide: Answer, run: Callable[..., tuple[int, str]], limit: tuple[str, str]
) -> None:
    """A limit that does not hold makes the exit status 1 and is named."""
    with worker(created, lambda record: decide(record) if record.offset else []):
        status, output = run("--json", *limit)

    assert status == 1
    assert len(json.loads(output)["broken"]) == 1
