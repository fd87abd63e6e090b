"""The fairness stage: decisions in, counts per partition and reports of all partitions together out.

Two steps in one consumer group. Whoever has a partition of the decisions topic counts it and writes its state and its
closed panes to `fairness.state`. Whoever has the one partition of `fairness.state` merges all of these, writes reports,
and when Kafka has acknowledged them, what is reported; panes that are reported for good it deletes.

A partition's state says how far it has counted, and that, not the committed offset, is where a new owner goes on: state
and position are one record, so every record of the decisions topic counts once whatever is killed and whenever. A
decision that a killed moderate worker wrote twice is two records; `stream.fairness.repeats` knows the second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from stream.errors import BrokerError
from stream.events import SourceRecord
from stream.fairness import FairnessCounter, FairnessMerger
from stream.fairness.state import StateRecord
from stream.kafka.clients import open_admin
from stream.kafka.conveyor import Conveyor
from stream.kafka.ledger import Partition
from stream.kafka.publisher import Load, OutRecord
from stream.kafka.reading import Bounds, open_reader, partitions, read, snapshot
from stream.settings import Settings
from stream.telemetry import FairnessMetrics

__all__ = ["FairnessStage"]

COUNT_AT_ONCE = 4096
"""Records counted between two looks at whether a snapshot is due."""


class FairnessStage:
    """Counts and merges. Its state belongs to the assignment: `start_offsets` makes it anew after every rebalance."""

    def __init__(
        self,
        settings: Settings,
        metrics: FairnessMetrics,
        *,
        counter: Callable[[str, bytes | None], FairnessCounter],
        merger: Callable[[Sequence[str]], FairnessMerger],
    ) -> None:
        """`counter` makes one from a partition's name and latest state, `merger` one from all partitions' names."""
        self._settings, self._metrics, self._new_counter, self._new_merger = settings, metrics, counter, merger
        self._state = Partition(settings.fairness_state_topic, 0)
        self._reports = Partition(settings.reports_topic, 0)
        self._counters: dict[Partition, FairnessCounter] = {}
        self._merger: FairnessMerger | None = None
        self._acknowledged = False
        """Whether all that the last `tick` gave is."""
        metrics.watch(
            open_panes=lambda: sum(counting.open_panes for counting in self._counters.values()),
            merge_lag_s=lambda: self._merger.waiting_s if self._merger else 0.0,
        )

    async def start_offsets(self, assigned: Iterable[Partition]) -> Mapping[Partition, int]:
        """Load the state of the partitions that are ours now; return where to read on."""
        mine = list(assigned)
        # In a thread of its own: the admin client blocks.
        found = await asyncio.to_thread(self._read, merging=self._state in mine) if mine else _Found({}, None, 0)
        counted = [partition for partition in mine if partition.topic == self._settings.decisions_topic]
        counters = {p: self._new_counter(_name(p), found.states.get(_name(p))) for p in counted}
        self._counters = counters
        self._merger = found.merger
        starts = {partition: counter.next_offset for partition, counter in counters.items() if counter.next_offset}
        return starts | ({self._state: found.end} if self._merger else {})

    def run(self, partition: Partition, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        """Count decisions, or take what others have counted into the merger."""
        if partition == self._state:
            return self._merge(records)
        counter, states = self._counters[partition], list[StateRecord]()
        before = counter.outcomes
        for start in range(0, len(records), COUNT_AT_ONCE):
            if counter.snapshot_due:
                states += counter.snapshot()
            counter.count(records[start : start + COUNT_AT_ONCE])
        states += counter.snapshot()
        self._metrics.records_counted(counter.outcomes - before)
        return {self._state: _load(states)}

    async def report_for_ever(self, conveyor: Conveyor) -> None:
        """Write the reports that are due, one round after the other: of a round that is acknowledged the next says so.

        Reports are made nowhere else, so that what is acknowledged is known.
        """
        while True:
            await asyncio.sleep(self._settings.snapshot_s)
            self._acknowledged = await conveyor.offer(self.tick)

    def tick(self) -> Mapping[Partition, Load]:
        """The reports that are due, and what the acknowledgement of the last ones has done with."""
        merger = self._merger  # the event loop may put another one in its place
        if merger is None:
            return {}
        done = merger.acknowledged() if self._acknowledged else []
        due = merger.due(time.monotonic())
        self._metrics.reports_written(len(due))
        return {self._state: _load(done), self._reports: _load(due)}

    def refused(
        self,
        record: SourceRecord,
        output: OutRecord,  # noqa: ARG002 - as `Stage` has it
        *,
        source: Partition,
        destination: Partition,
    ) -> tuple[Partition, OutRecord]:
        """Raise `BrokerError`: states and reports are bounded, so a topic that refuses one is not set up right."""
        raise BrokerError(
            f"{destination.topic} refuses a record made from {source.topic}-{source.partition} offset {record.offset}; "
            "run `fairway topics check`"
        )

    def _merge(self, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        if self._merger is None:
            raise RuntimeError(f"records of {self._state} came to a worker that does not own it; this is a bug")
        for record in records:
            if record.key is not None:
                self._merger.update(record.key, record.value)
        return {}

    def _read(self, *, merging: bool) -> _Found:
        """Read the whole state topic, which is compacted and small; for whoever merges, into a new merger as well."""
        admin = open_admin(self._settings)
        try:
            count = partitions(admin, self._settings, self._settings.decisions_topic)
            bounds = snapshot(admin, self._settings, self._state.topic)[0]
        finally:
            admin.close()
        names = [_name(Partition(self._settings.decisions_topic, number)) for number in range(count)]
        merger = self._new_merger(names) if merging else None
        return _Found(asyncio.run(self._replay(bounds, names, merger)), merger, bounds.end)

    async def _replay(self, bounds: Bounds, names: Container[str], merger: FairnessMerger | None) -> dict[str, bytes]:
        """The latest state of each of these partitions that has one. The merger gets every record."""
        latest: dict[str, bytes | None] = {}
        async with open_reader(self._settings) as reader:
            async for records in read(reader, self._state, [bounds]):
                for record in records:
                    if record.key is None:
                        continue
                    name = record.key.decode("utf-8", "replace")
                    if name in names:
                        latest[name] = record.value
                    if merger is not None:
                        merger.update(record.key, record.value)
        return {name: value for name, value in latest.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Found:
    """What the state topic holds: the latest state by partition name, all of it merged, and where the topic ended."""

    states: Mapping[str, bytes]
    merger: FairnessMerger | None
    end: int


def _name(partition: Partition) -> str:
    return f"{partition.topic}:{partition.partition}"


def _load(records: Iterable[tuple[bytes, bytes | None]]) -> Load:
    """Send keys and values. All of them answer for the unit as a whole; its first record stands for it."""
    out: list[OutRecord] = [(key, value, []) for key, value in records]
    return Load(out, [0] * len(out))
