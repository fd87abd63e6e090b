from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from stream.errors import ConfigError
from stream.events import LineRecord, Rejected, RejectReason
from stream.kafka import deadletter
from stream.kafka.deadletter import DeadLetter
from stream.kafka.following import TopicRecord, follow
from stream.kafka.ledger import Partition
from stream.kafka.publisher import OutRecord
from stream.kafka.redrive import redrive
from stream.settings import Settings

pytestmark = pytest.mark.kafka

Write = Callable[[str, int, Iterable[OutRecord]], None]

SCHEMA = RejectReason.SCHEMA_ERROR


def letter(
    settings: Settings,
    record: LineRecord,
    *,
    reason: RejectReason = SCHEMA,
    partition: int = 1,
    topic: str | None = None,
) -> OutRecord:
    source = Partition(topic or settings.events_topic, partition)
    return deadletter.encode(record, Rejected(0, reason, "e"), source=source, worker="w")


def written(settings: Settings, count: int) -> Sequence[TopicRecord]:
    """The first `count` records of the events topic, by partition and offset."""
    records = islice(follow(settings, settings.events_topic, from_beginning=True), count)
    return sorted(records, key=lambda record: (record.partition, record.offset))


def test_a_redriven_record_is_the_input_itself(created: Settings, write: Write) -> None:
    """Key, value, headers and partition are the input's, and it says how often and of what it is a repeat."""
    original = LineRecord(7, b"\x00\xff value", key=b"\xffkey", headers=[("a", b"1"), ("a", b"2"), ("empty", b"")])
    write(created.dead_letter_topic, 1, [letter(created, original)])

    report = redrive(created, SCHEMA)

    (record,) = written(created, 1)
    assert report.redriven == 1
    assert (record.partition, record.key, record.value) == (1, original.key, original.value)
    assert list(record.headers) == [
        ("a", b"1"),
        ("a", b"2"),
        ("empty", b""),
        ("fairway.redrive.attempts", b"1"),
        ("fairway.redrive.of", f"{created.events_topic}:1:7".encode()),
    ]


def test_a_record_that_fails_again_counts_its_attempts(created: Settings, write: Write) -> None:
    """The dead letter of a redriven record has one attempt more than the one before."""
    write(created.dead_letter_topic, 1, [letter(created, LineRecord(0, b"x"))])
    redrive(created, SCHEMA)
    (again,) = written(created, 1)

    _, _, headers = letter(created, LineRecord(again.offset, again.value, headers=again.headers))

    second = deadletter.decode(headers)
    assert isinstance(second, DeadLetter)
    assert second.attempts == 2


def test_a_second_run_redrives_none_twice(created: Settings, write: Write) -> None:
    """What an earlier run looked at is passed over, new dead letters are not, and `again` looks at all."""
    write(created.dead_letter_topic, 0, [letter(created, LineRecord(n, b"x"), partition=0) for n in range(3)])

    assert redrive(created, SCHEMA, dry_run=True).redriven == 3
    assert redrive(created, SCHEMA).redriven == 3
    assert redrive(created, SCHEMA).redriven == 0
    write(created.dead_letter_topic, 0, [letter(created, LineRecord(3, b"x"), partition=0)])
    assert redrive(created, SCHEMA).redriven == 1
    assert redrive(created, SCHEMA, again=True).redriven == 4


def test_each_reason_has_its_own_progress(created: Settings, write: Write) -> None:
    """Redriving one reason does not pass over the dead letters of another."""
    mixed = [SCHEMA, RejectReason.TIMESTAMP, SCHEMA]
    write(created.dead_letter_topic, 1, [letter(created, LineRecord(n, b"x"), reason=r) for n, r in enumerate(mixed)])

    first = redrive(created, SCHEMA)

    assert (first.redriven, first.other_reason) == (2, 1)
    assert redrive(created, RejectReason.TIMESTAMP).redriven == 1


def test_a_limit_stops_and_the_next_run_goes_on(created: Settings, write: Write) -> None:
    """`limit` redrives that many in order; the next run starts with the one after."""
    write(created.dead_letter_topic, 0, [letter(created, LineRecord(n, b"%d" % n), partition=0) for n in range(5)])

    assert [redrive(created, SCHEMA, limit=2).redriven for _ in range(3)] == [2, 2, 1]

    assert [record.value for record in written(created, 5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_since_passes_over_what_is_older(created: Settings, write: Write) -> None:
    """With `since`, only dead letters written after that time are sent."""
    write(created.dead_letter_topic, 1, [letter(created, LineRecord(0, b"old"))])

    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert redrive(created, SCHEMA, since=tomorrow, dry_run=True).redriven == 0
    assert redrive(created, SCHEMA, since=tomorrow - timedelta(days=2), dry_run=True).redriven == 1


def test_what_cannot_be_sent_is_counted_and_left(created: Settings, write: Write) -> None:
    """Dead letters without value, of other topics or partitions, and foreign records are left alone."""
    source = Partition(created.events_topic, 0)
    write(
        created.dead_letter_topic,
        0,
        [
            deadletter.without_value(LineRecord(0, b"x", key=b"k"), source=source, worker="w"),
            letter(created, LineRecord(1, b"x"), reason=RejectReason.OUTPUT_REFUSED, topic="payments"),
            letter(created, LineRecord(2, b"x"), reason=RejectReason.OUTPUT_REFUSED, partition=77),
            letter(created, LineRecord(3, b"x" * 1_300_000), reason=RejectReason.OUTPUT_REFUSED),
            (b"k", b"not ours", []),
        ],
    )

    report = redrive(created, RejectReason.OUTPUT_REFUSED)

    assert (report.redriven, report.without_value, report.misplaced, report.refused, report.foreign) == (0, 1, 2, 1, 1)


def test_tombstones_are_not_redriven(kafka_settings: Settings) -> None:
    """Redriving tombstones is refused: there is nothing in them to decide about."""
    with pytest.raises(ConfigError, match="tombstone"):
        redrive(kafka_settings, RejectReason.TOMBSTONE)
