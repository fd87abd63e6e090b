"""Rows of the one table, and the table on screen, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, ParamSpec, TypeVar

from rich.table import Table

from stream.errors import FairwayError
from stream.scoring.session import RUNTIME_ERRORS

__all__ = ["Reason", "Report", "Row", "as_json", "as_markdown", "as_table", "attempt"]

Given = ParamSpec("Given")
Found = TypeVar("Found")
Unit = Literal["", "operators", "texts/s", "difference", "share"]

_FORMATS: Final[Mapping[Unit, str]] = {
    "": "",
    "operators": "{:,.0f}",
    "texts/s": "{:,.0f}",
    "difference": "{:.2g}",
    "share": "{:.2%}",
}
_HEADINGS: Final = ("what", "precision", "tokens x rows", "measured", "against", "ratio", "note")

_REFUSALS: Final[tuple[type[Exception], ...]] = (FairwayError, *RUNTIME_ERRORS)

_MOST_CHARACTERS: Final = 300
"""Of an error in a row. The runtime's own name what and which in the first hundred."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, or the reason why there is none; `against` is the other side of a ratio, in the same unit."""

    what: str
    precision: str = ""
    shape: str = ""
    measured: float | None = None
    against: float | None = None
    unit: Unit = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured ÷ against."""
        return None if self.measured is None or not self.against else self.measured / self.against

    def cells(self) -> tuple[str, ...]:
        """As shown, in the order of the headings."""
        measured, against = (
            "" if value is None else _FORMATS[self.unit].format(value) for value in (self.measured, self.against)
        )
        unit = f" {self.unit}" if measured and self.unit in {"operators", "texts/s"} else ""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.what, self.precision, self.shape, measured + unit, against, ratio, self.note


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured in one run, and on what."""

    about: Mapping[str, str | int | bool]
    rows: Sequence[Row]
    is_dry: bool

    @property
    def title(self) -> str:
        """What the table is of; a dry run says that it is one wherever it is seen."""
        if self.is_dry:
            return "DRY RUN ON THE CPU: no figure below says anything about a GPU"
        return f"{self.about['bundle']} on {self.about['gpu']}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something could not be measured, on one line."""

    text: str


def attempt(call: Callable[Given, Found], *args: Given.args, **options: Given.kwargs) -> Found | Reason:
    """What a call gives; where the runtime or the service refuses, why."""
    try:
        return call(*args, **options)
    except _REFUSALS as error:
        return Reason(_one_line(str(error)))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}..."


def as_table(report: Report) -> Table:
    """The table on screen."""
    table = Table(*_HEADINGS, title=report.title, header_style="bold")
    for row in report.rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row.cells()))  # rich reads brackets as styles
    return table


def as_markdown(report: Report) -> str:
    """The same with machine and versions below it."""
    lines = [_HEADINGS, tuple("---" for _ in _HEADINGS), *(row.cells() for row in report.rows)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    about = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in report.about.items())
    return f"# {report.title}\n\n{table}\n\n{about}\n"


def as_json(report: Report) -> str:
    """The same for programs: numbers as measured."""
    rows = [asdict(row) | {"ratio": row.ratio} for row in report.rows]
    return json.dumps({"dry_run": report.is_dry, **report.about, "rows": rows}, indent=2) + "\n"
