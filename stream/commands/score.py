"""`fairway score`: the whole pipeline on a file or a pipe, with no Kafka."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from stream.events import LineRecord
from stream.settings import load_settings
from stream.telemetry import configure_logging

__all__ = ["SOURCE", "batches", "score"]

SOURCE = "stdin"
"""Stands where the topic stands in a decision's id."""


def score(
    bundle: Annotated[Path | None, typer.Option(help="Model bundle, or `stub`.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="Mapping file, for events of a foreign shape.")] = None,
    provider: Annotated[str | None, typer.Option(help="cpu, or cuda.")] = None,
) -> None:
    """Read one event per line from standard input, write one decision per line to standard output.

    Lines that can have no decision go to standard error with their number and reason, and make the exit status 1.
    """
    settings, _ = load_settings({"bundle": bundle, "policy": policy, "mapping": mapping, "provider": provider})
    configure_logging(settings.log_format, settings.log_level)  # to standard error: decisions go to standard output
    from stream import wiring  # noqa: PLC0415 - `fairway --help` should not pay for it
    from stream.policy import compile_policy  # noqa: PLC0415

    model = wiring.load_model(settings)
    policy_in_force = compile_policy(settings.policy, model.calibration)
    wiring.refuse_old(settings, model, policy_in_force)
    pipeline = wiring.build_pipeline(settings, model, policy_in_force)
    encoder = wiring.build_encoder(settings, model, pipeline)
    rejections = 0
    for records in batches(sys.stdin.buffer, settings.slice_max_records):
        now = time.time()
        moderated = pipeline.run(records, topic=SOURCE, partition=0, now=now)
        for line in encoder.decisions(moderated, topic=SOURCE, partition=0, now=now):
            sys.stdout.buffer.write(line + b"\n")
        for rejected in moderated.rejected:
            offset = records[rejected.position].offset
            typer.echo(f"line {offset + 1}: {rejected.reason.value}: {rejected.error}", err=True)
        rejections += len(moderated.rejected)
    sys.stdout.buffer.flush()
    if rejections:
        raise typer.Exit(1)


def batches(lines: Iterable[bytes], size: int) -> Iterator[list[LineRecord]]:
    """Number the lines and cut them into lists of at most `size`; a blank line is no record."""
    now_ms = time.time_ns() // 1_000_000
    records = (
        LineRecord(number, line.rstrip(b"\r\n"), timestamp=now_ms) for number, line in enumerate(lines) if line.strip()
    )
    while batch := list(islice(records, size)):
        yield batch
