"""`fairway audit`: prove from the topics that every event has its one output."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from stream.settings import load_settings

__all__ = ["audit"]

# Wider tables wrap; --json has every partition.
MAX_COLUMNS = 9


def audit(
    wait: Annotated[float, typer.Option(help="Let the worker catch up first, for at most so many seconds.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka brokers, host:port separated by commas.")] = None,
) -> None:
    """Prove that every event in the topic has one decision or dead letter, in order, in its partition.

    Only topics are read: nothing is asked of the workers, and they may go on working. Duplicates with the same decision
    id are what at-least-once delivery allows; they are counted and are no failure. Exit status 1 if anything is
    missing, conflicting, decided and dead-lettered, out of order, for no event, in the wrong partition or unreadable.
    """
    settings, _ = load_settings({"bootstrap_servers": bootstrap_servers})
    from stream.kafka.audit import audit as run  # noqa: PLC0415 - `fairway --help` should not pay for the clients

    report = run(settings, wait_s=wait, report=(lambda _: None) if as_json else typer.echo)
    rows = [asdict(part) for part in (*report.partitions, report.total)]
    if as_json:
        document = {"sound": report.is_sound, "lag": report.lag, "total": rows[-1], "partitions": rows[:-1]}
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(report.total, rows, lag=report.lag)
    if not report.is_sound:
        raise typer.Exit(1)


def _print(total: Any, rows: list[dict[str, Any]], *, lag: int) -> None:
    """A row per count; a column per partition as long as they fit a screen, else only the sums."""
    from stream.kafka.accounts import FAILURES  # noqa: PLC0415 - see above

    shown = rows if len(rows) <= MAX_COLUMNS else rows[-1:]
    names = ("all" if row["partition"] < 0 else str(row["partition"]) for row in shown)
    table = Table("", *names, header_style="bold")
    for name in (f.name for f in fields(total) if f.name not in {"partition", "examples"}):
        broken = name in FAILURES and getattr(total, name)
        table.add_row(name, *(f"{row[name]:,}" for row in shown), style="red" if broken else None)
    console = Console()
    console.print(table)
    for name, coordinates in total.examples.items():
        console.print(f"{name}: for example {', '.join(coordinates)}", style="red", markup=False, highlight=False)
    if lag:
        console.print(f"{lag:,} events were not committed yet when reading began: --wait lets the worker catch up")
    console.print("SOUND" if total.is_sound else "NOT SOUND", style="bold green" if total.is_sound else "bold red")
