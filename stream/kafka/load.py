"""A load test: events sent on a fixed schedule, and the time until the decision about each can be read.

Open loop: event number i is due `i / rate` seconds after the start, whether or not anything has come back. Latency
counts from when an event was due, so a stall is seen by every event it delayed, not only by those that were let through
("coordinated omission", Tene); the time from when it was handed to the producer is reported beside it.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from stream.errors import BrokerError
from stream.kafka import deadletter
from stream.kafka.clients import connection, open_admin
from stream.kafka.latency import Answers, Histogram, Outstanding
from stream.kafka.reading import Bounds, open_reader, snapshot
from stream.settings import Settings

__all__ = ["Event", "LoadReport", "Plan", "run_load"]

# Events become due in steps of this; it adds at most so much to a latency.
TICK_S = 0.001
POLL_MS = 100
# Events due and not yet handed to the producer, and events sent and not yet answered. Beyond these the pipeline does
# not keep up at all, and waiting longer would only fill memory: the test ends early and says so.
MAX_QUEUED = 200_000
MAX_OUTSTANDING = 5_000_000
# One produce request per partition carries at most this: just under the topic's default limit of 1,048,588.
BATCH_BYTES = 950_000
# Answers matched at once: a few milliseconds, during which nothing is sent.
FETCH_RECORDS = 2000
YIELD_EVERY = 256
PROGRESS_S = 1.0

Event = tuple[int, bytes | None, bytes]
"""Partition, key and value. A plain tuple: at 20,000 a second the cost of a named one shows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to send. `drain_s` is how long the test waits for another answer once all is sent."""

    rate: float
    drain_s: float = 30.0


@dataclass(slots=True)
class LoadReport:
    """What was sent and what came back. Latencies run until a decision or dead letter was read."""

    sent: int = 0
    """Events the broker acknowledged."""
    not_acknowledged: int = 0
    decided: int = 0
    dead_lettered: int = 0
    duplicated: int = 0
    missing: int = 0
    stopped_early: bool = False
    """The pipeline fell so far behind that the rest was not sent."""
    sending_s: float = 0.0
    total_s: float = 0.0
    since_due: Histogram = field(default_factory=Histogram)
    since_sent: Histogram = field(default_factory=Histogram)

    @property
    def sent_per_s(self) -> float:
        """Events acknowledged per second of sending."""
        return self.sent / self.sending_s if self.sending_s else 0.0

    @property
    def answered_per_s(self) -> float:
        """Events answered per second, from the first due to the last answered."""
        return (self.sent - self.missing) / self.total_s if self.total_s else 0.0


class _Answer(msgspec.Struct):
    decision_id: str


class _Lane:
    """What waits for one partition, and what was sent to it."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.outstanding = Outstanding()
        self.waiting: list[tuple[float, bytes | None, bytes]] = []
        self.wake = asyncio.Event()
        self.is_closed = False


