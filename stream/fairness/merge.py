"""The state records of all partitions into reports: each pane is reported when every partition has closed it.

**When a pane closes.** A partition says up to where it has closed its panes; a pane is closed for all when the slowest
partition has closed it. A partition whose watermark has not moved for `idle_s` seconds of the caller's clock holds
nobody back. When all are idle the stream has stopped, and every pane is reported as it is. Should a partition bring
more decisions of a pane that was reported without it, the report is made again, with a larger `revision`, once that
partition has closed the pane or is idle again.

**After a restart.** Feed the merger the whole compacted topic, then ask what is due. It makes the reports of every pane
that all partitions still hold anew: the same keys, and the same values but for `basis`, so that publishing them again
changes nothing. A pane that some partition no longer holds is not reported: it was before, and would be incomplete now.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from stream.errors import StateError
from stream.fairness.compare import ReportSettings, reports
from stream.fairness.counts import PaneCounts
from stream.fairness.observation import Uncounted
from stream.fairness.partition import CountSettings
from stream.fairness.report import Basis, report_key
from stream.fairness.state import PaneRecord, PartitionState

__all__ = ["FairnessMerger", "Totals"]

MAX_WAITING_PANES = 512
"""Panes kept for partitions that are behind after the others have dropped them, some 30 MB for four partitions of 40
groups. When there are more, the oldest are reported as they are, and stay so."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Every record of all partitions since counting began is in one of these.

    `unreadable` counts state records that could not be used; the one before each stays in force.
    """

    counted: int
    late: int
    uncounted: dict[Uncounted, int]
    unreadable: int


@dataclass(slots=True)
class _Partition:
    """What is known of one partition: its latest state, and its panes, also those the state no longer holds."""

    state: PartitionState | None = None
    panes: dict[int, PaneRecord] = field(default_factory=dict)
    closed_before: int = 0
    lost_before: int = 0  # panes below may be missing here, or may miss decisions
    has_advanced: bool = True
    advanced_at: float = math.inf

    def take(self, state: PartitionState, pane_s: float) -> None:
        """Go on to a later state; an earlier one, from a worker that has lost the partition, changes nothing."""
        if self.state is not None and state.last_offset < self.state.last_offset:
            return
        self.has_advanced |= self.state is None or state.watermark != self.state.watermark
        if state.pane_s != pane_s:  # counted with other settings, until its worker restarts with these
            self.panes, self.closed_before = {}, int((state.watermark or 0) // pane_s) + 1
            self.lost_before = self.closed_before
        else:
            if state.dropped_before > self.closed_before:
                self.lost_before = state.dropped_before
            self.panes = {index: pane for index, pane in self.panes.items() if index < state.dropped_before}
            self.panes |= {pane.index: pane for pane in state.panes}
            self.closed_before = state.closed_before
        self.state = state

    def is_idle(self, now: float, idle_s: float) -> bool:
        """Whether the watermark has stood still for too long to be waited for."""
        if self.has_advanced:
            self.has_advanced, self.advanced_at = False, now
        return now - self.advanced_at >= idle_s

    def kept(self) -> set[int]:
        """Panes that only the merger still holds."""
        return {index for index in self.panes if self.state is not None and index < self.state.dropped_before}


class FairnessMerger:
    """Merges the counts of partitions and says which reports are to be published.

    Class of state: SUM. `partitions` are names that are waited for even before they have a state, so that the first
    partition to be read is not taken for the only one.
    """

    def __init__(self, counting: CountSettings, reporting: ReportSettings, *, partitions: Iterable[str] = ()) -> None:
        self._pane_s = counting.pane_s
        self._reporting = reporting
        self._partitions = {name: _Partition() for name in partitions}
        self._reported: dict[int, int] = {}  # by pane: the decisions in it when it was last reported
        self._floor = 0  # panes below will not be reported again
        self._unreadable = 0
        self.waiting_s = 0.0
        """Event time that some partition has closed and no report has yet, as of the last time reports were due."""

    @property
    def totals(self) -> Totals:
        """What became of all records."""
        states = [partition.state for partition in self._partitions.values() if partition.state is not None]
        uncounted: Counter[Uncounted] = Counter()
        for state in states:
            uncounted.update(state.uncounted)
        return Totals(
            counted=sum(state.counted for state in states),
            late=sum(state.late for state in states),
            uncounted=dict(sorted(uncounted.items())),
            unreadable=self._unreadable,
        )

    def update(self, key: bytes, snapshot: bytes | None) -> None:
        """Take a record of the state topic; a tombstone makes the partition as if it had never been."""
        name = key.decode("utf-8", "replace")
        if snapshot is None:
            self._partitions.pop(name, None)
            return
        try:
            state = PartitionState.decode(name, snapshot)
        except StateError:
            self._unreadable += 1
            return
        self._partitions.setdefault(name, _Partition()).take(state, self._pane_s)

    def due(self, now: float) -> list[tuple[bytes, bytes]]:
        """Keys and values of the reports to publish, oldest pane first; `now` is in seconds of any steady clock.

        A value that is published twice does no harm; one that is not published is not offered again.
        """
        awaited = [p.closed_before for p in self._partitions.values() if not p.is_idle(now, self._reporting.idle_s)]
        return self._report(min(awaited, default=math.inf))

    def finish(self) -> list[tuple[bytes, bytes]]:
        """Reports of all that has not been reported, as when a stream has ended."""
        return self._report(math.inf)

    def _report(self, closed_before: float) -> list[tuple[bytes, bytes]]:
        """Report the panes below, where they have changed since; then let go of those that cannot change any more."""
        partitions = self._partitions.values()
        self._floor = max([self._floor, *(partition.lost_before for partition in partitions)])
        crowded_out = self._crowded_out()
        published = []
        for index in sorted(set().union(*(partition.panes for partition in partitions))):
            if self._floor <= index < max(closed_before, crowded_out):
                published += self._reports(index)
        closed_by_all = min((partition.closed_before for partition in partitions), default=0)
        self._forget(max(crowded_out, closed_by_all))
        self.waiting_s = self._waiting() * self._pane_s
        return published

    def _waiting(self) -> float:
        """Panes between the oldest that is closed somewhere and in no report, and the latest that is closed."""
        closed_before = max((partition.closed_before for partition in self._partitions.values()), default=0)
        held = set().union(*(partition.panes for partition in self._partitions.values()))
        return closed_before - min((held - self._reported.keys()) | {closed_before})

    def _reports(self, index: int) -> list[tuple[bytes, bytes]]:
        held = [partition.panes[index] for partition in self._partitions.values() if index in partition.panes]
        decisions = sum(pane.decisions for pane in held)
        if decisions == self._reported.get(index):
            return []
        self._reported[index] = decisions
        counts = PaneCounts()
        for pane in held:
            counts.merge(pane.counts())
        made = reports(counts, index, pane_s=self._pane_s, settings=self._reporting, basis=self._basis(index))
        return [(report_key(report), msgspec.json.encode(report)) for report in made]

    def _basis(self, index: int) -> Basis:
        partitions, totals = self._partitions.values(), self.totals
        return Basis(
            partitions=sum(partition.state is not None for partition in partitions),
            waiting=sum(partition.closed_before <= index for partition in partitions),
            late=totals.late,
            uncounted=totals.uncounted,
        )

    def _crowded_out(self) -> int:
        """Panes below have to be reported now, as too many wait here for partitions that are behind."""
        kept = sorted(set().union(*(partition.kept() for partition in self._partitions.values())))
        return kept[-MAX_WAITING_PANES] if len(kept) > MAX_WAITING_PANES else 0

    def _forget(self, before: int) -> None:
        self._floor = max(self._floor, before)
        for partition in self._partitions.values():
            partition.panes = {index: pane for index, pane in partition.panes.items() if index >= self._floor}
        self._reported = {index: n for index, n in self._reported.items() if index >= self._floor}
