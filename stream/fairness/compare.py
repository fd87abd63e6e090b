"""The counts of a pane into its reports: each group against the rest, for every axis and quantity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.fairness.counts import DECISIONS, MAX_VERSIONS, MODERATED, Column, PaneCounts, Row
from stream.fairness.gap import gap
from stream.fairness.intervals import Interval, newcombe, rate, risk_ratio, wilson
from stream.fairness.report import Basis, Ends, FairnessReport, GapRecord, GroupRow, Quantity, VersionRecord

__all__ = ["ReportSettings", "reports"]

MAX_REPORT_GROUPS = 1000
"""Groups listed in one report, the largest first to be chosen; with names of ordinary length that is 400 kB."""
SELECTIONS = ("harmless", "abstain", "harmful")
DECIMALS = 6
"""Rates are written to a millionth."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What reports say, and from how many decisions on."""

    min_group_n: int = 50
    """A group with fewer decisions has no rate and is compared with nothing [S20]."""
    confidence: float = 0.95
    """Confidence of every interval, each by itself."""
    group_meaning: str = "as given by the producer"
    """Whose groups they are: of the author, or of those whom the content speaks of or is aimed at. The same rate is an
    over-blocking of a group in the first case, and its protection in the last."""
    idle_s: float = 60.0
    """A partition whose watermark stands still for so long is not waited for."""


def reports(
    counts: PaneCounts, index: int, *, pane_s: float, settings: ReportSettings, basis: Basis
) -> list[FairnessReport]:
    """Make the reports of the pane with this index, `pane_s` wide: none where no decision has groups.

    They depend on the counts alone, not on how these came together.
    """
    start, end = (datetime.fromtimestamp(edge * pane_s, UTC) for edge in (index, index + 1))
    axes = sorted(row for row in counts.rows if row.axis and not row.group)
    return [
        _report(_table(counts, axis.axis, measure), counts, start, end, settings=settings, basis=basis)
        for axis in axes
        for measure in _measures(counts)
    ]


@dataclass(frozen=True, slots=True)
class _Measure:
    """A quantity, and which columns it is the share of which."""

    quantity: Quantity
    counted: Column
    of: tuple[Column, ...]
    action: str | None = None
    harm: str | None = None


@dataclass(frozen=True, slots=True)
class _Table:
    """One measure along one axis: `count` of `n`, (G,) int64 each by group and in all that have the axis."""

    axis: str
    measure: _Measure
    groups: tuple[str, ...]
    count: Counts
    n: Counts
    total_count: int
    total_n: int


def _measures(counts: PaneCounts) -> Iterator[_Measure]:
    columns = sorted(counts.columns)
    for column in columns:
        if column.kind == "action":
            yield _Measure("action_rate", column, (DECISIONS,), action=column.name)
    yield _Measure("moderated_rate", MODERATED, (DECISIONS,))
    for harm in sorted({column.name for column in columns if column.kind in SELECTIONS}):
        selections = tuple(Column(kind, harm) for kind in SELECTIONS)
        yield _Measure("selection_rate", Column("harmful", harm), selections, harm=harm)
        yield _Measure("abstention_rate", Column("abstain", harm), selections, harm=harm)


def _table(counts: PaneCounts, axis: str, measure: _Measure) -> _Table:
    groups = sorted(row for row in counts.rows if row.axis == axis and row.group)
    rows = [Row(axis), *groups]
    count = counts.take(rows, measure.counted)
    n = np.sum([counts.take(rows, column) for column in measure.of], axis=0)
    return _Table(axis, measure, tuple(row.group for row in groups), count[1:], n[1:], int(count[0]), int(n[0]))


