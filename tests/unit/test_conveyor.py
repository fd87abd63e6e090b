"""The conveyor: slices in, outputs in order, and an acknowledgement for what is really finished and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError, NotLeaderForPartitionError, TopicAuthorizationFailedError

from stream.errors import BrokerError
from stream.events import SourceRecord
from stream.kafka.conveyor import Conveyor
from stream.kafka.ledger import UNIT_MAX_BYTES, Ledger, Partition, Slice, size_of
from stream.kafka.publisher import Load, OutRecord, Publisher
from stream.telemetry import Telemetry
from tests.batches import Broker
from tests.spine import records

SOON_S = 10.0
EXTRA = Partition("extra", 0)


class Clock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


class Echo:
    """Sends on what it gets. `hold` stops its thread until it is set; a record with the value `bug` is one."""

    def __init__(self) -> None:
        self.on_run: Callable[[Sequence[SourceRecord]], None] = lambda _records: None
        self.units: list[tuple[int, list[int]]] = []
        self.refusals: list[tuple[int, OutRecord, Partition, Partition]] = []
        self.hold = threading.Event()
        self.hold.set()

    def run(self, partition: Partition, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        self.units.append((partition.partition, [record.offset for record in records]))
        assert self.hold.wait(SOON_S)
        self.on_run(records)
        if any(record.value == b"bug" for record in records):
            raise RuntimeError("a bug")
        return {Partition("out", partition.partition): load(*(record.value or b"" for record in records))}

    def refused(
        self, record: SourceRecord, output: OutRecord, *, source: Partition, destination: Partition
    ) -> tuple[Partition, OutRecord]:
        self.refusals.append((record.offset, output, source, destination))
        return EXTRA, (b"key", b"instead", [])


def load(*values: bytes) -> Load:
    return Load([(b"key", value, []) for value in values], range(len(values)))


@dataclass
class Line:
    """A running conveyor with everything around it."""

    stage: Echo
    broker: Broker
    ledger: Ledger
    conveyor: Conveyor
    ends: dict[int, int] = field(default_factory=dict)

    def fetch(
        self, count: int = 1, *, partition: int = 0, value: bytes | None = None, size: int | None = None
    ) -> Slice:
        """The next records of a partition, as the transport opens them."""
        start = self.ends.get(partition, 0)
        self.ends[partition] = start + count
        values = [value or b"%d" % offset for offset in range(start, start + count)]
        read = records(values, start=start)
        size_bytes = sum(map(size_of, read)) if size is None else size * count
        piece = Slice(Partition("in", partition), read, self.ledger.epoch, size_bytes)
        self.ledger.open(piece)
        return piece

    def submit(self, count: int = 1, **options: Any) -> None:
        self.conveyor.submit(self.fetch(count, **options))

    @property
    def sizes(self) -> list[int]:
        return [len(offsets) for _, offsets in self.stage.units]

    def out(self, partition: int = 0) -> list[int]:
        return [int(value) for value in self.broker.logs[Partition("out", partition)]]

    async def idle(self) -> None:
        await until(lambda: not self.conveyor.is_busy)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(broker: Broker | None = None, *, max_records: int = 30, **options: Any) -> AsyncIterator[Line]:
    stage, ledger, broker = Echo(), Ledger(), broker or Broker()
    telemetry = Telemetry()
    publisher = Publisher(lambda: broker, on_round=telemetry.round_published)
    options = {"drain_s": SOON_S, "gather_s": 0.0} | options
    conveyor = Conveyor(stage, publisher, ledger, telemetry, max_records=max_records, **options)
    await conveyor.start()
    try:
        yield Line(stage, broker, ledger, conveyor)
    finally:
        stage.hold.set()
        await conveyor.stop()


def go(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_everything_arrives_in_order() -> None:
    """Slices of several partitions come out complete, each partition in its order, and all of it may be committed."""

    async def run() -> None:
        async with running() as line:
            for number in range(60):
                line.submit(1 + number % 7, partition=number % 3)
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await line.idle()
            for partition, end in line.ends.items():
                assert line.out(partition) == list(range(end))
            assert line.ledger.committable() == {Partition("in", p): end for p, end in line.ends.items()}
            assert line.ledger.is_empty

    go(run)


def test_long_records_make_short_units() -> None:
    """Slices are worked on together up to a size in bytes as well, however few records they are."""

    async def run() -> None:
        async with running(max_records=30) as line:
            for _ in range(4):
                line.submit(2, size=UNIT_MAX_BYTES // 5)
            await line.idle()
            assert line.sizes == [4, 4]

    go(run)


@pytest.mark.parametrize(
    ("given", "units"),
    [
        ([10, 10, 10, 10], [30, 10]),
        ([20, 20, 5], [20, 25]),
        ([50, 1, 1], [30, 22]),
        ([70], [30, 30, 10]),
        ([1], [1]),
    ],
)
def test_slices_are_worked_on_together(given: list[int], units: list[int]) -> None:
    """Waiting slices of a partition make one unit, of at most so many records; a slice that has more is cut."""

    async def run() -> None:
        async with running(max_records=30) as line:
            for count in given:
                line.submit(count)
            await line.idle()
            assert line.sizes == units

    go(run)


def test_units_are_as_large_as_their_time_allows() -> None:
    """Of slow records a unit has few, of quick ones many; nothing is lost or out of order where slices are cut."""
    clock = Clock()

    async def run() -> None:
        async with running(max_records=64, unit_s=1.0, clock=clock) as line:
            line.stage.on_run = lambda records: clock.pass_by(sum(0.25 if r.offset < 200 else 1e-3 for r in records))
            for _ in range(10):
                line.submit(40)
                line.submit(7, partition=1)
            await line.idle()
            assert line.out() == list(range(400))
            assert line.out(1) == list(range(70))
            assert line.ledger.committable() == {Partition("in", 0): 400, Partition("in", 1): 70}
            assert line.ledger.is_empty
            assert line.ledger.bytes_in_hand == 0
            assert max(line.sizes[:20]) <= 4  # 0.25 s each
            assert max(line.sizes[-20:]) >= 10

    go(run)


def test_another_model_is_begun_with_one_record() -> None:
    """What was learnt of one model is forgotten for the next, and what a unit of the first tells late as well."""
    clock = Clock()

    async def run() -> None:
        async with running(max_records=64, unit_s=1.0, clock=clock) as line:
            for _ in range(10):
                line.submit(64)
                await line.idle()
            assert line.sizes[-1] == 64
            before = len(line.sizes)
            line.stage.hold.clear()
            line.submit(64)
            await until(lambda: sum(line.sizes) == 11 * 64)
            line.conveyor.find_pace_anew()
            line.submit(64)
            line.stage.hold.set()
            await line.idle()
            first, second, third = line.sizes[before:][:3]
            assert (first, second) == (64, 1)
            assert third <= 2
            assert line.out() == list(range(12 * 64))

    go(run)


def test_a_unit_is_of_one_partition() -> None:
    """What waits of one partition is worked on together, whatever came in between, and the longest wait goes first."""

    async def run() -> None:
        async with running() as line:
            for partition in (0, 0, 1, 0, 1, 1):
                line.submit(partition=partition)
            await line.idle()
            assert line.stage.units == [(0, [0, 1, 2]), (1, [0, 1, 2])]

    go(run)


def test_waiting_a_little_makes_larger_units() -> None:
    """With `gather_s` slices that come one after the other are one unit."""

    async def run() -> None:
        async with running(gather_s=0.2) as line:
            for _ in range(10):
                line.submit()
                await asyncio.sleep(0.001)
            await line.idle()
            assert line.sizes == [10]

    go(run)


def test_a_stale_slice_is_not_taken() -> None:
    """Slices that were fetched before the partitions were lost are dropped, wherever they wait, and leave no gap."""

    async def run() -> None:
        async with running() as line:
            line.submit()
            stale = line.fetch()
            line.ledger.revoke_all()
            line.conveyor.submit(stale)
            line.ends[0] = 0
            line.submit(3)
            await line.idle()
            assert line.stage.units == [(0, [0, 1, 2])]
            assert line.ledger.committable() == {Partition("in", 0): 3}

    go(run)


def test_what_was_lost_while_it_was_worked_on_is_not_published() -> None:
    """Outputs of a unit whose partition is lost before it is finished are the new owner's to make."""

    async def run() -> None:
        async with running() as line:
            line.stage.hold.clear()
            line.submit()
            await until(lambda: bool(line.stage.units))
            line.ledger.revoke_all()
            line.stage.hold.set()
            await line.idle()
            assert line.out() == []
            assert line.ledger.committable() == {}

    go(run)


