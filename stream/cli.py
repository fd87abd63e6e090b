"""The `fairway` command: each command is a function in `stream.commands`; this module names them and reports errors."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from stream import __version__
from stream.commands.audit import audit
from stream.commands.broker import broker
from stream.commands.bundle import keygen
from stream.commands.bundle import show as show_bundle
from stream.commands.bundle import sign as sign_bundle
from stream.commands.bundle import verify as verify_bundle
from stream.commands.config import config
from stream.commands.export import export
from stream.commands.load import load
from stream.commands.monitor import monitor
from stream.commands.policy import check as check_policy
from stream.commands.policy import explain
from stream.commands.redrive import redrive
from stream.commands.schema import schema
from stream.commands.score import score
from stream.commands.tail import tail
from stream.commands.topics import check as check_topics
from stream.commands.topics import create as create_topics
from stream.commands.worker import worker
from stream.errors import FairwayError

__all__ = ["main"]

USAGE_ERROR = 2


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fairway {__version__}")
        raise typer.Exit


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Moderate generated content in Kafka, abstain where the model does not know, watch group fairness.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # its tracebacks print local variables, and those hold content
        add_completion=False,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    ) -> None:
        """Keep the options that come before a command."""

    commands: tuple[Callable[..., None], ...] = (
        worker,
        score,
        monitor,
        load,
        tail,
        audit,
        redrive,
        broker,
        schema,
        config,
    )
    for command in commands:
        app.command()(command)
    # What follows it is for the export package to read, `--help` too.
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(
        export
    )
    _add_group(app, "topics", "The topics a deployment needs.", create=create_topics, check=check_topics)
    _add_group(app, "policy", "What happens to content.", check=check_policy, explain=explain)
    _add_group(
        app, "bundle", "Models as shipped.", sign=sign_bundle, verify=verify_bundle, show=show_bundle, keygen=keygen
    )
    return app


def _add_group(app: typer.Typer, name: str, description: str, **commands: Callable[..., None]) -> None:
    group = typer.Typer(help=description, no_args_is_help=True)
    for verb, command in commands.items():
        group.command(verb)(command)
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line; an error of ours is one message and exit status 2, not a traceback."""
    try:
        _app()()
    except FairwayError as error:
        typer.echo(f"fairway: {error}", err=True)
        sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
