"""The state record: everything one partition's counts are, as one JSON value that a restart continues from.

It is written to a compacted topic under the partition's name. Offset and counts are in the same record, so they cannot
disagree: whoever reads it knows exactly which records are in the counts.
"""

from __future__ import annotations

from typing import Annotated, Self

import msgspec
import numpy as np

from stream.errors import StateError
from stream.events import SCHEMA_VERSION
from stream.fairness.counts import Column, PaneCounts, Row, Version
from stream.fairness.observation import UNREADABLE, Uncounted

__all__ = ["PaneRecord", "PartitionState"]

# Whole numbers up to here are exact in JSON readers that use floats, and sums of them fit 64 bits.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class PaneRecord(msgspec.Struct, frozen=True):
    """The counts of one pane of one partition: `PaneCounts` in an order that does not depend on how they came about.

    The pane with index i holds the decisions created in [i * pane_s, (i + 1) * pane_s) seconds since the epoch. Row r,
    column c of `cells` counts the decisions of `rows[r]` (axis, group) and `columns[c]` (kind, name).
    """

    index: int
    decisions: Count
    rows: list[Row]
    columns: list[Column]
    cells: list[list[Count]]
    versions: list[Version]

    @classmethod
    def of(cls, index: int, counts: PaneCounts) -> Self:
        """Put a pane's counts in order."""
        rows, columns = sorted(counts.rows), sorted(counts.columns)
        order = np.ix_([counts.rows[row] for row in rows], [counts.columns[column] for column in columns])
        cells: list[list[int]] = counts.cells[order].tolist()
        return cls(index, counts.decisions, rows, columns, cells, sorted(counts.versions))

    def counts(self) -> PaneCounts:
        """The counts; the inverse of `of`."""
        counts = PaneCounts()
        counts.add(self.rows, self.columns, np.array(self.cells, dtype=np.int64))
        counts.saw(self.versions)
        return counts

    def is_table(self) -> bool:
        """Whether the cells are a table of the rows and columns, each of which is there once."""
        shaped = len(self.cells) == len(self.rows) and all(len(row) == len(self.columns) for row in self.cells)
        return shaped and len(set(self.rows)) == len(self.rows) and len(set(self.columns)) == len(self.columns)


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """What has been counted of one partition, up to and including the record at `last_offset`.

    Panes below `closed_before` are closed: the watermark is past them by the lateness allowed, and they never change
    again. Panes below `dropped_before` have been closed and are no longer in the record. `counted`, `late` and
    `uncounted` account for every record since counting began.
    """

    schema_version: int = SCHEMA_VERSION
    partition: str
    last_offset: int
    pane_s: float
    watermark: float | None
    closed_before: int
    dropped_before: int
    counted: Count
    late: Count
    uncounted: dict[Uncounted, Count]
    panes: list[PaneRecord]

    def encode(self) -> bytes:
        """The record's value."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, partition: str, value: bytes) -> Self:
        """Read the record of `partition`; raises `StateError` for a value that cannot be continued from."""
        try:
            state = msgspec.json.decode(value, type=cls)
        except UNREADABLE as error:
            raise _unusable(partition, f"it cannot be read: {error}") from None
        if state.schema_version > SCHEMA_VERSION:
            raise _unusable(partition, f"it has schema_version {state.schema_version}, newer than {SCHEMA_VERSION}")
        if state.partition != partition:
            raise _unusable(partition, "it is the state of another partition")
        if not all(pane.is_table() for pane in state.panes):
            raise _unusable(partition, "the cells of a pane are no table")
        return state


def _unusable(partition: str, why: str) -> StateError:
    return StateError(
        f"the fairness state of {partition} is not usable: {why}; upgrade the worker, or delete the record (write a "
        "tombstone for its key) to count anew from the committed offset"
    )
