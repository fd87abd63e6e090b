"""Faults of fairness workers: whatever is killed and whenever, every decision is in the reports, and in them once."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, Self

import pytest
from aiokafka import ConsumerRecord
from kafka.admin import ConfigResource, ConfigResourceType

from stream.fairness.state import PROGRESS_KEY
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from stream.kafka.clients import open_admin, open_producer
from stream.settings import Settings
from tests.chaos.conftest import Deploy, Deployment
from tests.conftest import StartBroker
from tests.decisions import START, decision
from tests.tally import by_hand, final, restated
from tests.topics import Records, Sent, records_of, send
from tests.traffic import Feed
from tests.workers import WorkerProcess, until

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(300)]

SETTLE_S = 60.0
FAIRNESS = ("-m", "stream.cli", "worker", "--stage", "fairness")
QUICK = {"pane_s": 10.0, "lateness_s": 20.0, "idle_s": 3.0, "snapshot_s": 0.2, "min_group_n": 1}
"""Panes that close while a test runs, and reports of the last ones soon after it."""
PER_SECOND = 100
"""Decisions per second of event time: a stream of 2,000 a second passes two panes a second."""


def decisions(partitions: int) -> Iterator[tuple[int, bytes]]:
    """Decisions round robin over partitions, some without groups or scores, their actions and groups correlated."""
    chooser = random.Random(5)
    for number in count():
        gender, language = chooser.choice(["women", "men", "other"]), chooser.sample(["de", "en", "tr"], 2)
        harmful = chooser.random() < (0.3 if gender == "women" else 0.1)
        yield (
            number % partitions,
            decision(
                START + number / PER_SECOND,
                groups={"gender": [gender], "language": language} if number % 10 else {},
                harms={"hate": "harmful" if harmful else "harmless", "violence": "abstain"} if number % 7 else {},
                action="block" if harmful else "allow",
                moderated=bool(number % 7),
                decision_id=f"content.events:{number % partitions}:{number // partitions}",
            ),
        )


class Decided:
    """Writes decisions at a steady rate until stopped; a context manager."""

    def __init__(self, settings: Settings, *, rate: float) -> None:
        self._settings, self._rate = settings, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        producer = open_producer(self._settings, linger_ms=5)
        source, started, written = decisions(self._settings.partitions), time.monotonic(), 0
        while not self._stop.wait(0.01):
            due = int((time.monotonic() - started) * self._rate) - written
            for partition, value in islice(source, max(due, 0)):
                producer.send(self._settings.decisions_topic, value=value, partition=partition)
                written += 1
        producer.flush(timeout=120)
        producer.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()


class Watched:
    """Fairness workers of one deployment, and the account of what they reported."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.settings, self._deployment, self._folder = deployment.settings, deployment, folder

    def worker(self, **overrides: Any) -> WorkerProcess:
        """Start a fairness worker and wait until it has partitions."""
        workers = self._deployment.workers
        settings = self.settings.model_copy(update=overrides)
        workers.append(WorkerProcess(settings, self._folder / f"fairness-{len(workers)}.log", arguments=FAIRNESS))
        return workers[-1].wait_ready()

    def moderate(self, **overrides: Any) -> WorkerProcess:
        """Start a worker that makes the decisions, and wait until it has partitions."""
        return self._deployment.worker(**overrides)

    def settle(self) -> int:
        """Wait until the reports say what is counted by hand; return of how many decisions."""
        written = [r.value for some in self.written().values() for r in some]
        expected = by_hand(written, pane_s=self.settings.pane_s)
        deadline = time.monotonic() + SETTLE_S
        while (found := final(self.reports())) != expected and time.monotonic() < deadline:
            time.sleep(0.5)
        assert found == expected
        return len(written)

    def account(self) -> int:
        """Settle, stop the workers, and assert that nothing else is reported in the end or ever was."""
        decisions = self.settle()
        settled = final(self.reports())
        for worker in self._deployment.workers:
            assert worker.process.poll() is not None or worker.stop() == 0
        assert final(self.reports()) == settled
        assert restated(self.reports()) == []
        return decisions

    def written(self) -> Records:
        return records_of(self.settings, self.settings.decisions_topic)

    def kept(self) -> list[ConsumerRecord]:
        """What the topic of the state has, of every kind."""
        return records_of(self.settings, self.settings.fairness_state_topic)[0]

    def counted(self) -> dict[bytes, int]:
        """How many records of each partition its latest state has counted."""
        states = (record for record in self.kept() if record.key != PROGRESS_KEY and b"/" not in record.key)
        return {record.key: json.loads(record.value)["last_offset"] + 1 for record in states}

    def reports(self) -> list[ConsumerRecord]:
        return records_of(self.settings, self.settings.reports_topic)[0]


