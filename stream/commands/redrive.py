"""`fairway redrive`: send dead letters back once what made them dead is mended."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from stream.events import RejectReason
from stream.settings import load_settings

__all__ = ["redrive"]


def redrive(
    reason: Annotated[RejectReason, typer.Option(help="Which dead letters; `fairway tail dead-letter` shows them.")],
    since: Annotated[
        datetime | None, typer.Option(help="Pass over those written before this time, UTC; later runs do too.")
    ] = None,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="At most so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them and send nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that an earlier run has redriven.")] = False,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka brokers, host:port separated by commas.")] = None,
) -> None:
    """Send dead letters back to the topic and partition they came from: same key, value and headers.

    Each carries how often it was tried, so what fails again shows a higher fairway.dlq.attempts. A consumer group
    remembers how far this got, so running it twice redrives none twice; one run at a time.
    """
    settings, _ = load_settings({"bootstrap_servers": bootstrap_servers})
    from stream.kafka.redrive import redrive as run  # noqa: PLC0415 - `fairway --help` should not pay for the clients

    since = since and since.replace(tzinfo=UTC)
    report = run(settings, reason, since=since, limit=maximum, dry_run=dry_run, again=again)
    verb = "would be redriven" if dry_run else "redriven"
    typer.echo(f"{report.redriven} {verb} to {settings.events_topic}")
    for name, count in asdict(report).items():
        if count and name != "redriven":
            typer.echo(f"{count} left alone: {name.replace('_', ' ')}")
