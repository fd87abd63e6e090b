"""Decisions into counts, in two steps: a number for each decision, then all of them at once.

Many decisions have the same groups, and many the same outcome (action, selections, versions). The loop over records
only finds out which of the known groups and outcomes a decision has, and keeps that as one number. Spreading a decision
over all its rows and columns costs several times as much; that is done for thousands together, by a matrix product.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.fairness.counts import ALL, DECISIONS, MODERATED, Column, PaneCounts, Row, Version
from stream.fairness.observation import UNREADABLE, Groups, Harms, ObservedDecision, RefusedError, Uncounted

__all__ = ["OTHER", "Tally"]

OTHER = "other"
"""Groups and axes beyond the bounds are counted under this name."""
MAX_AXES = 32
"""Axes counted by name in one pane: twice what one event may have."""
MAX_COLUMNS = 256
"""Columns in one pane: 64 harms of three selections each, and more actions than a policy can have."""
MAX_PENDING = 65_536
"""Decisions kept as numbers before they are counted: enough to spare the work, in some 2 MB."""
MAX_KNOWN_BYTES = 32 * 1024 * 1024
"""Memory for the groups known at a time: 17,000 combinations of groups on three axes."""
ROW_BYTES = 256
"""What a row takes in memory, about."""
OUTCOME_BITS = 13
MAX_OUTCOMES = 1 << OUTCOME_BITS
"""Outcomes known at a time, some 10 MB; a bundle of six harms and two policies has two thousand that are likely."""

_Cell = TypeVar("_Cell", Row, Column)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """All that is counted of a decision but its groups."""

    bundle: str | None
    policy: str | None
    action: str
    moderated: bool
    harms: Harms | None

    @property
    def version(self) -> Version:
        """What made the decision."""
        return Version(self.bundle or "", self.policy or "")

    def columns(self) -> list[Column]:
        """The columns it is counted in; they are distinct."""
        columns = [DECISIONS, Column("action", self.action)]
        if self.moderated:
            columns.append(MODERATED)
        if self.harms is not None:
            columns += [Column(selection, harm) for harm, selection in self.harms.selections()]
        return columns


class Tally:
    """Counts of decisions by pane, complete after `settle`. Class of state: SUM.

    Groups are named in the order they are first seen in a pane until `max_groups` have a name; the rest count as
    `other`. So a merge of partitions does not depend on the split as long as no pane has more than `max_groups` groups.
    """

    def __init__(self, *, max_groups: int) -> None:
        self.panes: dict[int, PaneCounts] = {}
        self.counted = 0
        self.uncounted: Counter[Uncounted] = Counter()
        self._max_groups = max_groups
        self._pending: defaultdict[int, list[int]] = defaultdict(list)
        self._decode = msgspec.json.Decoder(Groups).decode
        self._begin()

    def number(self, decision: ObservedDecision) -> int:
        """The number that stands for what is counted of a decision; raises `RefusedError` for groups that are none.

        Numbers hold until the next call.
        """
        groups = bytes(decision.groups)
        outcome = Outcome(decision.bundle, decision.policy, decision.action, decision.moderated, decision.harms)
        group_number, outcome_number = self._groups.get(groups), self._outcomes.get(outcome)
        if group_number is None or outcome_number is None:
            return self._learn(groups, outcome)
        return group_number << OUTCOME_BITS | outcome_number

    def add(self, pane: int, number: int) -> None:
        """Count a decision of this number in a pane."""
        self._pending[pane].append(number)

    def settle_many(self) -> None:
        """Settle if there is much to settle."""
        if sum(map(len, self._pending.values())) > MAX_PENDING:
            self.settle()

    def settle(self) -> None:
        """Bring the counts up to date."""
        for index, numbers in self._pending.items():
            self._spread(self.panes.setdefault(index, PaneCounts()), np.array(numbers, dtype=np.int64))
        self._pending.clear()

    def _begin(self) -> None:
        self._groups: dict[bytes, int] = {}
        self._rows: list[tuple[Row, ...]] = []  # by the number of the groups
        self._known_bytes = 0
        self._outcomes: dict[Outcome, int] = {}

    def _learn(self, groups: bytes, outcome: Outcome) -> int:
        """Give numbers to groups and outcome; when too many have one, count all that is pending and begin anew."""
        if self._known_bytes >= MAX_KNOWN_BYTES or len(self._outcomes) >= MAX_OUTCOMES:
            self.settle()
            self._begin()
        group_number = self._groups.get(groups)
        if group_number is None:
            rows = self._read(groups)
            group_number = self._groups[groups] = len(self._rows)
            self._rows.append(rows)
            self._known_bytes += len(groups) + len(rows) * ROW_BYTES
        return group_number << OUTCOME_BITS | self._outcomes.setdefault(outcome, len(self._outcomes))

    def _read(self, groups: bytes) -> tuple[Row, ...]:
        """Everything, each axis that has groups, and each group: once."""
        try:
            axes = self._decode(groups) or {}
        except UNREADABLE:
            raise RefusedError(Uncounted.SCHEMA_ERROR) from None
        named = (row for axis, names in axes.items() if names for row in (Row(axis), *(Row(axis, n) for n in names)))
        return tuple(dict.fromkeys((ALL, *named)))

    def _spread(self, counts: PaneCounts, numbers: NDArray[np.int64]) -> None:
        """Count decisions, (m,) int64 numbers in the order of their records, in one pane."""
        pairs, first, times = np.unique(numbers, return_index=True, return_counts=True)
        order = np.argsort(first)  # names are given in the order of the records
        pairs, times = pairs[order], times[order]
        groups, group_at = _distinct(pairs >> OUTCOME_BITS)
        known, (numbered, outcome_at) = list(self._outcomes), _distinct(pairs & (MAX_OUTCOMES - 1))
        outcomes = [known[number] for number in numbered]
        rows, members = _index(_named([self._rows[group] for group in groups], counts, self._max_groups))
        columns, counted_in = _index(_fitting([outcome.columns() for outcome in outcomes], counts))
        fits = np.array([bool(column_at) for column_at in counted_in])
        counted = int(times[fits[outcome_at]].sum())
        self.counted += counted
        self.uncounted[Uncounted.TOO_MANY_NAMES] += len(numbers) - counted
        seen = _scatter(members, group_at, outcome_at, times, shape=(len(rows), len(outcomes)))
        counts.add(rows, columns, seen @ _incidence(counted_in, len(columns)))
        counts.saw(outcome.version for outcome, counts_here in zip(outcomes, fits, strict=True) if counts_here)


def _scatter(
    members: Sequence[Sequence[int]],
    group_at: NDArray[np.int64],
    outcome_at: NDArray[np.int64],
    times: NDArray[np.int64],
    *,
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """How often each outcome was seen in each row, (rows, outcomes) int64.

    The p pairs of groups and outcome, (p,) each, were seen `times`; `members` are the rows of the groups.
    """
    seen = np.zeros(shape, dtype=np.int64)
    sizes = np.array([len(rows) for rows in members])[group_at]
    row_at = np.array([row for group in group_at.tolist() for row in members[group]])
    np.add.at(seen, (row_at, np.repeat(outcome_at, sizes)), np.repeat(times, sizes))
    return seen


def _incidence(counted_in: Sequence[Sequence[int]], columns: int) -> NDArray[np.int64]:
    """Which outcome is counted in which column, (outcomes, columns) int64 of 0 and 1."""
    incidence = np.zeros((len(counted_in), columns), dtype=np.int64)
    for outcome, column_at in enumerate(counted_in):
        incidence[outcome, column_at] = 1
    return incidence


def _distinct(numbers: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int64]]:
    """The distinct ones of (m,) numbers, in the order they come in, and which of these each of the m is."""
    position: dict[int, int] = {}
    at = [position.setdefault(number, len(position)) for number in numbers.tolist()]
    return list(position), np.array(at, dtype=np.int64)


def _index(items: Sequence[Sequence[_Cell]]) -> tuple[list[_Cell], list[list[int]]]:
    """The distinct cells of all items, and for each item which of these it has."""
    index: dict[_Cell, int] = {}
    has = [[index.setdefault(cell, len(index)) for cell in item] for item in items]
    return list(index), has


def _fitting(outcomes: Sequence[Sequence[Column]], counts: PaneCounts) -> list[Sequence[Column]]:
    """The columns of each outcome; none where the pane would have too many."""
    known = set(counts.columns)
    fitting: list[Sequence[Column]] = []
    for columns in outcomes:
        fits = len(known.union(columns)) <= MAX_COLUMNS
        known.update(columns if fits else ())
        fitting.append(columns if fits else ())
    return fitting


def _named(groups: Sequence[Sequence[Row]], counts: PaneCounts, max_groups: int) -> list[Sequence[Row]]:
    """The rows of each combination of groups, under `other` where the pane has no more names to give."""
    axes = {row.axis for row in counts.rows}
    names = {row for row in counts.rows if row.group}

    def name(row: Row) -> Row:
        if row.axis and row.axis not in axes and len(axes) > MAX_AXES:
            row = Row(OTHER, row.group and OTHER)
        if row.group and row not in names and len(names) >= max_groups:
            row = Row(row.axis, OTHER)
        axes.add(row.axis)
        names.update({row} if row.group else ())
        return row

    named: list[Sequence[Row]] = []
    known = set(counts.rows)
    for rows in groups:
        if not known.issuperset(rows):  # mostly all have been named before
            rows = tuple(dict.fromkeys(map(name, rows)))  # noqa: PLW2901
            known.update(rows)
        named.append(rows)
    return named