Watch = Callable[..., Watched]


@pytest.fixture
def watch(broker: LocalBroker, deploy: Deploy, tmp_path: Path) -> Watch:
    """Make topics for fairness workers to watch; keyword arguments are settings."""
    return lambda **overrides: Watched(deploy(broker, **(QUICK | overrides)), tmp_path)


def test_kill_minus_nine_five_times(watch: Watch) -> None:
    """SIGKILL at five random moments under load: every decision is in the final reports once."""
    watched, chooser = watch(), random.Random(5)
    with Decided(watched.settings, rate=2_000):
        for _ in range(5):
            worker = watched.worker(instance_id="killed")
            time.sleep(chooser.uniform(0.2, 1.5))
            worker.kill()
        watched.worker(instance_id="killed")
    assert watched.account() > 10_000


def test_workers_joining_and_leaving(watch: Watch) -> None:
    """Two workers, then three, then one: counts move with their partitions, and none is lost or made twice."""
    watched = watch()
    with Decided(watched.settings, rate=2_000):
        workers = [watched.worker(), watched.worker(), watched.worker()]
        time.sleep(1)
        for worker in workers[:2]:
            assert worker.stop() == 0
            time.sleep(0.5)
    assert watched.account() > 5_000


def test_a_restart_goes_on_from_the_state(watch: Watch) -> None:
    """A worker that starts anew, even in a group that never committed, reads what was not counted and no more."""
    watched = watch()
    with Decided(watched.settings, rate=2_000):
        first = watched.worker()
        until(lambda: first.metric("fairway_events_total") > 6_000, within_s=SETTLE_S)
        assert first.stop() == 0
        counted = sum(watched.counted().values())
    second = watched.worker(group=f"{watched.settings.group}-new")
    rest = watched.settle() - counted
    assert counted > 5_000
    assert rest <= second.metric("fairway_events_total") <= rest + len(watched.kept())
    watched.account()


def test_a_backlog_of_many_panes(watch: Watch) -> None:
    """Partitions that are read one after the other, each with all panes there are, end up in the same reports."""
    watched = watch()
    backlog = islice(decisions(watched.settings.partitions), 40_000)
    send(watched.settings, watched.settings.decisions_topic, ((number, None, value, []) for number, value in backlog))
    watched.worker()
    assert watched.account() == 40_000


def test_decisions_that_a_killed_worker_wrote_twice(watch: Watch) -> None:
    """Moderate workers are killed and decide again what they had published: the reports count it once."""
    watched = watch()
    watched.worker()
    with Feed(watched.settings, rate=2_000) as feed:
        for _ in range(5):
            worker = watched.moderate(instance_id="killed")
            time.sleep(1)
            worker.kill()
        watched.moderate(instance_id="killed")
    until(lambda: audit(watched.settings, wait_s=SETTLE_S).total.missing == 0, within_s=SETTLE_S)
    assert watched.account() > feed.produced


def test_compaction_takes_nothing_that_is_not_reported(
    start_broker: StartBroker, deploy: Deploy, tmp_path: Path
) -> None:
    """Panes that wait for a partition outlive the merger and every older record of the state topic."""
    broker = start_broker(options={"log.cleaner.backoff.ms": "100"})
    watched = Watched(deploy(broker, **QUICK), tmp_path)
    settings = watched.settings
    _configure(settings, settings.fairness_state_topic, {"segment.ms": "200", "min.cleanable.dirty.ratio": "0.001"})
    backlog: list[Sent] = [(n, None, value, []) for n, value in islice(decisions(settings.partitions), 40_000)]
    late = settings.partitions - 1
    send(settings, settings.decisions_topic, (sent for sent in backlog if sent[0] != late))
    for _ in range(3):
        worker = watched.worker(instance_id="killed")
        watched.settle()
        worker.kill()
    # The segment that is written to is not compacted, so something more must be written for the rest to be.
    send(settings, settings.fairness_state_topic, [(0, b"reports", b"?", [])])
    until(lambda: _is_compacted(watched.kept()), within_s=SETTLE_S, every_s=0.5)
    watched.worker(instance_id="killed")
    send(settings, settings.decisions_topic, (sent for sent in backlog if sent[0] == late))
    assert watched.account() == 40_000


def _is_compacted(records: list[ConsumerRecord]) -> bool:
    closed, newest = records[:-1], records[-1].offset
    return len({record.key for record in closed}) == len(closed) and len(closed) < newest


def _configure(settings: Settings, topic: str, config: dict[str, str]) -> None:
    admin = open_admin(settings)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
    admin.close()
