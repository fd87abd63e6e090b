"""Decisions into the counts of a pane, in two steps: one number per distinct decision, then all of them at once.

Most decisions are alike (same groups, same action, every harm harmless), so the loop over records only finds out which
distinct decision each is. Spreading a distinct decision over all its rows and columns costs several times as much; it
is done once for each, by a matrix product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.fairness.counts import ALL, DECISIONS, MODERATED, Column, PaneCounts, Row, Version
from stream.fairness.observation import UNREADABLE, Groups, Harms, ObservedDecision, RefusedError, Uncounted

__all__ = ["MAX_GROUPS_BYTES", "OTHER", "GroupReader", "Kind", "kind_of", "spread"]

OTHER = "other"
"""Groups and axes beyond the bounds are counted under this name."""
MAX_AXES = 32
"""Axes counted by name in one pane: twice what one event may have."""
MAX_COLUMNS = 256
"""Columns in one pane: 64 harms of three selections each, and more actions than a policy can have."""
MAX_GROUPS_BYTES = 16_384
"""A decision with more bytes of groups is not counted: thousands that differ may wait in memory to be spread."""

MAX_REMEMBERED = 8192
"""Distinct values of `groups` that a reader remembers the rows of: some 20 MB."""
MAX_REMEMBERED_BYTES = 512
"""Longer ones are read each time: ordinary ones have below 200 bytes."""


class Kind(msgspec.Struct, frozen=True, gc=False):
    """All that is counted of one decision: two decisions of equal kind are one decision seen twice."""

    groups: bytes
    bundle: str | None
    policy: str | None
    action: str
    moderated: bool
    harms: Harms | None


def kind_of(decision: ObservedDecision) -> Kind:
    """What is counted of a decision; raises `RefusedError` where its groups are too long."""
    groups = bytes(decision.groups)
    if len(groups) > MAX_GROUPS_BYTES:
        raise RefusedError(Uncounted.TOO_MANY_NAMES)
    return Kind(groups, decision.bundle, decision.policy, decision.action, decision.moderated, decision.harms)


class GroupReader:
    """Reads the groups of decisions into the rows they are counted in, remembering what it read."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(Groups).decode
        self._known: dict[bytes, tuple[Row, ...]] = {}

    def read(self, groups: bytes) -> tuple[Row, ...]:
        """Everything, each axis that has groups, and each group, once; raises `RefusedError` for other bytes."""
        known = self._known.get(groups)
        if known is None:
            known = self._rows(groups)
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            if len(groups) <= MAX_REMEMBERED_BYTES:
                self._known[groups] = known
        return known

    def _rows(self, groups: bytes) -> tuple[Row, ...]:
        try:
            axes = self._decode(groups) or {}
        except UNREADABLE:
            raise RefusedError(Uncounted.SCHEMA_ERROR) from None
        named = (row for axis, names in axes.items() if names for row in (Row(axis), *(Row(axis, n) for n in names)))
        return tuple(dict.fromkeys((ALL, *named)))


def spread(
    times: Mapping[Kind, int], counts: PaneCounts, *, reader: GroupReader, max_groups: int
) -> Counter[Uncounted]:
    """Add each kind of decision, as often as it was seen, to one pane; return what could not be counted, and why.

    Groups are named in the order they are first seen until `max_groups` have a name; the rest count as `other`. So a
    merge of partitions is independent of the split as long as no pane has more than `max_groups` groups.
    """
    uncounted: Counter[Uncounted] = Counter()
    rows, outcomes = _Rows(counts, max_groups), _Outcomes(counts)
    members: list[int] = []
    counted: list[tuple[int, int, int]] = []  # per kind: how many members, which outcome, how often
    versions: set[tuple[str | None, str | None]] = set()
    for kind, count in times.items():
        try:
            belongs, outcome = rows.of(kind.groups, reader), outcomes.of(kind)
        except RefusedError as refused:
            uncounted[refused.reason] += count
        else:
            members += belongs
            counted.append((len(belongs), outcome, count))
            versions.add((kind.bundle, kind.policy))
    if counted:
        columns, incidence = outcomes.incidence()
        sizes, outcome_of, weights = np.array(counted).T
        seen = np.zeros((len(rows.index), len(incidence)))
        np.add.at(seen, (np.array(members), np.repeat(outcome_of, sizes)), np.repeat(weights, sizes))
        cells = (seen @ incidence).astype(np.int64)  # exact: whole numbers below 2**53
        counts.add(list(rows.index), columns, cells)
        counts.saw(Version(bundle or "", policy or "") for bundle, policy in versions)
    return uncounted


class _Rows:
    """The rows of one pane that decisions belong to."""

    def __init__(self, counts: PaneCounts, max_groups: int) -> None:
        self.index: dict[Row, int] = {}
        self._axes = {row.axis for row in counts.rows if row.axis}
        self._named = {row for row in counts.rows if row.group}
        self._max_groups = max_groups
        self._known: dict[bytes, list[int]] = {}

    def of(self, groups: bytes, reader: GroupReader) -> list[int]:
        """Indices of the rows, distinct; raises `RefusedError` for bytes that are not groups."""
        known = self._known.get(groups)
        if known is None:
            rows = reader.read(groups)
            try:
                known = [self.index[row] for row in rows]  # mostly all have been placed before
            except KeyError:
                known = list(dict.fromkeys(map(self._place, rows)))
            self._known[groups] = known
        return known

    def _place(self, row: Row) -> int:
        """Index of a row, or of that which it has to be counted in for want of room."""
        if row not in self.index:
            if row.axis and row.axis not in self._axes and len(self._axes) >= MAX_AXES:
                row = Row(OTHER, row.group and OTHER)
            if row.group and row not in self._named and len(self._named) >= self._max_groups:
                row = Row(row.axis, OTHER)
            if row.axis:
                self._axes.add(row.axis)
            if row.group:
                self._named.add(row)
        return self.index.setdefault(row, len(self.index))


class _Outcomes:
    """The columns a decision is counted in, found once for each distinct outcome."""

    def __init__(self, counts: PaneCounts) -> None:
        self.index: dict[tuple[object, ...], int] = {}
        self._columns: list[list[Column]] = []
        self._known = set(counts.columns)

    def of(self, kind: Kind) -> int:
        """Index of the outcome; raises `RefusedError` where it would need more columns than a pane may have."""
        outcome = (kind.action, kind.moderated, kind.harms)
        known = self.index.get(outcome)
        if known is None:
            columns = _columns(kind)
            if len(self._known.union(columns)) > MAX_COLUMNS:
                raise RefusedError(Uncounted.TOO_MANY_NAMES)
            self._known.update(columns)
            self._columns.append(columns)
            known = self.index[outcome] = len(self.index)
        return known

    def incidence(self) -> tuple[list[Column], NDArray[np.float64]]:
        """The columns of all outcomes, and (outcomes, columns) float64: 1 where an outcome is counted in a column."""
        index: dict[Column, int] = {}
        for columns in self._columns:
            for column in columns:
                index.setdefault(column, len(index))
        incidence = np.zeros((len(self._columns), len(index)))
        for outcome, columns in enumerate(self._columns):
            incidence[outcome, [index[column] for column in columns]] = 1
        return list(index), incidence


def _columns(kind: Kind) -> list[Column]:
    columns = [DECISIONS, Column("action", kind.action)]
    if kind.moderated:
        columns.append(MODERATED)
    if kind.harms is not None:
        columns += [Column(selection, harm) for harm, selection in kind.harms.selections()]
    return columns
