"""Faults of brokers: whatever happens to Kafka, workers wait, resume by themselves, and nothing is lost."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaConnectionError

from ops.bench.texts import events
from stream.errors import BrokerError
from stream.kafka import reading
from stream.kafka.broker import LocalBroker
from stream.kafka.clients import open_admin
from stream.kafka.reading import snapshot
from stream.settings import Settings
from tests.chaos.conftest import Deploy, Deployment
from tests.traffic import Feed, produce
from tests.workers import WorkerProcess, until

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(300)]

StartBroker = Callable[..., LocalBroker]
Backlog = Callable[..., tuple[LocalBroker, Deployment, WorkerProcess]]


@pytest.fixture
def backlog(start_broker: StartBroker, deploy: Deploy) -> Backlog:
    """A broker of one test's own and a worker in the middle of `count` events, `unit_s` for each unit of 256."""

    def begin(count: int, *, unit_s: float, **settings: Any) -> tuple[LocalBroker, Deployment, WorkerProcess]:
        broker = start_broker()
        deployment = deploy(broker, **settings)
        produce(deployment.settings, events(count))
        return broker, deployment, deployment.worker("slow", str(unit_s), slice_max_records=256)

    return begin


def test_a_broker_stopped_for_ten_seconds(start_broker: StartBroker, deploy: Deploy) -> None:
    """A broker that hangs for ten seconds, longer than a session, costs time and nothing else."""
    broker = start_broker()
    deployment = deploy(broker)
    with Feed(deployment.settings, rate=1_000) as feed:
        deployment.worker()
        time.sleep(1)
        broker.suspend()
        time.sleep(10)
        broker.resume()
        time.sleep(2)
    deployment.account("broker stopped for 10 s", expected=feed.produced)


def test_a_broker_killed_and_restarted_on_its_data(backlog: Backlog) -> None:
    """The only broker is killed and comes back on its data; the worker resumes by itself."""
    broker, deployment, worker = backlog(30_000, unit_s=0.05)
    broker.kill()
    time.sleep(3)
    broker.restart()
    deployment.account("broker killed and restarted", expected=30_000)
    assert worker.process.poll() is None


def test_one_of_three_brokers_killed(start_broker: StartBroker, deploy: Deploy) -> None:
    """With three replicas and two in sync, one broker may die under load."""
    broker = start_broker(nodes=3)
    deployment = deploy(broker, replication=3)
    with Feed(deployment.settings, rate=1_000) as feed:
        worker = deployment.worker()
        time.sleep(2)
        broker.kill(2)
        time.sleep(8)
    deployment.account("one of three brokers killed", expected=feed.produced)
    assert worker.process.poll() is None


def test_partitions_without_a_leader(
    start_broker: StartBroker, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets of a partition whose only broker is away are waited for, and who waits too long is told what to do."""
    broker = start_broker(nodes=3)
    settings = deploy(broker).settings
    produce(settings, events(300))
    broker.kill(3)
    with closing(open_admin(settings)) as admin:
        until(lambda: _leaderless(admin, settings), within_s=60)
        monkeypatch.setattr(reading, "MOVE_S", 1.0)
        with pytest.raises(BrokerError, match=r"has no leader; start its broker"):
            snapshot(admin, settings, settings.events_topic)
        monkeypatch.setattr(reading, "MOVE_S", 60.0)
        with ThreadPoolExecutor() as pool:
            found = pool.submit(snapshot, admin, settings, settings.events_topic)
            time.sleep(1)
            assert not found.done()
            broker.restart(3)
            assert sum(bounds.end - bounds.start for bounds in found.result(timeout=60).values()) == 300


def test_produce_requests_that_time_out(backlog: Backlog) -> None:
    """Outputs whose requests time out are sent again under the same sequence numbers: nothing is lost or doubled."""
    broker, deployment, worker = backlog(20_000, unit_s=0.2, request_timeout_s=6.0)
    until(lambda: worker.metric("fairway_publish_records_count") > 3, within_s=60)
    broker.suspend()
    until(lambda: "Got error produce response: [Error 7] RequestTimedOutError" in worker.log(), within_s=60)
    broker.resume()
    deployment.account("produce requests timing out", expected=20_000)
    assert worker.process.poll() is None


def test_sigterm_while_the_broker_is_away(backlog: Backlog) -> None:
    """A worker that cannot finish what is in hand still stops in a bounded time, and the next one does it again."""
    broker, deployment, worker = backlog(20_000, unit_s=0.2, request_timeout_s=6.0)
    until(lambda: worker.metric("fairway_publish_records_count") > 3, within_s=60)
    broker.suspend()
    worker.stop(within_s=deployment.settings.drain_s + 25)
    broker.resume()
    deployment.worker()
    deployment.account("SIGTERM while the broker is away", expected=20_000)


def test_a_full_output_disk(backlog: Backlog) -> None:
    """A broker that can write no more stops; on a disk with room it comes back and everything is decided."""
    broker, deployment, worker = backlog(40_000, unit_s=0.05)
    # Every write beyond this size fails, as on a full disk; index files are preallocated, so not less.
    resource.prlimit(broker.pid(), resource.RLIMIT_FSIZE, (12_000_000, 12_000_000))
    until(lambda: _has_ended(broker), within_s=90)
    broker.restart()
    deployment.account("output disk full", expected=40_000)
    assert worker.process.poll() is None


def test_a_refused_record(broker: LocalBroker, deploy: Deploy) -> None:
    """A decision that the broker refuses becomes a dead letter; its neighbours are decided."""
    deployment = deploy(broker)
    deployment.worker()  # it would not start with the limit that follows
    _limit(deployment, deployment.settings.decisions_topic, 2_000)
    count = produce(deployment.settings, _with_some_large_decisions(2_000))
    total = deployment.account("decisions refused by the broker", expected=count)
    assert total.dead_lettered == 20


def _has_ended(broker: LocalBroker) -> bool:
    try:
        broker.raise_if_ended()
    except BrokerError:
        return True
    return False


def _leaderless(admin: KafkaAdminClient, settings: Settings) -> bool:
    try:
        (topic,) = admin.describe_topics([settings.events_topic])
    except KafkaConnectionError:  # of the killed one
        return False
    return any(partition["leader_id"] == -1 for partition in topic["partitions"])


def _limit(deployment: Deployment, topic: str, size: int) -> None:
    admin = open_admin(deployment.settings)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])
    admin.close()


def _with_some_large_decisions(count: int) -> Iterator[bytes]:
    """Every hundredth event has group names that make its decision larger than 2,000 bytes."""
    for number, value in enumerate(islice(events(count), count)):
        if number % 100:
            yield value
        else:
            large = {f"axis-{n}": ["g" * 100] for n in range(12)}
            yield json.dumps(json.loads(value) | {"groups": large}).encode()