def test_what_waits_for_the_thread_when_its_partition_is_lost_never_runs() -> None:
    """A stage that keeps state has made it anew for the new assignment, and old records must not meet it."""

    async def run() -> None:
        async with running(max_records=1) as line:
            line.stage.hold.clear()
            for _ in range(2):
                line.submit()
            await until(lambda: len(line.stage.units) == 1)
            line.ledger.revoke_all()
            line.stage.hold.set()
            await line.idle()
            assert line.stage.units == [(0, [0])]

    go(run)


def test_a_lost_slice_is_noticed() -> None:
    """A slice that was fetched and never came stops the worker, for a commit would go over it."""

    async def run() -> None:
        async with running() as line:
            line.submit()
            line.fetch()
            with pytest.raises(RuntimeError, match="in-0 was lost between fetch and agent"):
                line.submit()

    go(run)


def test_a_drain_finishes_what_is_started_and_gives_back_the_rest() -> None:
    """What is in the thread is published and acknowledged; what waits is not begun, and stays uncommitted."""

    async def run() -> None:
        async with running(max_records=1) as line:
            line.stage.hold.clear()
            for _ in range(10):
                line.submit()
            await until(lambda: bool(line.stage.units))
            draining = asyncio.create_task(line.conveyor.drain())
            await asyncio.sleep(0)
            line.stage.hold.set()
            await draining
            assert line.out() == [0, 1]
            assert line.ledger.committable() == {Partition("in", 0): 2}
            line.fetch()
            line.submit()  # what was given back left a gap, which is none
            await line.idle()

    go(run)


