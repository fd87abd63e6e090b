"""Reading a stretch of a topic, once and to a known end: for the commands that look at what is there.

Bulk reading goes through aiokafka, whose record parser is compiled: 300,000 records per second where kafka-python
reads a tenth of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from kafka import KafkaAdminClient
from kafka import TopicPartition as AdminPartition
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaConnectionError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    NotCoordinatorError,
    NotLeaderForPartitionError,
    UnknownBrokerIdError,
)
from kafka.errors import KafkaError as AdminError
from kafka.protocol.consumer import IsolationLevel, OffsetSpec

from stream.errors import BrokerError
from stream.kafka import batches
from stream.kafka.clients import broker_errors, connection
from stream.kafka.ledger import Partition
from stream.settings import Settings

__all__ = ["Bounds", "committed", "offsets_since", "open_reader", "partitions", "read", "snapshot"]

# A reader that gets nothing for this long, short of an end that exists, waits for a broker that is not there.
STALLED_S = 30.0
POLL_MS = 500
# Larger fetches than the default 1 MB: fewer round trips, and one partition is read at a time.
FETCH_BYTES = 8_388_608

COORDINATOR_MOVES = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError)
"""A group's coordinator is being found: at the first use of groups on a cluster, and when a broker goes."""
LEADER_MOVES = (UnknownBrokerIdError, LeaderNotAvailableError, NotLeaderForPartitionError)
"""A partition's leader is being elected: when a broker goes, and when one comes back that hung; its id is -1 then."""
GONE = (KafkaConnectionError, NodeNotReadyError)
"""The broker that was asked is not there."""
MOVE_S = 30.0
"""How long a move may take: brokers are given up after 9 s without a sign, and a cluster that starts takes longer."""
MOVE_RETRY_S = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """A stretch of a partition: offsets `start` up to, not including, `end`. Not every offset holds a record."""

    start: int
    end: int


def partitions(admin: KafkaAdminClient, settings: Settings, topic: str) -> int:
    """Number of partitions of a topic. Raises `BrokerError` if there is no such topic."""
    (description,) = _settled(lambda: admin.describe_topics([topic]), settings)
    if description["error_code"]:
        raise BrokerError(f"there is no topic {topic} at {settings.bootstrap_servers}; see `fairway topics check`")
    return len(description["partitions"])


def snapshot(admin: KafkaAdminClient, settings: Settings, topic: str) -> dict[int, Bounds]:
    """Where each partition of a topic starts and ends now, counting committed records only."""
    count = partitions(admin, settings, topic)
    starts, ends = (_offsets(admin, settings, topic, count, spec) for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST))
    return {number: Bounds(start, ends[number]) for number, start in starts.items()}


def offsets_since(admin: KafkaAdminClient, settings: Settings, topic: str, since_ms: int) -> dict[int, int]:
    """Per partition, the offset of the first record written at or after a time; absent where there is none."""
    found = _offsets(admin, settings, topic, partitions(admin, settings, topic), since_ms)
    return {number: offset for number, offset in found.items() if offset >= 0}


def committed(admin: KafkaAdminClient, settings: Settings, group: str) -> dict[Partition, int]:
    """What a consumer group has committed; partitions it never committed are absent."""
    offsets: Mapping[Any, Any] = _settled(  # kafka-python ships no types
        lambda: admin.list_group_offsets(group)[group],
        settings,
        moves=COORDINATOR_MOVES,
        else_say=f"no broker of {settings.bootstrap_servers} coordinates the group {group}",
    )
    return {Partition(tp.topic, tp.partition): entry.offset for tp, entry in offsets.items() if entry.offset >= 0}


def _offsets(
    admin: KafkaAdminClient, settings: Settings, topic: str, count: int, spec: int | OffsetSpec
) -> dict[int, int]:
    """By each of `count` partitions, the offset that `spec` names among the committed records."""
    asked = {AdminPartition(topic, number): spec for number in range(count)}
    found: Mapping[Any, Any] = _settled(
        lambda: admin.list_partition_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED),
        settings,
        moves=LEADER_MOVES,
        else_say=f"a partition of {topic} at {settings.bootstrap_servers} has no leader; start its broker",
    )
    return {tp.partition: entry.offset for tp, entry in found.items()}


def _settled(
    ask: Callable[[], T], settings: Settings, *, moves: tuple[type[AdminError], ...] = (), else_say: str = ""
) -> T:
    """What the cluster answers once it has settled: `moves` are waited out for at most `MOVE_S`, then comes `else_say`.

    Connections that fail are waited out as well: kafka-python asks any broker it knows of, also one that has just gone.
    """
    deadline = time.monotonic() + MOVE_S
    while time.monotonic() < deadline:
        try:
            with broker_errors(settings, but=(*moves, *GONE)):
                return ask()
        except (*moves, *GONE):
            time.sleep(MOVE_RETRY_S)
    try:
        with broker_errors(settings, but=moves):
            return ask()
    except moves:
        raise BrokerError(else_say) from None


@asynccontextmanager
async def open_reader(settings: Settings, **arguments: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer outside any group that reads committed records; `arguments` are aiokafka's."""
    batches.install()
    consumer = AIOKafkaConsumer(
        **connection(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES,
        **arguments,
    )
    try:
        await consumer.start()
        yield consumer
    except KafkaError as error:
        raise BrokerError(f"reading from {settings.bootstrap_servers} failed: {error}") from None
    finally:
        # A consumer that is stopped before its tasks began to run cancels whoever stops it.
        await asyncio.sleep(0)
        await consumer.stop()


async def read(
    consumer: AIOKafkaConsumer, partition: Partition, stretches: Iterable[Bounds]
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    """Yield the records of one partition that lie in `stretches` (ascending), in order, a fetch at a time.

    Raises `BrokerError` when the broker gives nothing more although the end is not reached.
    """
    tp = TopicPartition(*partition)
    consumer.assign([tp])
    for bounds in stretches:
        consumer.seek(tp, bounds.start)
        deadline = time.monotonic() + STALLED_S
        while await consumer.position(tp) < bounds.end:
            records = (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, [])
            if records:
                deadline = time.monotonic() + STALLED_S
                yield [record for record in records if record.offset < bounds.end]
            elif time.monotonic() > deadline:
                raise BrokerError(
                    f"nothing more came from {tp.topic}-{tp.partition} for {STALLED_S:g} s, "
                    f"although it goes on to offset {bounds.end}: is the broker that leads it up?"
                )
