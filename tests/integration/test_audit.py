from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable

import pytest
import typer
from aiokafka import AIOKafkaProducer
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from typer.testing import CliRunner

from stream.commands.audit import audit as audit_command
from stream.events import LineRecord, Rejected, RejectReason
from stream.kafka import deadletter
from stream.kafka.audit import audit
from stream.kafka.clients import connection, open_consumer
from stream.kafka.ledger import Partition
from stream.kafka.publisher import OutRecord
from stream.settings import Settings

pytestmark = pytest.mark.kafka

Write = Callable[[str, int, Iterable[OutRecord]], None]
Encode = Callable[..., bytes]


def events(count: int) -> list[OutRecord]:
    return [(b"k", b"{}", []) for _ in range(count)]


def letter(settings: Settings, partition: int, offset: int) -> OutRecord:
    source = Partition(settings.events_topic, partition)
    rejected = Rejected(0, RejectReason.DECODE_ERROR, "e")
    return deadletter.encode(LineRecord(offset, b"x"), rejected, source=source, worker="w")


def run_command(settings: Settings, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    for name in ("bootstrap_servers", "events_topic", "decisions_topic", "dead_letter_topic", "group"):
        monkeypatch.setenv(f"FAIRWAY_{name.upper()}", getattr(settings, name))
    app = typer.Typer()
    app.command()(audit_command)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_a_complete_pipeline_is_sound(
    created: Settings, write: Write, encode_decision: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every event has one output, the audit is sound and the command's exit status 0."""
    for partition in (0, 1):
        write(created.events_topic, partition, events(20))
        decided = [encode_decision(created.events_topic, partition, offset) for offset in range(1, 20)]
        write(created.decisions_topic, partition, [(b"k", value, []) for value in decided])
        write(created.dead_letter_topic, partition, [letter(created, partition, 0)])

    report = audit(created)

    assert report.is_sound
    assert (report.total.events, report.total.decided, report.total.dead_lettered) == (40, 38, 2)
    status, output = run_command(created, monkeypatch=monkeypatch)
    assert (status, output.splitlines()[-1]) == (0, "SOUND")


def test_planted_faults_are_all_found(
    created: Settings, write: Write, encode_decision: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, repeated, conflicting, late, misplaced and impossible outputs are each counted where they are."""
    topic = created.events_topic

    def decide(offset: int, partition: int = 0, **fields: object) -> OutRecord:
        return b"k", encode_decision(topic, partition, offset, **fields), []

    for partition in (0, 1):
        write(topic, partition, events(10))
    repeated, conflict = decide(2), decide(3, action="block")
    planted = [*map(decide, (0, 1, 2)), repeated, *map(decide, (3, 5, 4, 6)), conflict, decide(999)]
    write(created.decisions_topic, 0, [*planted, decide(8, partition=1)])
    write(created.decisions_topic, 1, [decide(offset, partition=1) for offset in range(10)])
    write(created.dead_letter_topic, 0, [letter(created, 0, 6), letter(created, 0, 7)])

    report = audit(created)

    zero, one = report.partitions
    assert (zero.events, zero.decided, zero.dead_lettered) == (10, 7, 2)
    assert zero.examples == {
        "missing": [f"{topic}:0:8", f"{topic}:0:9"],
        "conflicting": [f"{topic}:0:3"],
        "both": [f"{topic}:0:6"],
        "out_of_order": [f"{topic}:0:4"],
        "nonexistent": [f"{created.decisions_topic}:0:9"],
        "wrong_partition": [f"{created.decisions_topic}:0:10"],
    }
    assert (zero.missing, zero.duplicated) == (2, 1)
    assert one.is_sound
    assert not report.is_sound
    status, output = run_command(created, "--json", monkeypatch=monkeypatch)
    assert status == 1
    assert json.loads(output)["partitions"][0]["missing"] == 2


def test_transactions_leave_no_missing_events(created: Settings, write: Write, encode_decision: Encode) -> None:
    """Markers and aborted records take offsets without being events: they are not missing."""

    async def produce() -> None:
        producer = AIOKafkaProducer(**connection(created), transactional_id=created.group)
        await producer.start()
        for is_kept in (True, False, True):
            await producer.begin_transaction()
            await producer.send_and_wait(created.events_topic, b"{}", partition=0)
            await (producer.commit_transaction() if is_kept else producer.abort_transaction())
        await producer.stop()

    asyncio.run(produce())  # offsets 0 and 4 are events; 1, 3 and 5 are markers, 2 was aborted
    write(
        created.decisions_topic, 0, [(b"k", encode_decision(created.events_topic, 0, offset), []) for offset in (0, 4)]
    )

    report = audit(created)

    assert report.is_sound
    assert report.total.events == 2


def test_events_after_the_snapshot_are_not_counted(created: Settings, write: Write, encode_decision: Encode) -> None:
    """A decision about an event that arrived after the audit began is neither counted nor impossible."""
    write(created.events_topic, 0, events(1))
    write(created.decisions_topic, 0, [(b"k", encode_decision(created.events_topic, 0, 0), [])])
    arrived: list[str] = []

    def arrive(line: str) -> None:
        if not arrived:
            write(created.events_topic, 1, events(3))
        arrived.append(line)

    report = audit(created, report=arrive)

    assert report.is_sound
    assert report.total.events == 1
    assert len(arrived) == 2


def test_waiting_ends_when_the_group_has_caught_up(created: Settings, write: Write, encode_decision: Encode) -> None:
    """The lag of the consumer group is reported, and `wait_s` is not spent when there is none."""
    write(created.events_topic, 0, events(5))
    decisions: list[OutRecord] = [(b"k", encode_decision(created.events_topic, 0, offset), []) for offset in range(5)]
    write(created.decisions_topic, 0, decisions)
    assert audit(created).lag == 5

    consumer = open_consumer(created, group_id=f"{created.group}-moderate")
    consumer.commit({TopicPartition(created.events_topic, 0): OffsetAndMetadata(5, "", -1)})
    consumer.close()

    assert audit(created, wait_s=100).lag == 0