def test_a_drain_is_bounded() -> None:
    """A stage that hangs is waited for `drain_s` and no longer, and what it gives later is not published."""

    async def run() -> None:
        async with running(drain_s=0.1) as line:
            line.stage.hold.clear()
            line.submit()
            await until(lambda: bool(line.stage.units))
            started = time.monotonic()
            await line.conveyor.drain()
            assert 0.1 <= time.monotonic() - started < SOON_S / 2
            line.ledger.revoke_all()
            line.stage.hold.set()
            await line.idle()
            assert line.out() == []

    go(run)


def test_offered_work_is_done_in_its_turn_and_acknowledges_nothing() -> None:
    """Work that comes from nowhere runs in the stage's thread after what was there before, until it is published."""

    async def run() -> None:
        async with running() as line:
            line.stage.hold.clear()
            line.submit()
            await until(lambda: bool(line.stage.units))
            names: list[str] = []

            def work() -> Mapping[Partition, Load]:
                names.append(threading.current_thread().name)
                return {Partition("out", 0): load(b"99")}

            offered = asyncio.create_task(line.conveyor.offer(work))
            await asyncio.sleep(0.05)
            assert names == []
            line.stage.hold.set()
            assert await offered
            assert line.out() == [0, 99]
            await line.idle()
            assert names[0].startswith("fairway-stage")
            assert line.ledger.committable() == {Partition("in", 0): 1}

    go(run)


def test_offered_work_that_is_lost_with_the_partitions_is_not_taken_for_published() -> None:
    """Whoever offered it learns that it may not have been, and does not wait for ever."""

    async def run() -> None:
        async with running(Broker(lambda _partition, _values: NotLeaderForPartitionError())) as line:
            offered = asyncio.create_task(line.conveyor.offer(lambda: {Partition("out", 0): load(b"99")}))
            await until(lambda: line.broker.renewals > 0)
            assert not offered.done()
            line.ledger.revoke_all()
            assert not await offered

    go(run)


def test_offered_work_that_is_refused_stops_the_worker() -> None:
    """There is no input that something else could be said about."""

    async def run() -> None:
        async with running(Broker(lambda _partition, _values: MessageSizeTooLargeError())) as line:
            offered = asyncio.create_task(line.conveyor.offer(lambda: {Partition("out", 0): load(b"99")}))
            await until(lambda: line.conveyor.crashed)
            offered.cancel()
            assert str(line.conveyor.crash_reason) == "out refuses a record of ours; run `fairway topics check`"

    go(run)


def test_a_bug_stops_the_worker_and_acknowledges_nothing() -> None:
    """When the stage raises, its unit and all after it stay uncommitted, and the reason is the stage's own."""

    async def run() -> None:
        async with running(max_records=1) as line:
            line.submit()
            await line.idle()
            line.submit(value=b"bug")
            line.submit()
            await until(lambda: line.conveyor.crashed)
            assert str(line.conveyor.crash_reason) == "a bug"
            assert line.ledger.committable() == {Partition("in", 0): 1}
            assert line.out() == [0]

    go(run)


def test_what_a_person_must_mend_stops_the_worker() -> None:
    """A broker that will never take anything from us is no reason to go on."""

    async def run() -> None:
        async with running(Broker(lambda _partition, _values: TopicAuthorizationFailedError())) as line:
            line.submit()
            await until(lambda: line.conveyor.crashed)
            assert isinstance(line.conveyor.crash_reason, BrokerError)
            assert line.ledger.committable() == {}

    go(run)


def test_the_stage_says_what_to_send_in_place_of_a_refused_output() -> None:
    """The stage is told which output was refused, whose and where; what it says is sent before the unit is done."""
    broker = Broker(lambda _partition, values: MessageSizeTooLargeError() if b"7" in values else None)

    async def run() -> None:
        async with running(broker) as line:
            line.submit(10, partition=3)
            await line.idle()
            assert line.stage.refusals == [(7, (b"key", b"7", []), Partition("in", 3), Partition("out", 3))]
            assert line.out(3) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
            assert broker.logs[EXTRA] == [b"instead"]
            assert line.ledger.committable() == {Partition("in", 3): 10}

    go(run)


def test_idle_is_not_stuck() -> None:
    """Only a thread that has something to do and returns nothing counts as stuck, and from when it had it."""

    async def run() -> None:
        async with running() as line:
            assert line.conveyor.stuck_s == 0
            line.stage.hold.clear()
            line.submit()
            while line.conveyor.stuck_s == 0:
                await asyncio.sleep(0)
            assert line.conveyor.stuck_s < SOON_S
            line.stage.hold.set()
            await line.idle()
            assert line.conveyor.stuck_s == 0

    go(run)
