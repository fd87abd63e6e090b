"""Reading a stretch of a topic, once and to a known end: for the commands that look at what is there.

Bulk reading goes through aiokafka, whose record parser is compiled: 300,000 records per second where kafka-python
reads a tenth of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from kafka import KafkaAdminClient
from kafka import TopicPartition as AdminPartition
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError
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
COORDINATOR_S = 15.0
COORDINATOR_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Bounds:
    """A stretch of a partition: offsets `start` up to, not including, `end`. Not every offset holds a record."""

    start: int
    end: int


def partitions(admin: KafkaAdminClient, settings: Settings, topic: str) -> int:
    """Number of partitions of a topic. Raises `BrokerError` if there is no such topic."""
    with broker_errors(settings):
        (description,) = admin.describe_topics([topic])
    if description["error_code"]:
        raise BrokerError(f"there is no topic {topic} at {settings.bootstrap_servers}; see `fairway topics check`")
    return len(description["partitions"])


def snapshot(admin: KafkaAdminClient, settings: Settings, topic: str) -> dict[int, Bounds]:
    """Where each partition of a topic starts and ends now, counting committed records only."""
    numbers = range(partitions(admin, settings, topic))
    with broker_errors(settings):
        starts, ends = (
            admin.list_partition_offsets(
                {AdminPartition(topic, number): spec for number in numbers},
                isolation_level=IsolationLevel.READ_COMMITTED,
            )
            for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
        )
    return {
        number: Bounds(starts[AdminPartition(topic, number)].offset, ends[AdminPartition(topic, number)].offset)
        for number in numbers
    }


def offsets_since(admin: KafkaAdminClient, settings: Settings, topic: str, since_ms: int) -> dict[int, int]:
    """Per partition, the offset of the first record written at or after a time; absent where there is none."""
    numbers = range(partitions(admin, settings, topic))
    with broker_errors(settings):
        found = admin.list_partition_offsets({AdminPartition(topic, number): since_ms for number in numbers})
    return {tp.partition: entry.offset for tp, entry in found.items() if entry.offset >= 0}


def committed(admin: KafkaAdminClient, settings: Settings, group: str) -> dict[Partition, int]:
    """What a consumer group has committed; partitions it never committed are absent."""
    deadline = time.monotonic() + COORDINATOR_S
    while True:
        try:
            with broker_errors(settings, but=COORDINATOR_MOVES):
                offsets: Mapping[Any, Any] = admin.list_group_offsets(group)[group]  # kafka-python ships no types
            break
        except COORDINATOR_MOVES:
            if time.monotonic() > deadline:
                raise BrokerError(f"no broker of {settings.bootstrap_servers} coordinates the group {group}") from None
            time.sleep(COORDINATOR_RETRY_S)
    return {Partition(tp.topic, tp.partition): entry.offset for tp, entry in offsets.items() if entry.offset >= 0}


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
