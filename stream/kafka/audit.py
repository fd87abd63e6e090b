"""The audit: proof, from the topics alone, that every event has its one output, in order, in its partition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from aiokafka import AIOKafkaConsumer
from kafka import KafkaAdminClient
from numpy.typing import NDArray

from stream.kafka.accounts import PartitionAccount, PartitionAudit
from stream.kafka.clients import open_admin
from stream.kafka.ledger import Partition
from stream.kafka.reading import Bounds, committed, open_reader, read, snapshot
from stream.settings import Settings

__all__ = ["AuditReport", "audit"]

# Unanswered offsets closer than this are looked up in one read: reading a few records more is cheaper than a seek.
SEEK_GAP = 2000
# How often a waiting audit looks whether the pipeline has caught up.
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What became of every event that was in the topic when the audit began."""

    partitions: tuple[PartitionAudit, ...]
    lag: int
    """Events the consumer group had not committed when the audit began to read: these may yet get their output."""

    @property
    def total(self) -> PartitionAudit:
        """All partitions together; its partition number is -1."""
        return reduce(add, self.partitions, PartitionAudit(-1))

    @property
    def is_sound(self) -> bool:
        """Whether every event has its one output, in order, in its partition."""
        return self.total.is_sound


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Bounds by partition, taken in this order: an output below its end is for an event below `latest`."""

    events: Mapping[int, Bounds]
    decisions: Mapping[int, Bounds]
    dead_letters: Mapping[int, Bounds]
    latest: Mapping[int, Bounds]


def audit(settings: Settings, *, wait_s: float = 0.0, report: Callable[[str], None] = lambda _: None) -> AuditReport:
    """Read decisions and dead letters and account for every event that is in the topic now.

    Events that arrive later are not counted. An event whose output is on its way counts as missing, so on live topics
    give `wait_s`: the audit then first waits, for at most so long, until the consumer group has committed past what
    was in the topic when the audit began. `report` gets a line of progress per partition. Raises `BrokerError`.
    """
    admin = open_admin(settings)
    try:
        events = snapshot(admin, settings, settings.events_topic)
        lag = _wait(admin, settings, events, wait_s)
        taken = _Snapshot(
            events=events,
            decisions=snapshot(admin, settings, settings.decisions_topic),
            dead_letters=snapshot(admin, settings, settings.dead_letter_topic),
            latest=snapshot(admin, settings, settings.events_topic),
        )
    finally:
        admin.close()
    return AuditReport(asyncio.run(_audit_all(settings, taken, report)), lag)


def _wait(admin: KafkaAdminClient, settings: Settings, events: Mapping[int, Bounds], wait_s: float) -> int:
    """Wait until the group has committed past `events`, or time is up; return how many it has not."""
    deadline = time.monotonic() + wait_s
    while True:
        offsets = committed(admin, settings, f"{settings.group}-moderate")
        lag = sum(
            max(0, bounds.end - max(bounds.start, offsets.get(Partition(settings.events_topic, number), 0)))
            for number, bounds in events.items()
        )
        if lag == 0 or time.monotonic() >= deadline:
            return lag
        time.sleep(POLL_S)


async def _audit_all(settings: Settings, taken: _Snapshot, report: Callable[[str], None]) -> tuple[PartitionAudit, ...]:
    numbers = sorted(taken.events.keys() | taken.decisions.keys() | taken.dead_letters.keys())
    done = []
    async with open_reader(settings) as consumer:
        for number in numbers:
            result = await _audit_partition(consumer, settings, taken, number)
            report(f"partition {number}: {result.events} events, {'sound' if result.is_sound else 'NOT SOUND'}")
            done.append(result)
    return tuple(done)


async def _audit_partition(
    consumer: AIOKafkaConsumer, settings: Settings, taken: _Snapshot, number: int
) -> PartitionAudit:
    nothing = Bounds(0, 0)
    account = PartitionAccount(
        settings.events_topic,
        number,
        taken.events.get(number, nothing),
        latest=taken.latest.get(number, nothing).end,
    )
    decisions = Partition(settings.decisions_topic, number)
    async for records in read(consumer, decisions, [taken.decisions.get(number, nothing)]):
        for record in records:
            account.add_decision(record.value, where=f"{decisions.topic}:{number}:{record.offset}")
    dead_letters = Partition(settings.dead_letter_topic, number)
    async for records in read(consumer, dead_letters, [taken.dead_letters.get(number, nothing)]):
        for record in records:
            account.add_dead_letter(record.headers, where=f"{dead_letters.topic}:{number}:{record.offset}")
    events = Partition(settings.events_topic, number)
    return account.close(await _existing(consumer, events, account.unanswered()))


async def _existing(consumer: AIOKafkaConsumer, events: Partition, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of `offsets`, ascending, hold an event: transactions and compaction leave offsets that do not."""
    found = [offsets[:0]]
    async for records in read(consumer, events, _stretches(offsets)):
        there = np.array([record.offset for record in records], dtype=np.int64)
        places = np.minimum(np.searchsorted(offsets, there), len(offsets) - 1)
        found.append(there[offsets[places] == there])
    return np.concatenate(found)


def _stretches(offsets: NDArray[np.int64]) -> Iterator[Bounds]:
    """Cover ascending offsets by stretches to read."""
    if len(offsets) == 0:
        return
    breaks = np.flatnonzero(np.diff(offsets) > SEEK_GAP) + 1
    for group in np.split(offsets, breaks):
        yield Bounds(int(group[0]), int(group[-1]) + 1)
