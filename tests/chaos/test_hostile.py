"""Ten thousand hostile records in a stream on a real broker: each gets its answer, and nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.bench.texts import events
from stream.events import RejectReason
from stream.kafka import deadletter
from stream.kafka.broker import LocalBroker
from tests.chaos.conftest import Deploy
from tests.hostile.corpus import HostileRecord, hostile_records
from tests.topics import Sent, records_of, send

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(300)]

HOSTILE = 10_000
GOOD = b"good"
Expected = dict[tuple[int, int], HostileRecord | None]


def mixed(records: list[HostileRecord], partitions: int) -> Iterator[tuple[Sent, HostileRecord | None]]:
    """Each hostile record with a good one behind it in the same partition."""
    for number, (record, value) in enumerate(zip(records, events(len(records)), strict=True)):
        yield (number % partitions, record.key, record.value, list(record.headers)), record
        yield (number % partitions, GOOD, value, []), None


def test_ten_thousand_hostile_records(broker: LocalBroker, deploy: Deploy) -> None:
    """Every good record is decided, every bad one is a dead letter with its reason, and the worker goes on."""
    deployment = deploy(broker)
    settings, records = deployment.settings, hostile_records(HOSTILE, seed=2)
    mixture = list(mixed(records, settings.partitions))
    send(settings, settings.events_topic, (sent for sent, _ in mixture))
    worker = deployment.worker()
    total = deployment.account(f"{HOSTILE} hostile records", expected=2 * HOSTILE)

    reasons: dict[tuple[int, int], str] = {}
    for number, letters in records_of(settings, settings.dead_letter_topic).items():
        for record in letters:
            letter = deadletter.decode(record.headers)
            assert isinstance(letter, deadletter.DeadLetter)
            reasons[number, letter.offset] = letter.reason
    answers: dict[str | None, int] = {}
    ends = [0] * settings.partitions
    for (number, *_), hostile in mixture:
        expected: RejectReason | None = hostile.expected if hostile else None
        found = reasons.get((number, ends[number]))
        assert found == expected, (hostile and hostile.name, number, ends[number])
        answers[found] = answers.get(found, 0) + 1
        ends[number] += 1
    assert total.dead_lettered == len(reasons) == 2 * HOSTILE - answers[None]
    assert total.duplicated == 0
    assert worker.stop() == 0
