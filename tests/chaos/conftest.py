"""A deployment under test: topics, workers and traffic on a real broker, and the audit that has the last word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.kafka import topics
from stream.kafka.accounts import PartitionAudit
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from stream.settings import Settings
from tests.conftest import own_settings
from tests.workers import WorkerProcess

FAULTY = Path(__file__).with_name("faulty_worker.py")
SETTLE_S = 90.0
"""Everything produced must be decided this long after the fault is over; it takes seconds on an idle machine."""


class Deployment:
    """Starts workers and accounts for everything at the end."""

    def __init__(self, settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings, self._folder, self._capsys = settings, folder, capsys
        self.workers: list[WorkerProcess] = []
        topics.create(settings)

    def worker(self, *fault: str, **overrides: Any) -> WorkerProcess:
        """Start a worker, with a fault in it if one is named, and wait until it has partitions."""
        return self.launch(*fault, **overrides).wait_ready()

    def launch(self, *fault: str, **overrides: Any) -> WorkerProcess:
        """Start a worker and do not wait."""
        log = self._folder / f"worker-{len(self.workers)}.log"
        arguments = (str(FAULTY), *fault) if fault else ("-m", "stream.cli", "worker")
        self.workers.append(WorkerProcess(self.settings.model_copy(update=overrides), log, arguments=arguments))
        return self.workers[-1]

    def account(self, fault: str, *, expected: int) -> PartitionAudit:
        """Wait until all is decided, audit, print the outcome and assert that nothing is missing or contradicted."""
        report = audit(self.settings, wait_s=SETTLE_S)
        total = report.total
        with self._capsys.disabled():
            print(f"\n  {fault}: {total}")
        assert report.lag == 0, f"still {report.lag} events behind: {self.workers[-1].tail()}"
        assert total.events == expected
        assert report.is_sound, total
        return total


Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Deploy]:
    """Make deployments on a broker; their workers end with the test."""
    made: list[Deployment] = []

    def make(broker: LocalBroker, **overrides: Any) -> Deployment:
        # Short timeouts, so that a fault is over in seconds: six is the least that brokers allow.
        quick = {"session_timeout_s": 6.0, "rebalance_timeout_s": 10.0, "drain_s": 4.0, "bundle": "stub"}
        made.append(Deployment(own_settings(broker, **(quick | overrides)), tmp_path, capsys))
        return made[-1]

    yield make
    for deployment in made:
        for worker in deployment.workers:
            worker.close()