def _report(
    table: _Table, counts: PaneCounts, start: datetime, end: datetime, *, settings: ReportSettings, basis: Basis
) -> FairnessReport:
    measure, versions = table.measure, sorted(counts.versions)
    enough = table.total_n >= settings.min_group_n
    interval = wilson([table.total_count], [table.total_n], confidence=settings.confidence)
    groups = _rows(table, settings)
    return FairnessReport(
        pane_start=start,
        pane_end=end,
        revision=counts.decisions,
        axis=table.axis,
        group_meaning=settings.group_meaning,
        quantity=measure.quantity,
        harm=measure.harm,
        action=measure.action,
        confidence=settings.confidence,
        min_group_n=settings.min_group_n,
        pane_n=counts.decisions,
        n=table.total_n,
        count=table.total_count if enough else None,
        rate=round(table.total_count / table.total_n, DECIMALS) if enough else None,
        interval=_ends(interval)[0] if enough else None,
        gap=_gap(table, settings, seed=f"{start} {end} {table.axis} {measure.counted}"),
        groups=groups,
        groups_omitted=len(table.groups) - len(groups),
        versions=[VersionRecord(*version) for version in versions[:MAX_VERSIONS]],
        versions_omitted=len(versions) > MAX_VERSIONS,
        basis=basis,
    )


def _rows(table: _Table, settings: ReportSettings) -> list[GroupRow]:
    """Compare each group with the rest, in the order of names; the largest groups where they are too many."""
    listed = np.sort(np.argsort(-table.n, kind="stable")[:MAX_REPORT_GROUPS])
    count, n = table.count[listed], table.n[listed]
    rest_count, rest_n = table.total_count - count, table.total_n - n
    of_group, against_rest = _of_group(count, n, settings), _against_rest(count, n, rest_count, rest_n, settings)
    enough = n >= settings.min_group_n
    comparable = enough & (rest_n >= settings.min_group_n)
    return [
        GroupRow(
            group=table.groups[group],
            status="ok" if comparable[i] else "not_enough_data",
            n=int(n[i]),
            **{name: values[i] for name, values in of_group.items() if enough[i]},
            **{name: values[i] for name, values in against_rest.items() if comparable[i]},
        )
        for i, group in enumerate(listed)
    ]


def _of_group(count: Counts, n: Counts, settings: ReportSettings) -> dict[str, list[Any]]:
    """Fields of `GroupRow` about the groups alone."""
    return {
        "count": count.tolist(),
        "rate": _numbers(rate(count, n)),
        "interval": _ends(wilson(count, n, confidence=settings.confidence)),
    }


def _against_rest(
    count: Counts, n: Counts, rest_count: Counts, rest_n: Counts, settings: ReportSettings
) -> dict[str, list[Any]]:
    """Fields of `GroupRow` about the groups and their rests."""
    rates, rest_rates, fourfold = rate(count, n), rate(rest_count, rest_n), (count, n, rest_count, rest_n)
    return {
        "rest_n": rest_n.tolist(),
        "rest_rate": _numbers(rest_rates),
        "difference": _numbers(rates - rest_rates),
        "difference_interval": _ends(newcombe(*fourfold, confidence=settings.confidence)),
        "ratio": _numbers(np.divide(rates, rest_rates, out=np.full_like(rates, np.nan), where=rest_rates > 0)),
        "ratio_interval": _ends(risk_ratio(*fourfold, confidence=settings.confidence)),
    }


def _gap(table: _Table, settings: ReportSettings, *, seed: str) -> GapRecord | None:
    enough = table.n >= settings.min_group_n
    found = gap(table.count[enough], table.n[enough], seed=seed)
    if found is None:
        return None
    return GapRecord(
        groups=found.groups,
        difference=round(found.difference, DECIMALS),
        ratio=None if math.isnan(found.ratio) else round(found.ratio, DECIMALS),
        null_median=round(found.null_median, DECIMALS),
    )


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Round for the record; None for what is not a number or not finite."""
    return [value if math.isfinite(value) else None for value in np.round(values, DECIMALS).tolist()]


def _ends(interval: Interval) -> list[Ends | None]:
    ends = zip(_numbers(interval.low), _numbers(interval.high), strict=True)
    return [None if low is None and high is None else (low, high) for low, high in ends]
