"""A comparison in, tables for a terminal and files to keep out; what was compared is named by its ids, never shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from export.measuring.compare import Comparison, Difference, PartChange
from export.measuring.metrics import Interval
from export.reporting.page import NOT_ENOUGH, html_page, html_table, section
from export.reporting.report import write_files

__all__ = ["Table", "comparison_tables", "write_comparison"]

_SHOWN = 10  # ids named in a terminal; the file has all of them


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, column names and rows."""

    heading: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def comparison_tables(comparison: Comparison) -> Iterable[Table]:
    """The tables to show, the most telling first."""
    share = len(comparison.changes) / comparison.items
    items = f"{comparison.modality}s"
    yield Table(
        f"Quality ({comparison.labels} labels)",
        ("harm", "figure", "n", "harmful", "first", "second", "second - first", "95 % interval"),
        [_difference(row) for row in comparison.differences],
    )
    yield Table(
        "Probabilities and answers by harm",
        ("harm", "mean size of change", "answers changed"),
        [(harm, f"{comparison.moved[harm]:.4f}", f"{comparison.reselected[harm]:,}") for harm in comparison.harms],
    )
    yield Table(
        f"Decisions: {len(comparison.changes):,} of {comparison.items:,} {items} change ({share:.2%})",
        ("first", "second", items),
        [(*pair, f"{count:,}") for pair, count in comparison.actions.items()],
    )
    yield Table(
        "For whom: change of the share that is not allowed straight away",
        (
            "part",
            "n",
            "stricter",
            "milder",
            "harmless",
            "change",
            "95 % interval",
            "harmful",
            "change",
            "95 % interval",
        ),
        [_part(row) for row in comparison.parts],
    )
    yield Table(
        f"{items.capitalize()} that changed most",
        ("id", "first", "second", "largest change of a probability"),
        [(change.id, change.first, change.second, f"{change.moved:.3f}") for change in comparison.changes[:_SHOWN]],
    )


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write a page, the tables as JSON, and one line per changed item. Raises `ExportError`."""
    tables = {name: value for name, value in asdict(comparison).items() if name != "changes"}
    tables["actions"] = [[*pair, count] for pair, count in comparison.actions.items()]
    body = [
        html_table(("", ""), [("first", comparison.first), ("second", comparison.second)]),
        *(section(table.heading, html_table(table.header, table.rows)) for table in comparison_tables(comparison)),
    ]
    changes = "".join(json.dumps(asdict(change), ensure_ascii=False) + "\n" for change in comparison.changes)
    write_files(
        folder,
        {
            "index.html": html_page("Comparison of two bundles", body).encode(),
            "comparison.json": (json.dumps(tables, indent=1, ensure_ascii=False) + "\n").encode(),
            "changes.jsonl": changes.encode("utf-8", "replace"),
        },
    )


def _difference(row: Difference) -> tuple[str, ...]:
    return (
        row.harm,
        row.figure,
        f"{row.n:,}",
        f"{row.positives:,}",
        f"{row.first:.4f}",
        f"{row.second:.4f}",
        f"{row.difference:+.4f}",
        _interval(row.interval),
    )


def _part(row: PartChange) -> tuple[str, ...]:
    return (
        row.part,
        f"{row.n:,}",
        f"{row.stricter:,}",
        f"{row.milder:,}",
        f"{row.harmless:,}",
        _signed(row.harmless_not_allowed),
        _interval(row.harmless_interval),
        f"{row.harmful:,}",
        _signed(row.harmful_not_allowed),
        _interval(row.harmful_interval),
    )


def _signed(value: float | None) -> str:
    return NOT_ENOUGH if value is None else f"{value:+.4f}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:+.4f} to {interval.high:+.4f}"
