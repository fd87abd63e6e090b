"""`fairway worker`: one process of one stage, until a signal or a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import structlog
import typer

from stream.settings import load_settings
from stream.telemetry import Telemetry, configure_logging

__all__ = ["worker"]

log = structlog.get_logger(__name__)


def worker(
    stage: Annotated[Literal["moderate", "fairness"], typer.Option(help="What this worker does.")] = "moderate",
    bundle: Annotated[Path | None, typer.Option(help="Model bundle, or `stub`.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Mapping file, for events of a foreign shape.")] = None,
    provider: Annotated[str | None, typer.Option(help="cpu, or cuda: refuse to start without CUDA.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka brokers, host:port separated by commas.")] = None,
    web_port: Annotated[int | None, typer.Option(help="Port of /live, /ready and /metrics; 0 for none.")] = None,
) -> None:
    """Run a worker. Start as many as you like; the group shares the partitions among them.

    SIGTERM stops it: work in hand is finished and committed for at most `drain_s`, the rest is read again by whoever
    gets the partitions. Every other setting comes from the environment or fairway.toml: see `fairway config`.
    """
    settings, _ = load_settings(
        {
            "bundle": bundle,
            "policy": policy,
            "mapping": mapping,
            "provider": provider,
            "bootstrap_servers": bootstrap_servers,
            "web_port": web_port,
        }
    )
    configure_logging(settings.log_format, settings.log_level)
    # Imported here: Faust takes half a second, which `fairway --help` should not pay.
    from stream import wiring  # noqa: PLC0415
    from stream.kafka.layout import StageName  # noqa: PLC0415
    from stream.kafka.topics import verify_layout  # noqa: PLC0415
    from stream.kafka.worker import run  # noqa: PLC0415

    telemetry = Telemetry()
    build = {"moderate": wiring.moderate_worker, "fairness": wiring.fairness_worker}[stage]
    handle = build(settings, telemetry)
    for finding in verify_layout(settings, [StageName(stage)]):
        log.warning("topic_layout", finding=str(finding))
    log.info("worker_started", stage=stage, group=handle.app.conf.id, servers=settings.bootstrap_servers)
    run(handle)
