"""`fairway broker`: run a real Kafka on this machine until it is told to stop."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from stream.settings import load_settings

__all__ = ["broker"]

# How soon a node that died by itself is noticed and reported.
CHECK_S = 1.0


def broker(
    port: Annotated[int | None, typer.Option(help="First port; 2 x nodes ports from here are used.")] = None,
    nodes: Annotated[int, typer.Option(help="1, or 3 to see failover: 1 GB of memory instead of 350 MB.")] = 1,
    directory: Annotated[Path | None, typer.Option("--dir", help="Data folder; kept between runs.")] = None,
) -> None:
    """Run a real Apache Kafka on this machine, for trying things out. Ctrl-C stops it; the data stays.

    It listens on 127.0.0.1 only and has no authentication. The first start fetches Kafka (42 MB) into the local Maven
    repository; later starts need no network. In production, point FAIRWAY_BOOTSTRAP_SERVERS at your own cluster.
    """
    settings, _ = load_settings({"broker_port": port, "broker_dir": directory})
    from stream.kafka.broker import LocalBroker  # noqa: PLC0415 - `fairway --help` should not pay for the Kafka client

    # Supervisors stop us by SIGTERM, and a script that starts us in the background leaves SIGINT ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    try:
        with LocalBroker(settings.broker_dir, port=settings.broker_port, nodes=nodes, report=typer.echo) as local:
            typer.echo(f"export FAIRWAY_BOOTSTRAP_SERVERS={local.bootstrap_servers}")
            while True:
                time.sleep(CHECK_S)
                local.raise_if_ended()
    except KeyboardInterrupt:
        typer.echo("Kafka stopped")
