"""Carries slices from the agent through a stage to the publisher, in order, and acknowledges them.

    agent ─► submit ─► waiting ─► [one thread: stage.run] ─► publisher ─► broker's acknowledgement ─► ledger.finish

The stage runs in one thread of its own, so that a model call never blocks the event loop; two units are handed to the
thread at a time, so that it never idles while the loop publishes. How large they are, the last ones decide (`Pace`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from mode import Service

from stream.errors import BrokerError
from stream.events import SourceRecord
from stream.kafka.ledger import Ledger, Partition, Slice
from stream.kafka.pace import Pace
from stream.kafka.publisher import Delivery, Load, OutRecord, Publisher

__all__ = ["Conveyor", "Stage", "Unit", "Watcher"]

UNITS_AHEAD = 2
"""Units handed to the thread at a time: one runs, one waits, so that the thread never idles."""

DRAIN_POLL_S = 0.005

OFFER_POLL_S = 0.01
"""Whoever offers work does so every second or so."""


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Consecutive slices of one partition that are worked on and acknowledged together."""

    slices: Sequence[Slice]
    records: Sequence[SourceRecord]
    epoch: int
    """Of the ledger, when the records were fetched: later ones mean that the partition was taken away since."""
    started_at: float
    """Monotonic seconds when it was handed to the thread."""
    pace: Pace
    """What it was made by, and what is told how long it took."""
    published: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the broker has acknowledged all outputs."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What the thread made of a unit, and how long it took."""

    loads: Mapping[Partition, Load]
    seconds: float


