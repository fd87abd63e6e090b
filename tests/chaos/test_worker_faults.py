"""Faults of workers on a real broker: whatever happens, every event gets its one output."""

from __future__ import annotations

import random
import time

import pytest

from ops.bench.texts import events
from stream.kafka.broker import LocalBroker
from tests.chaos.conftest import Deploy
from tests.traffic import Feed, produce
from tests.workers import until

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(300)]


def test_a_bug_in_the_scorer_once(broker: LocalBroker, deploy: Deploy) -> None:
    """A bug stops the worker with its unit unacknowledged, and the next worker decides all of it."""
    deployment = deploy(broker, slice_max_records=64)
    count = produce(deployment.settings, events(5_000))
    broken = deployment.launch("bug", "20")
    assert broken.process.wait(60) != 0
    assert "a planted bug" in broken.tail()
    deployment.worker()
    deployment.account("bug in the scorer, once", expected=count)


def test_a_bug_in_the_scorer_always(broker: LocalBroker, deploy: Deploy) -> None:
    """A bug that shows on every unit never lets an offset be committed, however often the worker is restarted."""
    deployment = deploy(broker)
    count = produce(deployment.settings, events(2_000))
    for _ in range(3):
        assert deployment.launch("bug", "1").process.wait(60) != 0
    deployment.worker()
    total = deployment.account("bug in the scorer, always", expected=count)
    assert total.duplicated == 0


def test_sigterm_under_load(broker: LocalBroker, deploy: Deploy) -> None:
    """SIGTERM finishes and commits what is in hand, exits 0 in the stated time, and leaves nothing to be done twice."""
    deployment = deploy(broker)
    with Feed(deployment.settings, rate=3_000) as feed:
        for _ in range(3):
            worker = deployment.worker()
            time.sleep(2)
            started = time.monotonic()
            assert worker.stop() == 0
            assert time.monotonic() - started < deployment.settings.drain_s + 5
        deployment.worker()
    total = deployment.account("SIGTERM under load, 3 times", expected=feed.produced)
    assert total.duplicated == 0


def test_kill_minus_nine_twenty_times(broker: LocalBroker, deploy: Deploy) -> None:
    """SIGKILL at twenty random moments under load loses nothing; duplicates carry the id of the first."""
    deployment = deploy(broker)
    chooser = random.Random(9)
    with Feed(deployment.settings, rate=2_000) as feed:
        for _ in range(20):
            # A name kept across restarts: without it each restart would wait six seconds for the dead one's session.
            worker = deployment.worker(instance_id="killed")
            time.sleep(chooser.uniform(0.0, 1.5))
            worker.kill()
        deployment.worker(instance_id="killed")
    deployment.account("kill -9 under load, 20 times", expected=feed.produced)


def test_workers_joining_and_leaving(broker: LocalBroker, deploy: Deploy) -> None:
    """A second and a third worker join and leave under load; partitions move with nothing lost."""
    deployment = deploy(broker)
    with Feed(deployment.settings, rate=3_000) as feed:
        deployment.worker()
        second = deployment.worker()
        third = deployment.worker()
        time.sleep(2)
        assert second.stop() == 0
        time.sleep(1)
        assert third.stop() == 0
        time.sleep(1)
    deployment.account("workers joining and leaving", expected=feed.produced)


@pytest.mark.parametrize("unit_s", [0.5, 6.0], ids=["finishes within the drain", "takes longer than the drain"])
def test_revocation_while_a_unit_is_being_scored(broker: LocalBroker, deploy: Deploy, unit_s: float) -> None:
    """Partitions lost in the middle of a model call: finished if there is time, else left to the new owner."""
    deployment = deploy(broker, slice_max_records=256)
    count = produce(deployment.settings, events(2_000))
    slow = deployment.launch("slow", str(unit_s))
    until(lambda: slow.metric("fairway_events_total") > 0, within_s=60)
    deployment.worker()
    if unit_s > deployment.settings.drain_s:
        slow.kill()
    deployment.account(f"revocation while scoring ({unit_s:g} s a unit)", expected=count)


def test_commits_that_fail(broker: LocalBroker, deploy: Deploy) -> None:
    """A commit that fails changes nothing and is tried again; the worker goes on."""
    deployment = deploy(broker)
    count = produce(deployment.settings, events(5_000))
    worker = deployment.worker("commits", "5")
    total = deployment.account("five commits failing", expected=count)
    assert total.duplicated == 0
    assert "commit_failed" in worker.log_path.read_text()


def test_a_worker_restarted_under_its_own_name_moves_no_partition(broker: LocalBroker, deploy: Deploy) -> None:
    """With static membership a restart within the session's time is not noticed by the others."""
    deployment = deploy(broker, session_timeout_s=30.0)
    with Feed(deployment.settings, rate=1_000) as feed:
        other = deployment.worker(instance_id="other")
        named = deployment.worker(instance_id="named")
        before = other.metric("fairway_rebalances_total")
        named.kill()
        deployment.worker(instance_id="named")
        time.sleep(2)
        assert other.metric("fairway_rebalances_total") == before
    deployment.account("restart of a static member", expected=feed.produced)