def run_load(
    settings: Settings,
    plan: Plan,
    events: Callable[[int], Iterator[Event]],
    *,
    progress: Callable[[LoadReport, int], None] = lambda _report, _outstanding: None,
) -> LoadReport:
    """Send what `events` yields, given the number of partitions, and wait for the answers.

    `progress` gets the report so far and the number of events without an answer, about once a second. Raises
    `BrokerError` when the cluster does not answer or its topics are not there.
    """
    admin = open_admin(settings)
    try:
        lanes = [_Lane(number) for number in snapshot(admin, settings, settings.events_topic)]
        answers = {
            TopicPartition(topic, number): bounds
            for topic in (settings.decisions_topic, settings.dead_letter_topic)
            for number, bounds in snapshot(admin, settings, topic).items()
        }
    finally:
        admin.close()
    test = _LoadTest(settings, plan, lanes, progress)
    with _no_collection():
        try:
            asyncio.run(test.run(events(len(lanes)), answers))
        except ExceptionGroup as group:  # of the tasks of one test; the first is the cause
            raise group.exceptions[0] from None
    return test.report


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's collector off: its pauses here would be measured as delays there. Nothing here makes cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _LoadTest:
    def __init__(
        self, settings: Settings, plan: Plan, lanes: Sequence[_Lane], progress: Callable[[LoadReport, int], None]
    ) -> None:
        self.report = LoadReport()
        self._settings, self._plan, self._lanes, self._progress = settings, plan, lanes, progress
        self._decode = msgspec.json.Decoder(_Answer).decode
        self._last_answer = 0.0
        self._queued = 0

    async def run(self, events: Iterator[Event], answers: dict[TopicPartition, Bounds]) -> None:
        """Send, read and wait until everything is answered or nothing comes any more."""
        async with open_reader(self._settings) as consumer, _open_sender(self._settings) as producer:
            consumer.assign(list(answers))
            for partition, bounds in answers.items():
                consumer.seek(partition, bounds.end)
            start = self._last_answer = time.monotonic()
            reading = asyncio.create_task(self._read(consumer))
            async with asyncio.TaskGroup() as sending:
                for lane in self._lanes:
                    sending.create_task(self._carry(lane, producer))
                sending.create_task(self._schedule(events, start))
            self.report.sending_s = time.monotonic() - start
            await self._drain(reading)
            self.report.missing = self._outstanding
            self.report.duplicated = sum(lane.outstanding.duplicated for lane in self._lanes)
            self.report.total_s = self._last_answer - start

    @property
    def _outstanding(self) -> int:
        return sum(lane.outstanding.count for lane in self._lanes)

    async def _schedule(self, events: Iterator[Event], start: float) -> None:
        """Hand each event to its lane when it is due, or as soon after as there is room."""
        rate = self._plan.rate
        for number, (partition, key, value) in enumerate(events):
            due = start + number / rate
            while time.monotonic() < due or self._queued >= MAX_QUEUED:  # noqa: ASYNC110 - mostly for time to pass
                await asyncio.sleep(TICK_S)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)  # when behind schedule, nothing else here lets the others run
                if self._outstanding > MAX_OUTSTANDING:
                    self.report.stopped_early = True
                    break
            lane = self._lanes[partition]
            lane.waiting.append((due, key, value))
            lane.wake.set()
            self._queued += 1
        for lane in self._lanes:
            lane.is_closed = True
            lane.wake.set()

    async def _carry(self, lane: _Lane, producer: AIOKafkaProducer) -> None:
        """Send all that is due in one batch, wait for its acknowledgement, and so on."""
        while not (lane.is_closed and not lane.waiting):
            await lane.wake.wait()
            lane.wake.clear()
            while lane.waiting:
                await self._send(lane, producer)

    async def _send(self, lane: _Lane, producer: AIOKafkaProducer) -> None:
        batch = producer.create_batch()
        count = 0
        for _, key, value in lane.waiting:
            if batch.append(timestamp=None, key=key, value=value) is None:
                break
            count += 1
        due = np.array([event[0] for event in lane.waiting[:count]])
        del lane.waiting[:count]
        self._queued -= count
        sent_at = time.monotonic()
        try:
            acknowledged = await producer.send_batch(batch, self._settings.events_topic, partition=lane.partition)
            metadata = await acknowledged
        except KafkaError:
            self.report.not_acknowledged += count
            return
        self.report.sent += count
        for early in lane.outstanding.sent(metadata.offset, due, sent_at=sent_at):
            self._enter(lane, early)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Match decisions and dead letters with what was sent, for ever."""
        next_report = time.monotonic() + PROGRESS_S
        while True:
            fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=FETCH_RECORDS)
            at = time.monotonic()
            for partition, records in fetched.items():
                are_decisions = partition.topic == self._settings.decisions_topic
                sources = self._decisions(records) if are_decisions else self._dead_letters(records)
                for lane, offsets in self._by_lane(sources):
                    self._enter(lane, Answers(np.array(offsets, np.int64), at, are_decisions))
            if at >= next_report:
                next_report = at + PROGRESS_S
                self._progress(self.report, self._outstanding)

    def _decisions(self, records: Sequence[ConsumerRecord]) -> Iterator[tuple[str, int, int]]:
        """Topic, partition and offset of the event of each decision."""
        for record in records:
            with suppress(msgspec.DecodeError, ValueError):
                topic, partition, offset = self._decode(record.value or b"").decision_id.rsplit(":", 2)
                yield topic, int(partition), int(offset)

    def _dead_letters(self, records: Sequence[ConsumerRecord]) -> Iterator[tuple[str, int, int]]:
        for record in records:
            letter = deadletter.decode(record.headers)
            if isinstance(letter, deadletter.DeadLetter):
                yield letter.source.topic, letter.source.partition, letter.offset

    def _by_lane(self, sources: Iterator[tuple[str, int, int]]) -> list[tuple[_Lane, list[int]]]:
        """The offsets of our topic's events, by lane."""
        offsets: dict[int, list[int]] = {}
        for topic, partition, offset in sources:
            if topic == self._settings.events_topic and 0 <= partition < len(self._lanes):
                offsets.setdefault(partition, []).append(offset)
        return [(self._lanes[partition], found) for partition, found in offsets.items()]

    def _enter(self, lane: _Lane, answers: Answers) -> None:
        since_due, since_sent = lane.outstanding.answered(answers)
        self.report.since_due.add(since_due)
        self.report.since_sent.add(since_sent)
        if answers.are_decisions:
            self.report.decided += len(since_due)
        else:
            self.report.dead_lettered += len(since_due)
        if len(since_due):
            self._last_answer = max(self._last_answer, answers.at)

    async def _drain(self, reading: asyncio.Task[None]) -> None:
        """Wait until everything is answered, or no answer came for `drain_s`."""
        deadline = time.monotonic() + self._plan.drain_s
        while self._outstanding and time.monotonic() < max(deadline, self._last_answer + self._plan.drain_s):
            await asyncio.wait([reading], timeout=POLL_MS / 1000)
            if reading.done():
                break
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


@asynccontextmanager
async def _open_sender(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that sends each event exactly once, so that a retry is not taken for a new event."""
    producer = AIOKafkaProducer(
        **connection(settings), acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES, linger_ms=0
    )
    try:
        await producer.start()
        yield producer
    except KafkaError as error:
        raise BrokerError(f"sending to {settings.bootstrap_servers} failed: {error}") from None
    finally:
        await producer.stop()
