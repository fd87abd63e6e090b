"""A Faust transport that moves whole slices instead of single messages.

Stock Faust pays about 160 µs of Python per event and, on an exception or a cancel inside `take()`, acknowledges
events nobody processed. Here the consumer hands the agent whole slices of one partition, offsets are committed from a
`Ledger`, and the producer sends record batches. Agents, worker, groups, rebalancing and web stay Faust's.

Private names of faust-streaming 0.15 and aiokafka 0.14 in use are listed in `PRIVATE_NAMES`, one contract test each.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import faust
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.topics import Topic
from faust.transport.drivers import aiokafka as driver
from yarl import URL

from stream.kafka import batches
from stream.kafka.ledger import UNIT_MAX_BYTES, Ledger, Partition, Slice, size_of

__all__ = ["PRIVATE_NAMES", "SliceConsumer", "SliceProducer", "SliceTopic", "install"]

log = structlog.get_logger(__name__)

PRIVATE_NAMES = {
    "faust.transport.consumer.Consumer": ("_drain_messages", "_wait_next_records", "_stopped", "_read_offset"),
    "faust.transport.consumer.Fetcher": ("_stopped",),
    "faust.transport.drivers.aiokafka.Consumer": ("_thread", "_new_consumer_thread"),
    "aiokafka.AIOKafkaConsumer": ("_fetch_max_wait_ms",),
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread": ("_ensure_consumer", "_create_worker_consumer"),
    "faust.transport.drivers.aiokafka.Producer": ("_producer", "_new_producer", "_ensure_producer", "_settings_extra"),
}
"""Private names this module relies on, by owner."""

POLL_S = 1.0
"""A fetch waits this long for records; it bounds how long stopping waits for the fetcher."""

COMMIT_WITHIN_S = 5.0
"""A commit takes milliseconds; one that does not is tried again at the next interval."""

STOP_WITHIN_S = 2.0
"""A client that has nothing left to send closes in milliseconds."""

ROOM_POLL_S = 0.002
"""While the buffer is full there is seconds' worth of work in hand; looking 500 times a second costs nothing."""

FETCH_WAIT_MS = 20
"""A broker holds a fetch this long for the first record. aiokafka has one fetch in flight per broker, without the
partitions whose records are not taken yet, so new records of those wait for it. Fifty requests a second when idle."""


class SliceTopic(Topic):
    """A topic whose queue receives whole slices; `fairway` agents read these and nothing else."""


class SliceConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with a client that waits less for a fetch."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # Faust fixes it at 1500
        return consumer


