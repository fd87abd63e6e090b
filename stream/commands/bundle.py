"""`fairway bundle`: is this folder the bundle it says it is, and what does that bundle promise?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stream.bundle import BundleDescription, describe, load

__all__ = ["show", "verify"]

Folder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]


def verify(path: Folder = Path("models/lite")) -> None:
    """Check every file of a bundle against its manifest, as a worker does; exit code 2 where one is not as listed."""
    bundle = load(path)
    typer.echo(f"{path} is {bundle.manifest.name} {bundle.manifest.version}, whole and unchanged: {bundle.digest}")


def show(path: Folder = Path("models/lite")) -> None:
    """Show what a bundle is and how good it was measured to be. In a pipe: one line per fact, tab-separated."""
    description = describe(load(path))
    facts = _facts(description)
    header, rows = _harms(description)
    console = Console()
    if not console.is_terminal:
        for fact in facts:
            typer.echo("\t".join(fact))
        for row in (header, *rows):
            typer.echo("\t".join(row))
        return
    console.print(_table(("", ""), facts, show_header=False))
    console.print(_table(header, rows))
    console.print("Figures are of the test split, human labels; ECE beside that of a perfect model at this n.")


def _facts(description: BundleDescription) -> list[tuple[str, str]]:
    return [
        ("bundle", f"{description.name} {description.version}"),
        ("digest", description.digest),
        ("calibration", description.calibration_digest),
        ("created", description.created_at.isoformat()),
        ("built by", description.code_version),
        ("size", f"{description.bytes / 1e6:.2f} MB in {description.files} files"),
        ("providers", ", ".join(description.providers)),
        ("roles", ", ".join(description.roles)),
        ("window", description.window),
        ("trained on", f"{description.training_rows} texts from {description.training_sources} sources"),
    ]


def _harms(description: BundleDescription) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("harm", "positives", "n", "average precision", "AUROC", "ECE", "ECE if perfect", "to calibrate")
    rows = [
        (
            harm.harm,
            str(harm.positives),
            str(harm.n),
            *map(_figure, (harm.average_precision, harm.auroc, harm.ece, harm.ece_null)),
            f"{harm.calibration_harmful:.0f}",
        )
        for harm in description.harms
    ]
    return header, rows


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(
    header: tuple[str, ...], rows: list[tuple[str, ...]] | list[tuple[str, str]], *, show_header: bool = True
) -> Table:
    table = Table(show_header=show_header, header_style="bold", box=None, pad_edge=False)
    for at, name in enumerate(header):
        table.add_column(name, justify="left" if at == 0 or not show_header else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
