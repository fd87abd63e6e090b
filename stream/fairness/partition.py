"""Decisions of one source partition, slice by slice, into counts by pane that a restart continues exactly.

**Watermark.** A partition's watermark is the latest `created_at` seen in it. A pane is closed when the watermark is
`lateness_s` past its end. A decision of a closed pane is counted in `late` and nowhere else. Which decisions are late
depends on the order of the partition's records alone, never on how they were sliced or replayed. As long as none is
late, it does not matter either how the records are split into partitions.

**Clock.** No clock is read. A decision that would close a pane is not counted, and closes nothing, where it was created
more than `max_future_s` after its own record was written: one wrong clock must not make everybody else late.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from stream.errors import ConfigError
from stream.events import SourceRecord
from stream.fairness.observation import Converter, DecisionReader, RefusedError, Uncounted
from stream.fairness.repeats import Repeats
from stream.fairness.state import ClosedPane, PaneRecord, PartitionState, StateRecord, pane_key
from stream.fairness.tally import Tally

__all__ = ["CountSettings", "FairnessCounter"]

MAX_OPEN_PANES = 1024
"""`lateness_s` may span this many panes; each is part of every snapshot."""
MAX_CLOSED_PANES = 10
"""Closed panes are written after so many, and leave the memory."""
MAX_CREATED_AT = 253_370_764_800.0
"""The year 9999: later panes have no date to be reported under."""


@dataclass(frozen=True, slots=True)
class CountSettings:
    """How decisions are counted.

    Raises `ConfigError` where the panes that lateness keeps open are too many.
    """

    pane_s: float = 60.0
    """Width of a pane, by event time."""
    lateness_s: float = 300.0
    """A pane stays open this long after the watermark passed its end."""
    max_groups: int = 500
    """Groups counted by name in one pane; the rest count as `other`."""
    max_future_s: float = 300.0
    """A decision may be created this long after its record was written: clocks drift by minutes."""
    max_state_bytes: int = 900_000
    """Records of the state topic are kept below this by dropping panes; Kafka's default limit is 1,048,588."""

    def __post_init__(self) -> None:
        if self.lateness_s / self.pane_s > MAX_OPEN_PANES:
            raise ConfigError(
                f"lateness_s ({self.lateness_s:g}) spans more than {MAX_OPEN_PANES} panes of pane_s ({self.pane_s:g}): "
                "raise pane_s or lower lateness_s"
            )