class SliceConsumer(driver.Consumer):
    """Delivers slices to the agent's queue and commits what the ledger says is finished."""

    mundane_level = "debug"
    ledger: Ledger
    slice_max_records: int
    buffer_max_records: int
    buffer_max_bytes: int
    drain: Callable[[], Awaitable[None]]
    """Finishes the work in hand, for a bounded time; set by `install`."""
    start_offsets: Callable[[Iterable[Partition]], Awaitable[Mapping[Partition, int]]] | None = None
    """Where to start reading, for a stage that keeps its own position; None starts at the committed offsets."""

    def _new_consumer_thread(self) -> SliceConsumerThread:
        return SliceConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- fetch ---------------------------------------------------------------------------------------------------
    async def _drain_messages(self, fetcher: Any) -> None:  # Fetcher, a private Faust service
        # Records of a fetch that nobody delivered are behind the client's position. They must be read again, or the
        # next commit goes over them. A fetch can be lost when this task starts anew and when a rebalance crosses it.
        must_read_again = True
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await self._wait_for_room()
                if must_read_again and self.flow_active:
                    must_read_again = not await self._read_again()
                epoch = self.ledger.epoch
                records, _ = await self._wait_next_records(POLL_S)
                # Without this a busy partition never lets the loop run: getmany returns at once when data is there.
                await asyncio.sleep(0)
                if not records or self.should_stop:
                    continue
                if must_read_again or not self.flow_active or epoch != self.ledger.epoch:
                    must_read_again = True
                    continue
                for partition, batch in records.items():
                    self._deliver(Partition(*partition), batch)
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.app.should_stop:
                raise

    async def _read_again(self) -> bool:
        """Go back to what was delivered last; False where a rebalance came between."""
        try:
            for partition in self.assignment():
                position = self._read_offset[partition]
                if position is None:
                    await self._thread.seek_to_beginning(TopicPartition(*partition))
                else:
                    await self.seek(partition, position)
        except (IllegalStateError, KafkaError):
            return False
        return True

    async def _wait_for_room(self) -> None:
        """Wait until less than the bound is in hand, or the flow is stopped by a rebalance."""
        while (  # noqa: ASYNC110 - the ledger is pure and has no event
            (
                self.ledger.records_in_hand >= self.buffer_max_records
                or self.ledger.bytes_in_hand >= self.buffer_max_bytes
            )
            and self.flow_active
            and not self.should_stop
        ):
            await asyncio.sleep(ROOM_POLL_S)

    def _deliver(self, partition: Partition, records: Sequence[Any]) -> None:
        """Cut fetched records into slices and put them into the agent's queue."""
        read = self._read_offset[partition]
        if read is not None and records[0].offset < read:
            # A fetch that was under way during a seek returns what we already have.
            records = [record for record in records if record.offset >= read]
            if not records:
                return
        queue = self._queue_of(partition.topic)
        now = time.monotonic()
        # Until the first commit, lag counts from here.
        self.app.monitor.tp_committed_offsets.setdefault(partition, records[0].offset)
        for run, size in _runs(records, self.slice_max_records):
            piece = Slice(partition, run, self.ledger.epoch, size, fetched_at=now)
            self.ledger.open(piece)
            queue.put_nowait(piece)
        self._read_offset[partition] = records[-1].offset + 1
        self.app.monitor.track_tp_end_offset(partition, self.highwater(partition))

    def _queue_of(self, topic: str) -> Any:  # mode's FlowControlQueue
        for channel in self.app.topics:
            if isinstance(channel, SliceTopic) and topic in channel.topics:
                return channel.queue
        raise LookupError(f"no agent reads the topic {topic}; this is a bug")

    # --- positions and commits -----------------------------------------------------------------------------------
    async def perform_seek(self) -> None:
        """Go to the committed offsets, or to where the stage's own state says."""
        await super().perform_seek()
        if self.start_offsets is not None:
            mine = [Partition(*tp) for tp in self.assignment()]
            for partition, offset in (await self.start_offsets(mine)).items():
                await self.seek(partition, offset)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002 - Faust's signature
        """Commit the finished prefix of each partition. A failed commit changes nothing and is tried again."""
        owned = self.assignment()
        offsets = {p: offset for p, offset in self.ledger.committable().items() if p in owned}
        if not offsets:
            return False
        epoch = self.ledger.epoch
        try:
            # aiokafka waits for ever for a coordinator that is gone, and a rebalance or a stop would wait with it.
            await asyncio.wait_for(self._thread.call_thread(self._commit_on_thread, offsets), COMMIT_WITHIN_S)
        except (CommitFailedError, IllegalStateError) as error:
            # The group moved on without us: the new owner reads these records again.
            log.warning("commit_rejected", error=type(error).__name__, partitions=len(offsets))
            return False
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_failed", error=type(error).__name__, partitions=len(offsets))
            return False
        if epoch == self.ledger.epoch:
            self.ledger.committed(offsets)
        self.app.monitor.on_tp_commit(offsets)
        return True

    async def _commit_on_thread(self, offsets: Mapping[Partition, int]) -> None:
        await self._thread._ensure_consumer().commit(
            {TopicPartition(*partition): OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}
        )

    async def wait_empty(self) -> None:
        """Finish what is in hand, then commit. Faust calls this before it gives partitions back and when it stops."""
        await self.drain()
        await self.commit()

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Give partitions back. aiokafka rebalances eagerly: all partitions are revoked, whatever comes next."""
        await super().on_partitions_revoked(revoked)
        self.ledger.revoke_all()

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Faust's per-message livelock detector does not apply; `/live` watches progress instead."""


def _runs(records: Sequence[Any], max_records: int) -> Iterable[tuple[Sequence[Any], int]]:
    """Cut records into runs of at most `max_records` and `UNIT_MAX_BYTES`, each with its size in bytes."""
    start = size = 0
    for index, record in enumerate(records):
        length = size_of(record)
        if index > start and (index - start >= max_records or size + length > UNIT_MAX_BYTES):
            yield records[start:index], size
            start, size = index, 0
        size += length
    yield (records[start:] if start else records), size


class SliceProducer(driver.Producer):
    """An idempotent producer of record batches, which can be replaced after a failure.

    After a failed batch the sequence numbers of an idempotent producer have a hole that the broker refuses for ever, so
    a failure is always answered with `renew`.
    """

    mundane_level = "debug"
    _producer: AIOKafkaProducer | None

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    @property
    def client(self) -> AIOKafkaProducer:
        """The producer in force."""
        return self._ensure_producer()

    async def renew(self, *, close_within_s: float) -> None:
        """Replace the client by a new one with a new producer id."""
        old, fresh = self._producer, self._new_producer()
        await fresh.start()
        self._producer = fresh
        await _close(old, within_s=close_within_s)

    async def flush(self) -> None:
        """Wait for nothing: the publisher knows what is acknowledged, and the rest is read again."""

    async def on_stop(self) -> None:
        """Close the client, for a bounded time: an idempotent one waits for ever for a broker that is gone."""
        client, self._producer = self._producer, None
        await _close(client, within_s=STOP_WITHIN_S)


async def _close(client: AIOKafkaProducer | None, *, within_s: float) -> None:
    if client is not None:
        with contextlib.suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(client.stop(), within_s)


def install(app: faust.App, bootstrap_servers: str, *, consumer: type[SliceConsumer]) -> None:
    """Give an app the slice transport, with a `SliceConsumer` class configured for one worker."""
    batches.install()

    class WorkerTransport(driver.Transport):
        Consumer: ClassVar[type] = consumer
        Producer: ClassVar[type] = SliceProducer

    urls = [URL(f"kafka://{server.strip()}") for server in bootstrap_servers.split(",")]
    app.transport = WorkerTransport(urls, app)
    app.producer_transport = WorkerTransport(urls, app)
