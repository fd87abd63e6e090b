"""`fairway monitor`: the fairness of decisions in a file or a pipe, whoever made them, with no Kafka."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.commands.score import SOURCE, batches
from stream.events import LineRecord
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, FairnessReport, ReportSettings, Totals
from stream.fairness.observation import Converter, Uncounted
from stream.mapping.decisions import decision_converter
from stream.settings import load_settings

__all__ = ["monitor"]

LISTED_GROUPS = 30
"""Groups of one axis in the table: a screen. The reports have all."""
EVER_S = 253_402_300_799.0
"""Width of one pane that holds everything, up to the end of the year 9999."""
TITLES = {
    "action_rate": "what was done",
    "moderated_rate": "what was done",
    "selection_rate": "found harmful",
    "abstention_rate": "abstained on",
}


def monitor(
    pane_s: Annotated[float | None, typer.Option(help="Width of a pane, by the decisions' own time.")] = None,
    lateness_s: Annotated[float | None, typer.Option(help="How far behind a line may be; later ones are late.")] = None,
    min_group_n: Annotated[int | None, typer.Option(help="Smaller groups have not enough data.")] = None,
    group_meaning: Annotated[str | None, typer.Option(help="Whose groups they are; reports repeat it.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Mapping file, for decisions of a foreign shape.")] = None,
) -> None:
    """Read one decision per line from standard input, write one fairness report per line to standard output.

    A table of everything read goes to standard error where that is a terminal. So does what is in no report, in any
    case; where a line could not be counted, the exit status is 1.
    """
    flags = {
        "pane_s": pane_s,
        "lateness_s": lateness_s,
        "min_group_n": min_group_n,
        "group_meaning": group_meaning,
        "mapping": mapping,
    }
    settings, _ = load_settings(flags)
    counting = CountSettings(
        pane_s=settings.pane_s,
        lateness_s=settings.lateness_s,
        max_groups=settings.max_groups,
        max_future_s=settings.max_future_s,
    )
    reporting = ReportSettings(min_group_n=settings.min_group_n, group_meaning=settings.group_meaning)
    convert = (
        None if settings.mapping is None else decision_converter(settings.mapping, max_depth=settings.max_json_depth)
    )
    panes = _Pipe(counting, reporting, convert)
    overall = _Pipe(replace(counting, pane_s=EVER_S), reporting, convert)
    console = Console(stderr=True)
    for records in batches(sys.stdin.buffer, settings.slice_max_records):
        _write(panes.take(records))
        if console.is_terminal:
            overall.take(records)
    _write(panes.finish())
    for table in _tables(overall.finish()):
        console.print(table)
    _account(panes.totals)


class _Pipe:
    """The fairness stage on the one partition that a pipe is, under the name that `fairway score` gives it."""

    def __init__(self, counting: CountSettings, reporting: ReportSettings, mapping: Converter | None) -> None:
        self._counter = FairnessCounter(SOURCE, counting, mapping=mapping)
        self._merger = FairnessMerger(counting, reporting)

    @property
    def totals(self) -> Totals:
        return self._merger.totals

    def take(self, records: Sequence[LineRecord]) -> list[bytes]:
        """Count lines; return the reports of panes that are closed now."""
        self._counter.count(records)
        for key, value in self._counter.snapshot():
            self._merger.update(key, value)
        reports = [report for _, report in self._merger.due(0.0)]
        self._merger.acknowledged()
        return reports

    def finish(self) -> list[bytes]:
        """Return the reports of all other panes."""
        return [report for _, report in self._merger.finish()]


def _write(reports: Iterable[bytes]) -> None:
    sys.stdout.buffer.writelines(report + b"\n" for report in reports)
    sys.stdout.buffer.flush()


def _account(totals: Totals) -> None:
    """Say what is in no report; nothing is dropped in silence."""
    if totals.late:
        typer.echo(
            f"{totals.late:,} of {totals.counted + totals.late:,} decisions were late, and are in no report: "
            "raise --lateness-s or sort the input by created_at",
            err=True,
        )
    uncounted = dict(totals.uncounted)
    if repeated := uncounted.pop(Uncounted.REPEATED, 0):
        typer.echo(f"{repeated:,} lines repeat a decision, by its decision_id; each is counted once", err=True)
    for reason, lines in uncounted.items():
        typer.echo(f"{lines:,} lines could not be counted: {reason.value}", err=True)
    if uncounted:
        raise typer.Exit(1)


def _tables(values: Iterable[bytes]) -> Iterator[Table]:
    """Tables with a row for each group and a column for each action or harm."""
    columns: defaultdict[tuple[str, str], list[FairnessReport]] = defaultdict(list)
    for value in values:
        report = msgspec.json.decode(value, type=FairnessReport)
        columns[report.axis, TITLES[report.quantity]].append(report)
    for (axis, title), reports in columns.items():
        yield _table(f"{axis}: {title}", reports)


def _table(title: str, reports: Sequence[FairnessReport]) -> Table:
    table = Table("", "n", title=_plain(title), title_justify="left", header_style="bold", box=SIMPLE)
    for report in reports:
        table.add_column(_plain(report.action or report.harm or "moderated"), justify="right", overflow="fold")
    rows = [{row.group: row for row in report.groups} for report in reports]
    for group in sorted(rows[0], key=lambda name: -rows[0][name].n)[:LISTED_GROUPS]:
        rates = [column[group].rate for column in rows]
        table.add_row(_plain(group), f"{rows[0][group].n:,}", *map(_percent, rates))
    table.add_section()
    table.add_row("all", f"{reports[0].n:,}", *(_percent(report.rate) for report in reports))
    gaps = [report.gap for report in reports]
    table.add_row("largest gap", "", *(_percent(None if gap is None else gap.difference) for gap in gaps))
    table.add_row("by chance", "", *(_percent(None if gap is None else gap.null_median) for gap in gaps))
    return table


def _percent(rate: float | None) -> str:
    return "too few" if rate is None else f"{rate:.2%}"


def _plain(name: str) -> str:
    """Names come from outside: neither markup nor control sequences may reach the terminal."""
    return escape("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name))
