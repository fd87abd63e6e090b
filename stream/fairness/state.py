"""What the fairness stage remembers, as records of a compacted topic; each value is one JSON text.

| key | value |
|---|---|
| `topic:partition` | `PartitionState`: how far the partition is counted, and its open panes |
| `topic:partition/index` | `ClosedPane`: a pane of it, written when it closes, deleted when reported for good |
| `reports` | `ReportProgress`: which reports Kafka has acknowledged |

Offset and counts of a partition are in one record, so they cannot disagree: whoever reads it knows exactly which
records are in the counts. A closed pane is written before the state that no longer has it. So the latest record of
every key, which is what compaction leaves at least, has every decision that was counted and not yet reported.
"""

from __future__ import annotations

from typing import Annotated, Self, TypeVar

import msgspec
import numpy as np

from stream.errors import StateError
from stream.events import SCHEMA_VERSION
from stream.fairness.counts import Column, PaneCounts, Row, Version
from stream.fairness.observation import UNREADABLE, Uncounted

__all__ = [
    "MAX_SOURCES",
    "PROGRESS_KEY",
    "WINDOW",
    "ClosedPane",
    "CountedSource",
    "PaneRecord",
    "PartitionState",
    "ReportProgress",
    "StateRecord",
    "pane_key",
]

StateRecord = tuple[bytes, bytes | None]
"""Key and value of a record of the state topic; None deletes the key."""

PROGRESS_KEY = b"reports"

WINDOW = 65_536
"""Offsets of a source that are remembered. A killed worker has published and not committed what it finished in half a
second, 60,000 decisions at the utmost, beside what it had in hand, 32,768 of all partitions; both are settings."""
MAX_SOURCES = 16
"""Partitions of events remembered at a time: a topic of decisions has one, or one for each topic decided into it. In
the state record they take 11 kB each."""

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


class CountedSource(msgspec.Struct, frozen=True):
    """Which decisions of a source, one partition of events, were counted.

    `newest` is the largest offset, `latest` the latest time of an event, in seconds since the epoch. Bit i of
    `counted`, from the lowest bit of the first byte on, is whether a decision of offset `newest - i` was counted.
    """

    source: str
    newest: Annotated[int, msgspec.Meta(ge=0)]
    latest: float
    counted: Annotated[bytes, msgspec.Meta(max_length=WINDOW // 8)]


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """What has been counted of one partition, up to and including the record at `last_offset`.

    Panes below `closed_before` are closed: the watermark is past them by the lateness allowed, and they never change
    again. `panes` are the others. Panes below `dropped_before` miss decisions, which are uncounted. `counted`, `late`
    and `uncounted` account for every record since counting began. `sources` tell repeats from new decisions; the one
    used last is the last.
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
    sources: Annotated[list[CountedSource], msgspec.Meta(max_length=MAX_SOURCES)] = []

    def encode(self) -> bytes:
        """The record's value."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, partition: str, value: bytes) -> Self:
        """Read the record of `partition`; raises `StateError` for a value that cannot be continued from."""
        state = _read(cls, partition, value)
        if state.partition != partition:
            raise _unusable(partition, "it is the state of another partition")
        if not all(pane.is_table() for pane in state.panes):
            raise _unusable(partition, "the cells of a pane are no table")
        return state


class ClosedPane(msgspec.Struct, frozen=True, kw_only=True):
    """A pane that its partition has closed, as it stays."""

    schema_version: int = SCHEMA_VERSION
    partition: str
    pane_s: float
    pane: PaneRecord

    def encode(self) -> bytes:
        """The record's value."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> Self:
        """Read the record of this key; raises `StateError` for a value of no use."""
        name = key.decode("utf-8", "replace")
        closed = _read(cls, name, value)
        if pane_key(closed.partition, closed.pane.index) != key:
            raise _unusable(name, "it is another pane")
        if not closed.pane.is_table():
            raise _unusable(name, "its cells are no table")
        return closed


class ReportProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Which reports Kafka has acknowledged, so that a new merger does not make them all again.

    Panes below `done_before` are reported for good. `reported` are later ones, each with its index and how many
    decisions were in it: reported so far, and again should a partition that was not waited for bring more.
    """

    schema_version: int = SCHEMA_VERSION
    pane_s: float
    done_before: int
    reported: list[tuple[int, Count]]

    def encode(self) -> bytes:
        """The record's value."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Read the record; raises `StateError` for a value of no use."""
        return _read(cls, PROGRESS_KEY.decode(), value)


def pane_key(partition: str, index: int) -> bytes:
    """Key of a closed pane. No topic's name has a slash in it."""
    return f"{partition}/{index}".encode()


_Value = TypeVar("_Value", bound=PartitionState | ClosedPane | ReportProgress)


def _read(kind: type[_Value], name: str, value: bytes) -> _Value:
    try:
        record = msgspec.json.decode(value, type=kind)
    except UNREADABLE as error:
        raise _unusable(name, f"it cannot be read: {error}") from None
    if record.schema_version > SCHEMA_VERSION:
        raise _unusable(name, f"it has schema_version {record.schema_version}, newer than {SCHEMA_VERSION}")
    return record


def _unusable(name: str, why: str) -> StateError:
    return StateError(
        f"the fairness state of {name} is not usable: {why}; upgrade the worker, or delete the record (write a "
        "tombstone for its key) to count anew from the committed offset"
    )
