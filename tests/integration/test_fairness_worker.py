"""`fairway worker --stage fairness` on a real Kafka: beside a moderate worker, and on decisions of somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.bench.texts import events
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.kafka import topics
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from stream.kafka.clients import open_admin
from stream.kafka.fairness import FairnessStage
from stream.kafka.ledger import Partition
from stream.kafka.publisher import Load
from stream.settings import Settings
from stream.telemetry import FairnessMetrics, Telemetry
from tests.conftest import own_settings
from tests.decisions import START, decision
from tests.decisions import records as decisions_of
from tests.tally import by_hand, final
from tests.topics import records_of, send
from tests.traffic import produce
from tests.workers import WorkerProcess, until

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
SETTLE_S = 60.0
MARKER = "zyzzyva"
QUICK = {"snapshot_s": 0.2, "idle_s": 2.0, "min_group_n": 5, "log_format": "json", "log_level": "debug"}

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers of a stage; they end with the test."""
    started: list[WorkerProcess] = []

    def begin(settings: Settings, stage: str) -> WorkerProcess:
        log, arguments = tmp_path / f"{stage}-{len(started)}.log", ("-m", "stream.cli", "worker", "--stage", stage)
        started.append(WorkerProcess(settings, log, arguments=arguments))
        return started[-1]

    yield begin
    for worker in started:
        worker.close()


def values_of(settings: Settings, topic: str) -> list[bytes]:
    return [record.value for some in records_of(settings, topic).values() for record in some]


def reports_of(settings: Settings) -> list[dict[str, Any]]:
    return [json.loads(value) for value in values_of(settings, settings.reports_topic)]


def test_events_become_reports(broker: LocalBroker, start: StartWorker) -> None:
    """From events with groups through decisions to reports: they say what is counted by hand from the decisions."""
    settings = own_settings(broker, bundle="stub", policy=ROOT / "tests" / "golden" / "policy.yaml", **QUICK)
    topics.create(settings)
    produce(settings, events(4_000))
    moderate, fairness = start(settings, "moderate"), start(settings, "fairness")
    moderate.wait_ready()
    fairness.wait_ready()
    assert audit(settings, wait_s=SETTLE_S).is_sound
    expected = by_hand(values_of(settings, settings.decisions_topic), pane_s=settings.pane_s)
    assert {key.quantity for key in expected} == {"action_rate", "moderated_rate", "selection_rate", "abstention_rate"}
    until(lambda: final(records_of(settings, settings.reports_topic)[0]) == expected, within_s=SETTLE_S, every_s=0.5)
    report = reports_of(settings)[-1]
    assert (report["group_meaning"], report["min_group_n"]) == (settings.group_meaning, 5)
    assert [fairness.page(path)[0] for path in ("/live", "/ready", "/metrics")] == [200, 200, 200]
    assert (moderate.stop(), fairness.stop()) == (0, 0)


def test_decisions_of_somebody_else_are_watched(broker: LocalBroker, start: StartWorker) -> None:
    """With a mapping and its own topics alone, the stage reports on foreign decisions, and logs nothing of them."""
    mapping = ROOT / "ops" / "mappings" / "foreign-decisions.yaml"
    settings = own_settings(broker, mapping=mapping, partitions=1, **QUICK)
    topics.create(settings)
    _delete(settings, settings.events_topic, settings.review_topic, settings.dead_letter_topic)
    verdicts = [_verdict(number, "REMOVE" if number % 4 == 0 else "ALLOW") for number in range(200)]
    broken = [b"{", None, MARKER.encode(), json.dumps({MARKER: MARKER}).encode()]
    unnamed = _verdict(0, MARKER, gender=MARKER, languages=[MARKER])  # an action and a gender that no rule is about
    values = [*broken, *verdicts, unnamed]
    send(settings, settings.decisions_topic, ((0, b"k", value, []) for value in values))
    worker = start(settings, "fairness").wait_ready()

    def blocked() -> dict[str, tuple[int, int]]:
        reports = final(records_of(settings, settings.reports_topic)[0])
        return next((said for key, said in reports.items() if key[1:] == ("gender", "action_rate", "block")), {})

    until(lambda: blocked() == {"": (200, 50), "women": (100, 50), "men": (100, 0)}, within_s=SETTLE_S, every_s=0.5)
    basis = reports_of(settings)[-1]["basis"]
    assert sum(basis["uncounted"].values()) == len(broken)
    assert worker.stop() == 0
    assert MARKER not in worker.log()


