"""The counts of one pane: how many decisions of each kind each group had, as sums that merge exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALL", "DECISIONS", "MAX_VERSIONS", "MODERATED", "Column", "PaneCounts", "Row", "Version"]

MAX_VERSIONS = 16
"""Pairs of bundle and policy a pane remembers: a canary beside a shadow is four; more is a sign, not a list to read."""


class Row(NamedTuple):
    """Whose decisions: a group of an axis, or with an empty `group` all decisions that have the axis at all."""

    axis: str
    group: str = ""


class Column(NamedTuple):
    """Which decisions: a `kind` of count and the action or harm it is about.

    Kinds are `decisions`, `moderated`, `action`, and per harm `harmless`, `abstain` and `harmful`.
    """

    kind: str
    name: str = ""


class Version(NamedTuple):
    """What made a decision: the digests of its bundle and its policy, empty where the decision does not say."""

    bundle: str
    policy: str


ALL = Row("")
"""Every decision of the pane, whether or not it has groups."""
DECISIONS = Column("decisions")
MODERATED = Column("moderated")


class PaneCounts:
    """Counts by `Row` and `Column`, with the versions that made the decisions.

    Class of state: SUM [2.2]. Merging adds element by element, so it is exact, associative and commutative, and any
    split of the same decisions gives the same counts. `cells` is (rows, columns) int64.
    """

    __slots__ = ("cells", "columns", "rows", "versions")

    def __init__(self) -> None:
        self.rows: dict[Row, int] = {}
        self.columns: dict[Column, int] = {}
        self.cells: NDArray[np.int64] = np.zeros((0, 0), dtype=np.int64)
        self.versions: frozenset[Version] = frozenset()

    @property
    def decisions(self) -> int:
        """How many decisions were counted."""
        return int(self.cells[self.rows[ALL], self.columns[DECISIONS]]) if ALL in self.rows else 0

    def add(self, rows: Sequence[Row], columns: Sequence[Column], cells: NDArray[np.int64]) -> None:
        """Add `cells`, (rows, columns) int64; rows and columns are each distinct, and need not be known yet."""
        row_indices = np.array([self.rows.setdefault(row, len(self.rows)) for row in rows], dtype=np.intp)
        column_indices = np.array([self.columns.setdefault(c, len(self.columns)) for c in columns], dtype=np.intp)
        self._grow()
        self.cells[np.ix_(row_indices, column_indices)] += cells

    def saw(self, versions: Iterable[Version]) -> None:
        """Remember versions. One more than the bound is kept, the smallest, so that the union stays associative."""
        self.versions = frozenset(sorted(self.versions.union(versions))[: MAX_VERSIONS + 1])

    def merge(self, other: PaneCounts) -> None:
        """Add another pane's counts to these."""
        self.add(list(other.rows), list(other.columns), other.cells)
        self.saw(other.versions)

    def take(self, rows: Sequence[Row], column: Column) -> NDArray[np.int64]:
        """One column of known rows, (rows,) int64; zeros where nothing of the kind was counted."""
        if column not in self.columns:
            return np.zeros(len(rows), dtype=np.int64)
        taken: NDArray[np.int64] = self.cells[[self.rows[row] for row in rows], self.columns[column]]
        return taken

    def _grow(self) -> None:
        have, want = self.cells.shape, (len(self.rows), len(self.columns))
        if have != want:
            self.cells = np.pad(self.cells, [(0, want[0] - have[0]), (0, want[1] - have[1])])
