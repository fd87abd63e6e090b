"""The lag that workers report while partitions move: what an alert and an autoscaler act on."""

from __future__ import annotations

import pytest

from ops.bench.texts import events
from stream.kafka.broker import LocalBroker
from tests.chaos.conftest import Deploy
from tests.traffic import produce
from tests.workers import WorkerProcess, until

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(300)]

SETTLE_S = 60.0


def lags(worker: WorkerProcess) -> dict[str, float]:
    """Lag by partition, as the worker reports it."""
    lines = [line for line in worker.page("/metrics")[1].splitlines() if line.startswith("fairway_lag_records{")]
    return {line.split('partition="')[1].split('"')[0]: float(line.split()[-1]) for line in lines}


def test_a_lost_partition_has_no_lag(broker: LocalBroker, deploy: Deploy) -> None:
    """A partition that moved to another worker is that one's to report, so that no lag stays behind for ever."""
    deployment = deploy(broker)
    count = produce(deployment.settings, events(20_000))
    first = deployment.worker("slow", "0.1", slice_max_records=256)
    until(lambda: sum(lags(first).values()) > 0, within_s=SETTLE_S)
    second = deployment.worker()
    deployment.account("partitions moving under lag", expected=count)
    until(lambda: sum(lags(second).values()) == 0, within_s=SETTLE_S)
    until(lambda: sum(lags(first).values()) == 0, within_s=5)
    assert lags(first).keys().isdisjoint(lags(second))
