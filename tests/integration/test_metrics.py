"""What /metrics says of two workers on a real Kafka, held against what is in the topics."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.bench.texts import events
from stream.kafka import topics
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from stream.settings import Settings
from tests.conftest import own_settings
from tests.topics import records_of, send
from tests.traffic import produce
from tests.workers import WorkerProcess, until

pytestmark = pytest.mark.kafka

POLICY = Path(__file__).parents[2] / "tests" / "golden" / "policy.yaml"
SETTLE_S = 60.0
EVENTS, BROKEN = 4_000, [b"{", None, None]


@pytest.fixture
def workers(broker: LocalBroker, tmp_path: Path) -> Iterator[tuple[Settings, WorkerProcess, WorkerProcess]]:
    """A moderate and a fairness worker that have been through everything there is."""
    settings = own_settings(broker, bundle="stub", policy=POLICY, partitions=2, snapshot_s=0.2, idle_s=1.0)
    topics.create(settings)
    produce(settings, [*BROKEN, *events(EVENTS)])
    started = [
        WorkerProcess(settings, tmp_path / f"{stage}.log", arguments=("-m", "stream.cli", "worker", "--stage", stage))
        for stage in ("moderate", "fairness")
    ]
    try:
        moderate, fairness = (worker.wait_ready() for worker in started)
        assert audit(settings, wait_s=SETTLE_S).is_sound
        send(settings, settings.decisions_topic, [(0, b"k", None, []), (1, b"k", b"{", [])])
        until(lambda: fairness.metric("fairway_counted_decisions_total") >= EVENTS, within_s=SETTLE_S)
        until(lambda: len(counted(fairness, "fairway_uncounted_decisions_total")) == 2, within_s=SETTLE_S)
        until(lambda: fairness.metric("fairway_reports_total") > 0, within_s=SETTLE_S)
        yield settings, moderate, fairness
    finally:
        for worker in started:
            worker.close()


def values_of(settings: Settings, topic: str) -> list[Any]:
    """The JSON values of a topic; what is none is left out."""
    values = [record.value for some in records_of(settings, topic).values() for record in some]
    return [json.loads(value) for value in values if value not in {None, b"{"}]


def counted(worker: WorkerProcess, name: str) -> dict[str, float]:
    """What a counter of one label has counted, by its value; what is 0 is left out."""
    found = re.findall(rf'(?m)^{name}\{{\w+="(\w+)"\}} (.*)$', worker.page("/metrics")[1])
    return {label: float(value) for label, value in found if float(value)}


def test_what_is_counted_is_what_is_in_the_topics(workers: tuple[Settings, WorkerProcess, WorkerProcess]) -> None:
    """Decisions, review records and dead letters count as they were written, and the fairness stage counts them all."""
    settings, moderate, fairness = workers
    decisions = values_of(settings, settings.decisions_topic)
    assert counted(moderate, "fairway_decisions_total") == Counter(decision["action"] for decision in decisions)
    reviews = Counter(review["why"] for review in values_of(settings, settings.review_topic))
    assert counted(moderate, "fairway_reviews_total") == reviews
    assert counted(moderate, "fairway_dead_letters_total") == {"decode_error": 1, "tombstone": 2}
    assert moderate.metric("fairway_decision_age_seconds_count") == EVENTS
    steps = counted(moderate, "fairway_step_seconds_count")
    assert steps["decode"] == steps["score"] == steps["decide"] == moderate.metric("fairway_unit_records_count")
    assert fairness.metric("fairway_counted_decisions_total") == EVENTS
    assert counted(fairness, "fairway_uncounted_decisions_total") == {"tombstone": 1, "decode_error": 1}
    assert fairness.metric("fairway_open_panes") > 0
    until(
        lambda: len(values_of(settings, settings.reports_topic)) == fairness.metric("fairway_reports_total"),
        within_s=SETTLE_S,
    )
    assert "_created" not in moderate.page("/metrics")[1] + fairness.page("/metrics")[1]