def test_small_groups_are_not_enough_data(broker: LocalBroker, start: StartWorker) -> None:
    """A group below `min_group_n` is listed with its size and nothing else: no rate, and no claim of fairness."""
    mapping = ROOT / "ops" / "mappings" / "foreign-decisions.yaml"
    settings = own_settings(broker, mapping=mapping, partitions=1, **(QUICK | {"min_group_n": 60}))
    topics.create(settings)
    verdicts = [_verdict(number, "ALLOW", gender="f" if number < 59 else "m") for number in range(200)]
    send(settings, settings.decisions_topic, ((0, b"k", value, []) for value in verdicts))
    start(settings, "fairness").wait_ready()
    until(lambda: bool(reports_of(settings)), within_s=SETTLE_S, every_s=0.5)
    by_gender = [report for report in reports_of(settings) if report["axis"] == "gender"]
    assert by_gender
    for report in by_gender:
        women = {row["group"]: row for row in report["groups"]}["women"]
        assert (women["status"], women["n"]) == ("not_enough_data", 59)
        assert "rate" not in women


def _verdict(number: int, verdict: str, **user: Any) -> bytes:
    """A decision of another system; the mapping calls its groups women and men."""
    user = {"gender": "f" if number % 2 == 0 else "m", "languages": ["de"]} | user
    record = {"eventId": f"e-{number}", "contentId": "c", "at": 1_767_268_800_123, "verdict": verdict, "ruleSet": "r"}
    return json.dumps(record | {"scores": {"TOXICITY": {"flagged": True}}, "user": user}).encode()


def _delete(settings: Settings, *names: str) -> None:
    admin = open_admin(settings)
    admin.delete_topics(list(names))
    admin.close()


class Line:
    """Stands for the conveyor: publishes what is offered, so many times, and says that it is acknowledged."""

    def __init__(self, settings: Settings, *, rounds: int) -> None:
        self._settings, self._rounds = settings, rounds

    async def offer(self, work: Callable[[], Mapping[Partition, Load]]) -> bool:
        for partition, load in work().items():
            await asyncio.to_thread(send, self._settings, partition.topic, [(0, *record) for record in load.records])
        self._rounds -= 1
        if not self._rounds:
            raise asyncio.CancelledError
        return True


def test_a_new_merger_makes_what_was_not_acknowledged_and_nothing_else(kafka_settings: Settings) -> None:
    """Of a topic compacted as far as it can be, all panes are reported; a merger after that has nothing left to do."""
    settings = kafka_settings.model_copy(update={"partitions": 2, "idle_s": 3600.0, "snapshot_s": 0.01})
    topics.create(settings)
    counting, log = CountSettings(pane_s=10.0, lateness_s=0.0), dict[bytes, bytes | None]()
    for name in (f"{settings.decisions_topic}:{number}" for number in range(2)):
        counter = FairnessCounter(name, counting)
        for second in range(0, 405, 5):
            counter.count(decisions_of([decision(START + second, groups={"g": ["a"]})], start=second))
            log |= dict(counter.snapshot())
    send(settings, settings.fairness_state_topic, ((0, key, value, []) for key, value in log.items()))

    def merge(*, rounds: int) -> set[str]:
        """Start a merger; return the panes of all reports there are after so many rounds."""
        stage = FairnessStage(
            settings,
            FairnessMetrics(Telemetry()),
            counter=lambda name, state: FairnessCounter(name, counting, state),
            merger=lambda names: FairnessMerger(counting, ReportSettings(min_group_n=1), partitions=names),
        )
        asyncio.run(stage.start_offsets([Partition(settings.fairness_state_topic, 0)]))
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(stage.report_for_ever(Line(settings, rounds=rounds)))  # type: ignore[arg-type]
        return {report["pane_start"] for report in reports_of(settings)}

    assert len(merge(rounds=1)) == 40
    reports = len(reports_of(settings))
    assert len(merge(rounds=2)) == 40  # nobody has said that the first were acknowledged
    assert len(reports_of(settings)) == 2 * reports
    merge(rounds=2)
    assert len(reports_of(settings)) == 2 * reports
    latest = {record.key: record.value for record in records_of(settings, settings.fairness_state_topic)[0]}
    assert len([key for key, value in latest.items() if value is not None]) == 3
    assert latest.keys() == log.keys() | {b"reports"}
