"""Group commit: everything finished so far leaves as one large batch per partition and round trip.

aiokafka keeps one produce request in flight per broker, and a request carries one batch per partition. Output per
second is therefore bytes per request divided by the round trip, so scoring batches must not be produce batches:
finished work queues per destination, one round takes all of it, and work is acknowledged only when the broker has
acknowledged every output of it. When idle a round is one small batch and latency is one round trip; batches grow by
themselves under lag.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CorruptRecordException,
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)
from aiokafka.producer.message_accumulator import BatchBuilder

from stream.errors import BrokerError
from stream.kafka.ledger import Partition

__all__ = ["Delivery", "Load", "OutRecord", "Publisher", "SendsBatches"]

log = structlog.get_logger(__name__)

OutRecord = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers (aiokafka insists on a list). A plain tuple: a hundred thousand of these are made per second,
and a named one costs ten times as much to make."""

REFUSED = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    PolicyViolationError,
    InvalidTimestampError,
    CorruptRecordException,
)
"""The broker will never take this batch: one record in it is at fault."""

FATAL = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
"""The broker will never take anything from us: a person must act."""

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses between attempts while the broker is away; the last one repeats, so that recovery is noticed within 5 s."""

CLOSE_WITHIN_S = 2.0
"""A producer that failed gets this long to close before it is abandoned."""


class SendsBatches(Protocol):
    """What the publisher needs of a producer; `SliceProducer` is one."""

    @property
    def client(self) -> Any:  # aiokafka ships no types
        """What has `create_batch` and `send_batch`."""
        ...

    async def renew(self, *, close_within_s: float) -> None:
        """Replace the client after a failure."""
        ...


@dataclass(slots=True, eq=False)
class Delivery:
    """The outputs of one unit of work, on their way. `on_done` is called when the broker has acknowledged all."""

    on_done: Callable[[], None]
    on_refused: Callable[[Partition, int, OutRecord], tuple[Partition, OutRecord]]
    """Given where a record should have gone that the broker refuses for ever, the index of what it answers, and the
    record: where to send what in its place."""
    loads: int = 0


@dataclass(slots=True, eq=False)
class Load:
    """Records for one destination; `sources[i]` is the index, in the unit of work, that record i answers."""

    records: Sequence[OutRecord]
    sources: Sequence[int]


@dataclass(slots=True, eq=False)
class _Chunk:
    load: Load
    delivery: Delivery
    start: int = 0


@dataclass(slots=True, eq=False)
class _Lane:
    """What waits for one destination partition, in order."""

    chunks: deque[_Chunk] = field(default_factory=deque)
    limit: int | None = None
    """Records per batch while the refused one is looked for; None is as many as fit."""

    def fill(self, builder: BatchBuilder) -> int:
        """Append records in order until the batch or the limit is full; return how many went in."""
        append, limit, count = builder.append, self.limit, 0
        for chunk in self.chunks:
            records = chunk.load.records
            for index in range(chunk.start, len(records)):
                key, value, headers = records[index]
                if count == limit or append(timestamp=None, key=key, value=value, headers=headers) is None:
                    return count
                count += 1
        return count

    def acknowledge(self, count: int) -> None:
        """Take the first `count` records off; finish the deliveries that are complete."""
        while count:
            chunk = self.chunks[0]
            step = min(count, len(chunk.load.records) - chunk.start)
            chunk.start += step
            count -= step
            if chunk.start == len(chunk.load.records):
                self.chunks.popleft()
                chunk.delivery.loads -= 1
                if not chunk.delivery.loads:
                    chunk.delivery.on_done()


class Publisher:
    """Publishes loads in order per destination partition, in rounds, until the broker has acknowledged them.

    It belongs to the event loop. `run` never returns; it raises only what a person must mend.
    """

    def __init__(self, producer: Callable[[], SendsBatches], *, on_round: Callable[[int, float], None]) -> None:
        """`producer` gives the producer in force; `on_round` is told records and seconds of each finished round."""
        self._producer = producer
        self._on_round = on_round
        self._lanes: dict[Partition, _Lane] = {}
        self._wake = asyncio.Event()
        self._failures = 0
        self._round_started: float | None = None
        self.is_idle = True

    def put(self, delivery: Delivery, loads: Mapping[Partition, Load]) -> None:
        """Queue the outputs of one unit of work."""
        filled = {partition: load for partition, load in loads.items() if load.records}
        delivery.loads += len(filled)
        if not delivery.loads:
            delivery.on_done()
            return
        for partition, load in filled.items():
            self._lanes.setdefault(partition, _Lane()).chunks.append(_Chunk(load, delivery))
        self.is_idle = False
        self._wake.set()

    def abandon(self) -> None:
        """Drop all that is queued: the partitions are no longer ours. A round under way ends by itself."""
        self._lanes = {}
        self.is_idle = True

    async def run(self) -> None:
        """Publish rounds for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while busy := [(partition, lane) for partition, lane in self._lanes.items() if lane.chunks]:
                await self._round(busy)
                self.is_idle = not any(lane.chunks for lane in self._lanes.values())

    @property
    def round_age_s(self) -> float:
        """Seconds that the round under way has taken so far; 0 between rounds."""
        return 0.0 if self._round_started is None else time.perf_counter() - self._round_started

    async def _round(self, busy: Sequence[tuple[Partition, _Lane]]) -> None:
        started = self._round_started = time.perf_counter()
        producer = self._producer()
        sent: list[tuple[Partition, _Lane, int, asyncio.Future[Any]]] = []
        try:
            for partition, lane in busy:
                builder = producer.client.create_batch()
                count = lane.fill(builder)
                future = await producer.client.send_batch(builder, partition.topic, partition=partition.partition)
                sent.append((partition, lane, count, future))
            failure: KafkaError | None = None
        except KafkaError as error:
            failure = error
        answers = await asyncio.gather(*(future for *_, future in sent), return_exceptions=True)
        published = 0
        for (partition, lane, count, _), answer in zip(sent, answers, strict=True):
            if isinstance(answer, REFUSED):
                self._isolate(partition, lane, count, answer)
                failure = answer
            elif isinstance(answer, KafkaError):
                failure = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                lane.acknowledge(count)
                lane.limit = None if lane.limit is None else lane.limit * 2
                published += count
        if failure is not None:
            await self._recover(producer, failure)
        else:
            self._failures = 0
        self._round_started = None
        self._on_round(published, time.perf_counter() - started)

    def _isolate(self, partition: Partition, lane: _Lane, count: int, error: KafkaError) -> None:
        """Halve the batch until the refused record is alone, then send something else in its place."""
        if count > 1:
            lane.limit = count // 2
            return
        lane.limit = None
        chunk = lane.chunks[0]
        index, source, output = chunk.start, chunk.load.sources[chunk.start], chunk.load.records[chunk.start]
        log.warning("output_refused", topic=partition.topic, partition=partition.partition, error=type(error).__name__)
        destination, instead = chunk.delivery.on_refused(partition, source, output)
        chunk.load = _without(chunk.load, index)
        # Queued before the refused one is taken off, or its delivery could look complete.
        self.put(chunk.delivery, {destination: Load([instead], [source])})
        if chunk.start == len(chunk.load.records):
            lane.chunks.popleft()
            chunk.delivery.loads -= 1
            if not chunk.delivery.loads:
                chunk.delivery.on_done()

    async def _recover(self, producer: SendsBatches, error: KafkaError) -> None:
        """Renew the producer and pause; what was not acknowledged is sent again by the next round."""
        if isinstance(error, FATAL):
            raise BrokerError(f"the broker does not let this worker write: {error}; grant Write on the output topics")
        if not isinstance(error, REFUSED):
            pause = BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)]
            self._failures += 1
            log.warning("publish_failed", error=type(error).__name__, failures=self._failures, pause_s=pause)
            await asyncio.sleep(pause)
        try:
            await producer.renew(close_within_s=CLOSE_WITHIN_S)
        except KafkaError as again:
            # Still away: the old producer stays and fails the next round, which brings us back here.
            log.warning("producer_not_renewed", error=type(again).__name__)


def _without(load: Load, index: int) -> Load:
    return Load(
        records=[*load.records[:index], *load.records[index + 1 :]],
        sources=[*load.sources[:index], *load.sources[index + 1 :]],
    )
