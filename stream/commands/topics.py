"""`fairway topics`: create the topics the service needs, or say how those that are there differ."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.kafka.layout import Finding, Level
from stream.settings import load_settings

__all__ = ["check", "create"]

Servers = Annotated[str | None, typer.Option(help="Kafka brokers, host:port separated by commas.")]


def create(
    partitions: Annotated[int | None, typer.Option(help="Partitions of the content topics.")] = None,
    replication: Annotated[int | None, typer.Option(help="Replicas of each topic; 3 in production.")] = None,
    alter: Annotated[bool, typer.Option("--alter", help="Mend existing topics too; never the events topic.")] = False,
    bootstrap_servers: Servers = None,
) -> None:
    """Create the topics that are missing. Running it again changes nothing."""
    settings, _ = load_settings(
        {"partitions": partitions, "replication": replication, "bootstrap_servers": bootstrap_servers}
    )
    from stream.kafka import topics  # noqa: PLC0415 - `fairway --help` should not pay for the Kafka client

    changes = topics.create(settings, alter=alter)
    for change in changes:
        typer.echo(change)
    if not changes:
        typer.echo("all topics are there; `fairway topics check` says whether they are as they must be")


def check(bootstrap_servers: Servers = None) -> None:
    """Say what about the topics differs from what the service needs, and what mends it. Exit status 1 on an error."""
    settings, _ = load_settings({"bootstrap_servers": bootstrap_servers})
    from stream.kafka import topics  # noqa: PLC0415 - `fairway --help` should not pay for the Kafka client

    findings = topics.inspect(settings)
    for finding in findings:
        _print(finding)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    typer.echo(f"{errors} errors, {len(findings) - errors} warnings at {settings.bootstrap_servers}")
    if errors:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    """Print lines, not a table: the command that mends it is to be copied."""
    color = typer.colors.RED if finding.level is Level.ERROR else typer.colors.YELLOW
    typer.echo(f"{typer.style(finding.level.value, fg=color)}  {finding.topic}: {finding.what}\n    -> {finding.mend}")