class FairnessCounter:
    """Counts the decisions of one source partition.

    Class of state: SUM in the counts, so partitions merge; the watermark and what is late are the partition's own.

    `partition` is its name, `topic:partition`, or that of a pipe. `state` is the value of the latest record of that
    name, None to begin anew; raises `StateError` where it cannot be continued from. Continue reading at `next_offset`.
    """

    def __init__(
        self,
        partition: str,
        settings: CountSettings,
        state: bytes | None = None,
        *,
        mapping: Converter | None = None,
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._reader = DecisionReader(mapping)
        self._tally = Tally(max_groups=settings.max_groups)
        self._last_offset = -1
        self._watermark = -math.inf
        self._dropped_before = 0
        self._close_before(0)
        self._late = 0
        self._repeats = None if mapping else Repeats(partition)
        if state is not None:
            self._restore(PartitionState.decode(partition, state))
        self._saved_before = self._closed_before  # panes below are in the records of a snapshot

    @property
    def next_offset(self) -> int:
        """The first offset that is not counted yet; 0 where nothing is."""
        return self._last_offset + 1

    @property
    def open_panes(self) -> int:
        """Panes with decisions that are not closed. Any thread may ask."""
        panes = list(self._tally.panes)  # at once, whatever is counted meanwhile
        return sum(index >= self._closed_before for index in panes)

    @property
    def outcomes(self) -> Counter[str]:
        """What became of all records, as of the last snapshot: `counted`, `late` or a reason of `Uncounted`."""
        uncounted = {str(reason): count for reason, count in self._tally.uncounted.items()}
        return Counter({"counted": self._tally.counted, "late": self._late} | uncounted)

    @property
    def snapshot_due(self) -> bool:
        """Whether so many panes have closed that a snapshot should be written before more is counted."""
        return self._closed_before - self._saved_before > MAX_CLOSED_PANES

    def count(self, records: Sequence[SourceRecord]) -> None:
        """Count a slice, in the order of its offsets. Records that were counted before are passed over, one by one."""
        read, tally, pane_s = self._reader.read, self._tally, self._settings.pane_s
        repeats = self._repeats
        for record in records:
            if record.offset <= self._last_offset:
                continue
            self._last_offset = record.offset
            try:
                decision = read(record.value)
                number = tally.number(decision)
                created_at = decision.created_at.timestamp()
                if created_at >= self._closes_at:
                    self._pass(created_at, record.timestamp)
            except RefusedError as refused:
                tally.uncounted[refused.reason] += 1
                continue
            if repeats is not None and not repeats.is_new(decision.decision_id, created_at):
                tally.uncounted[Uncounted.REPEATED] += 1
                continue
            if created_at > self._watermark:  # noqa: PLR1730 - a call of max() for every record costs 3 %
                self._watermark = created_at
            pane = int(created_at // pane_s)
            if pane < self._closed_before:
                self._late += 1
            else:
                tally.add(pane, number)
        tally.settle_many()

    def snapshot(self) -> list[StateRecord]:
        """Records for the state topic: each pane that has closed since the last snapshot, then the partition's state.

        Write all of them, in this order. Closed panes leave the memory: the state after them does not have them.
        """
        self._tally.settle()
        closed = [index for index in sorted(self._tally.panes) if index < self._closed_before]
        records = [record for index in closed for record in self._leave(index)]
        value = self._state().encode()
        if len(value) > self._settings.max_state_bytes:
            self._drop(self._first_that_fits(len(value)))
            value = self._state().encode()
        self._saved_before = self._closed_before
        return [*records, (self._partition.encode(), value)]

    def _leave(self, index: int) -> Iterator[StateRecord]:
        """Let go of a closed pane. Its record is what stays, or nothing where that would be too large for Kafka."""
        pane = PaneRecord.of(index, self._tally.panes.pop(index))
        value = ClosedPane(partition=self._partition, pane_s=self._settings.pane_s, pane=pane).encode()
        if len(value) > self._settings.max_state_bytes:
            self._forget(pane.decisions)
            self._dropped_before = index + 1
        else:
            yield pane_key(self._partition, index), value

    def _pass(self, created_at: float, written_at: int | None) -> None:
        """Close the panes that a decision created at this time leaves behind; raises `RefusedError` for a wrong clock.

        `written_at` is the record's own time in ms; None, or negative as Kafka writes it, where it has none.
        """
        settings, latest = self._settings, MAX_CREATED_AT
        if written_at is not None and written_at >= 0:
            latest = min(latest, written_at / 1000 + settings.max_future_s)
        if created_at > latest:
            raise RefusedError(Uncounted.TIMESTAMP)
        self._close_before(int((created_at - settings.lateness_s) // settings.pane_s))

    def _close_before(self, index: int) -> None:
        self._closed_before = index
        self._closes_at = (index + 1) * self._settings.pane_s + self._settings.lateness_s

    def _drop(self, before: int) -> None:
        """Close panes and let go of them; their decisions become uncounted."""
        for index in [index for index in self._tally.panes if index < before]:
            self._forget(self._tally.panes.pop(index).decisions)
        self._dropped_before = before
        self._close_before(before)

    def _forget(self, decisions: int) -> None:
        self._tally.counted -= decisions
        self._tally.uncounted[Uncounted.PANE_DROPPED] += decisions

    def _first_that_fits(self, size: int) -> int:
        """The pane to begin with for a state record of `size` bytes to become small enough."""
        for index, counts in sorted(self._tally.panes.items()):
            if size <= self._settings.max_state_bytes:
                return index
            size -= len(msgspec.json.encode(PaneRecord.of(index, counts))) + 1
        return max(self._tally.panes) + 1

    def _state(self) -> PartitionState:
        return PartitionState(
            partition=self._partition,
            last_offset=self._last_offset,
            pane_s=self._settings.pane_s,
            watermark=None if self._watermark == -math.inf else self._watermark,
            closed_before=self._closed_before,
            dropped_before=self._dropped_before,
            counted=self._tally.counted,
            late=self._late,
            uncounted=dict(sorted((+self._tally.uncounted).items())),  # + leaves zeros out
            panes=[PaneRecord.of(index, counts) for index, counts in sorted(self._tally.panes.items())],
            sources=self._repeats.records() if self._repeats else [],
        )

    def _restore(self, state: PartitionState) -> None:
        self._last_offset = state.last_offset
        self._watermark = -math.inf if state.watermark is None else state.watermark
        self._tally.counted, self._late = state.counted, state.late
        self._tally.uncounted.update(state.uncounted)
        if self._repeats:
            self._repeats = Repeats(self._partition, state.sources)
        if state.pane_s == self._settings.pane_s:
            self._dropped_before = state.dropped_before
            self._close_before(state.closed_before)
            self._tally.panes = {pane.index: pane.counts() for pane in state.panes}
        else:  # no decision can be moved between panes of two widths, and none may count twice
            self._forget(sum(pane.decisions for pane in state.panes if pane.index >= state.closed_before))
            self._dropped_before = int(max(self._watermark, 0) // self._settings.pane_s) + 1
            self._close_before(self._dropped_before)
