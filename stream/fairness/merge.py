"""The state records of all partitions into reports: each pane is reported when every partition has closed it.

**When a pane closes.** A partition says up to where it has closed its panes; a pane is closed for all when the slowest
partition has closed it. A partition whose watermark has not moved for `idle_s` seconds of the caller's clock holds
nobody back. When all are idle the stream has stopped, and every pane is reported as it is. Should a partition bring
more decisions of a pane that was reported without it, the report is made again, with a larger `revision`, once that
partition has closed the pane or is idle again.

**After a restart.** Feed the merger the whole state topic, then ask what is due. Closed panes are in records of their
own until `acknowledged` deletes them, and which later ones are reported is in a record too. So it makes the reports
that Kafka has not acknowledged, whatever compaction has left of older records, and hardly any other. One that is made
again has the key and the value it had, but for `basis`, so that it changes nothing.
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
from stream.fairness.state import (
    PROGRESS_KEY,
    ClosedPane,
    PaneRecord,
    PartitionState,
    ReportProgress,
    StateRecord,
    pane_key,
)

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
    """What is known of one partition: its latest state, and its closed panes."""

    state: PartitionState | None = None
    open: dict[int, PaneRecord] = field(default_factory=dict)
    closed: dict[int, PaneRecord] = field(default_factory=dict)
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
            self.open, self.closed, self.closed_before = {}, {}, int((state.watermark or 0) // pane_s) + 1
            self.lost_before = self.closed_before
        else:
            if state.dropped_before > self.closed_before:
                self.lost_before = state.dropped_before
            self.open = {pane.index: pane for pane in state.panes}
            self.closed_before = state.closed_before
        self.state = state

    def is_idle(self, now: float, idle_s: float) -> bool:
        """Whether the watermark has stood still for too long to be waited for."""
        if self.has_advanced:
            self.has_advanced, self.advanced_at = False, now
        return now - self.advanced_at >= idle_s

    def pane(self, index: int) -> PaneRecord | None:
        """A pane as it is now: a closed one is written before the state that no longer has it."""
        return self.closed.get(index) or self.open.get(index)


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
        self._deletable: list[bytes] = []  # keys of panes below
        self._progress = b""  # as it was last written
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

    def update(self, key: bytes, value: bytes | None) -> None:
        """Take a record of the state topic."""
        try:
            if key == PROGRESS_KEY:
                self._resume(value)
            elif b"/" in key:
                self._update_pane(key, value)
            else:
                self._update_state(key.decode("utf-8", "replace"), value)
        except StateError:
            self._unreadable += 1

    def _update_state(self, name: str, value: bytes | None) -> None:
        """Take a partition's state; a tombstone makes the partition as if it had never been."""
        if value is None:
            self._partitions.pop(name, None)
        else:
            state = PartitionState.decode(name, value)
            self._partitions.setdefault(name, _Partition()).take(state, self._pane_s)

    def _update_pane(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            return  # reported for good: by us, or by a merger whose progress is known
        closed = ClosedPane.decode(key, value)
        if closed.pane_s == self._pane_s:
            self._partitions.setdefault(closed.partition, _Partition()).closed[closed.pane.index] = closed.pane

    def _resume(self, value: bytes | None) -> None:
        """Go on where another merger was, or this one: what it says was acknowledged, and stays so."""
        progress = ReportProgress.decode(value or b"")
        if progress.pane_s == self._pane_s:
            self._floor = max(self._floor, progress.done_before)
            for index, decisions in progress.reported:
                self._reported[index] = max(decisions, self._reported.get(index, 0))

    def due(self, now: float) -> list[tuple[bytes, bytes]]:
        """Keys and values of the reports to publish, oldest pane first; `now` is in seconds of any steady clock.

        A value that is published twice does no harm; one that is not published is not offered again. Call
        `acknowledged` when Kafka has all of them.
        """
        awaited = [p.closed_before for p in self._partitions.values() if not p.is_idle(now, self._reporting.idle_s)]
        return self._report(min(awaited, default=math.inf))

    def finish(self) -> list[tuple[bytes, bytes]]:
        """Reports of all that has not been reported, as when a stream has ended."""
        return self._report(math.inf)

    def acknowledged(self) -> list[StateRecord]:
        """Take note that every report returned so far is published; return records for the state topic that say so.

        Write them in this order: what is done first, then that its panes are deleted.
        """
        progress = ReportProgress(
            pane_s=self._pane_s, done_before=self._floor, reported=sorted(self._reported.items())
        ).encode()
        records: list[StateRecord] = [(PROGRESS_KEY, progress)] if progress != self._progress else []
        self._progress = progress
        records += [(key, None) for key in self._deletable]
        self._deletable = []
        return records

    def _report(self, closed_before: float) -> list[tuple[bytes, bytes]]:
        """Report the panes below, where they have changed since; then let go of those that cannot change any more."""
        partitions = self._partitions.values()
        self._floor = max([self._floor, *(partition.lost_before for partition in partitions)])
        crowded_out = self._crowded_out()
        published = []
        for index in sorted(self._held()):
            if self._floor <= index < max(closed_before, crowded_out):
                published += self._reports(index)
        closed_by_all = min((partition.closed_before for partition in partitions), default=0)
        self._forget(max(crowded_out, closed_by_all))
        self.waiting_s = self._waiting() * self._pane_s
        return published

    def _waiting(self) -> float:
        """Panes between the oldest that is closed somewhere and in no report, and the latest that is closed."""
        closed_before = max((partition.closed_before for partition in self._partitions.values()), default=0)
        held = {index for index in self._held() if index >= self._floor}
        return closed_before - min((held - self._reported.keys()) | {closed_before})

    def _held(self) -> set[int]:
        """The panes that are in some partition."""
        return set().union(*(partition.open | partition.closed for partition in self._partitions.values()))

    def _reports(self, index: int) -> list[tuple[bytes, bytes]]:
        held = [pane for partition in self._partitions.values() if (pane := partition.pane(index)) is not None]
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
        waiting = sorted(set().union(*(partition.closed for partition in self._partitions.values())))
        return waiting[-MAX_WAITING_PANES] if len(waiting) > MAX_WAITING_PANES else 0

    def _forget(self, before: int) -> None:
        self._floor = max(self._floor, before)
        for name, partition in self._partitions.items():
            done = [index for index in partition.closed if index < self._floor]
            self._deletable += [pane_key(name, index) for index in done]
            for index in done:
                del partition.closed[index]
        self._reported = {index: n for index, n in self._reported.items() if index >= self._floor}