class Stage(Protocol):
    """What a worker does with records. Runs in the conveyor's thread; an exception is a bug and stops the worker."""

    def run(self, partition: Partition, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        """Turn records of one partition, in offset order, into outputs."""
        ...

    def refused(
        self, record: SourceRecord, output: OutRecord, *, source: Partition, destination: Partition
    ) -> tuple[Partition, OutRecord]:
        """Say what to send in place of an output of `record` that the broker refuses for ever, and where to.

        Runs on the event loop.
        """
        ...


class Watcher(Protocol):
    """What is told about the work, for metrics."""

    def unit_started(self, records: int, queued_s: float) -> None:
        """A unit was handed to the thread, `queued_s` after its first slice was fetched."""
        ...

    def unit_finished(self, seconds: float) -> None:
        """All outputs of a unit are acknowledged, `seconds` after it was handed to the thread."""
        ...


class Conveyor(Service):
    """Owns the stage's thread and the publisher of one worker."""

    abstract = False
    mundane_level = "debug"

    def __init__(
        self,
        stage: Stage,
        publisher: Publisher,
        ledger: Ledger,
        watcher: Watcher,
        *,
        max_records: int,
        unit_s: float = math.inf,
        gather_s: float = 0.0,
        drain_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`unit_s` is what a unit is to take in the thread, which `clock` measures.

        `gather_s` lets slices collect into larger units; 0 starts each as soon as the thread is free.
        """
        super().__init__()
        self._stage, self._publisher, self._ledger, self._watcher = stage, publisher, ledger, watcher
        self._gather_s, self._drain_s, self._clock = gather_s, drain_s, clock
        self._new_pace = partial(Pace, max_records=max_records, unit_s=unit_s)
        self._pace = self._new_pace()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fairway-stage")
        self._waiting: dict[Partition, deque[Slice]] = {}  # the partition that has waited longest is the first
        self._wake = asyncio.Event()
        self._running: asyncio.Queue[tuple[Unit, asyncio.Future[_Done]]] = asyncio.Queue()
        self._ahead = asyncio.Semaphore(UNITS_AHEAD)
        self._in_thread = 0
        self._last_serial: int | None = None
        self._returned_at = time.monotonic()

    # --- in ------------------------------------------------------------------------------------------------------
    def submit(self, piece: Slice) -> None:
        """Take a slice from the agent. Never waits, so that a cancelled agent cannot lose one halfway."""
        if self._ledger.is_stale(piece):
            self._last_serial = None
            return
        if self._last_serial is not None and piece.serial != self._last_serial + 1:
            raise RuntimeError(
                f"a slice of {piece.partition.topic}-{piece.partition.partition} was lost between fetch and agent; "
                "the worker stops so that it is read again"
            )
        self._last_serial = piece.serial
        self._waiting.setdefault(piece.partition, deque()).append(piece)
        self._wake.set()

    # --- through -------------------------------------------------------------------------------------------------
    @Service.task
    async def _start_units(self) -> None:
        while not self.should_stop:
            await self._wake.wait()
            self._wake.clear()
            if self._gather_s:
                await asyncio.sleep(self._gather_s)
            while self._waiting:
                await self._ahead.acquire()
                unit = self._next_unit()
                if unit is None:
                    self._ahead.release()
                    break
                partition, fetched_at = unit.slices[0].partition, unit.slices[0].fetched_at
                self._watcher.unit_started(len(unit.records), unit.started_at - fetched_at)
                self._hand_over(unit, partial(self._stage.run, partition, unit.records))

    def _next_unit(self) -> Unit | None:
        """Take what waits of the partition that has waited longest, up to the bounds.

        Slices that came in between for other partitions do not end a unit, so that units grow while the thread is busy.
        """
        while self._waiting:
            partition = next(iter(self._waiting))
            queue = self._waiting.pop(partition)
            while queue and self._ledger.is_stale(queue[0]):
                queue.popleft()  # beside a fresh one it would make a stale unit, and nobody reads that one again
            if queue:
                return self._unit_of(partition, queue)
        return None  # withdrawn while we waited for the thread

    def _unit_of(self, partition: Partition, queue: deque[Slice]) -> Unit:
        pace, first = self._pace, queue.popleft()
        rest = self._ledger.cut(first, max_records=pace.records, max_bytes=pace.size_bytes)
        if rest is not None:
            queue.appendleft(rest)
        slices, count, size = [first], len(first.records), first.size_bytes
        while queue:
            count, size = count + len(queue[0].records), size + queue[0].size_bytes
            if count > pace.records or size > pace.size_bytes:
                break
            slices.append(queue.popleft())
        if queue:
            self._waiting[partition] = queue  # behind the others
        records = first.records if len(slices) == 1 else [record for piece in slices for record in piece.records]
        return Unit(slices, records, first.epoch, time.monotonic(), pace)

    def find_pace_anew(self) -> None:
        """Begin with units of one record again: what comes now is worked on by another model.

        What is in the thread, a unit perhaps that the new model works on, was made before, and tells nothing of it.
        """
        self._pace = self._new_pace()

    async def offer(self, work: Callable[[], Mapping[Partition, Load]]) -> bool:
        """Run `work` in the stage's thread, in its turn, and publish what it returns; it acknowledges nothing.

        Returns when the broker has acknowledged all of it. False: partitions were taken away before, so it may not.
        """
        await self._ahead.acquire()
        unit = Unit((), (), self._ledger.epoch, time.monotonic(), self._pace)
        self._hand_over(unit, work)
        while not unit.published.is_set() and unit.epoch == self._ledger.epoch:  # noqa: ASYNC110 - epochs have no event
            await asyncio.sleep(OFFER_POLL_S)
        return unit.published.is_set()

    def _hand_over(self, unit: Unit, work: Callable[[], Mapping[Partition, Load]]) -> None:
        if not self._in_thread:
            self._returned_at = time.monotonic()  # idle until now is not stuck
        self._in_thread += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._run_unless_stale, unit, work)
        self._running.put_nowait((unit, future))

    def _run_unless_stale(self, unit: Unit, work: Callable[[], Mapping[Partition, Load]]) -> _Done:
        """In the thread: a stage with state has made it anew by now, and old records must not meet it."""
        started_at = self._clock()
        loads = work() if unit.epoch == self._ledger.epoch else {}
        return _Done(loads, self._clock() - started_at)

    # --- out -----------------------------------------------------------------------------------------------------
    @Service.task
    async def _collect_units(self) -> None:
        while not self.should_stop:
            unit, future = await self._running.get()
            try:
                done = await future
            except Exception as error:  # noqa: BLE001 - a bug in the stage: stop the worker, nothing acknowledged
                await self.crash(error)
                return
            self._ahead.release()
            self._in_thread -= 1
            self._returned_at = time.monotonic()
            if unit.epoch == self._ledger.epoch:  # else the new owner reads these records again
                if unit.slices:
                    unit.pace.learn(len(unit.records), sum(piece.size_bytes for piece in unit.slices), done.seconds)
                self._publisher.put(self._delivery(unit), done.loads)

    def _delivery(self, unit: Unit) -> Delivery:
        def done() -> None:
            done_at = time.monotonic()
            for piece in unit.slices:
                self._ledger.finish(piece)
            unit.published.set()
            self._watcher.unit_finished(done_at - unit.started_at)

        def refused(destination: Partition, index: int, output: OutRecord) -> tuple[Partition, OutRecord]:
            if not unit.slices:
                raise BrokerError(f"{destination.topic} refuses a record of ours; run `fairway topics check`")
            source = unit.slices[0].partition
            return self._stage.refused(unit.records[index], output, source=source, destination=destination)

        return Delivery(on_done=done, on_refused=refused)

    @Service.task
    async def _publish(self) -> None:
        try:
            await self._publisher.run()
        except Exception as error:  # noqa: BLE001 - what a person must mend: stop the worker, nothing acknowledged
            await self.crash(error)

    # --- drain ---------------------------------------------------------------------------------------------------
    @property
    def is_busy(self) -> bool:
        """True while work is waiting, in the thread or being published."""
        return bool(self._waiting) or self._in_thread > 0 or not self._publisher.is_idle

    @property
    def stuck_s(self) -> float:
        """Seconds since the thread returned something, while it has something to do; else 0."""
        return time.monotonic() - self._returned_at if self._in_thread else 0.0

    async def drain(self) -> None:
        """Give back what is not started and finish what is, for at most `drain_s`; the rest is read again later."""
        self._waiting.clear()
        self._last_serial = None
        deadline = time.monotonic() + self._drain_s
        # Three things must be over, and none of them has an event.
        while self.is_busy and not self.should_stop and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_S)
        self._publisher.abandon()

    async def on_stop(self) -> None:
        """Stop the thread without waiting for a model call that hangs."""
        self._thread.shutdown(wait=False, cancel_futures=True)
