"""`fairway load`: send events on a schedule, time the decisions, fail when a stated limit is broken."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from stream.errors import ConfigError
from stream.settings import load_settings

__all__ = ["load", "read_events"]

PERCENTILES = (50, 95, 99)

Results = dict[str, Any]
"""The report as JSON: numbers by name."""


def load(
    path: Annotated[Path, typer.Argument(help="File of events, one JSON object per line.")],
    *,
    rate: Annotated[float, typer.Option(min=0.001, help="Events per second.")] = 1000.0,
    repeat: Annotated[int, typer.Option(min=1, help="Send the file so many times.")] = 1,
    key_field: Annotated[str, typer.Option(help="Field that is the key; events of a key share a partition.")] = "id",
    now: Annotated[bool, typer.Option("--now", help="Set each event's time to when it is sent.")] = False,
    time_field: Annotated[str, typer.Option(help="The field that --now sets.")] = "created_at",
    drain: Annotated[float, typer.Option(help="Once all is sent, wait so many seconds for another answer.")] = 30.0,
    limit_p99_ms: Annotated[float | None, typer.Option(help="Fail when the 99th percentile is above this.")] = None,
    limit_missing: Annotated[int | None, typer.Option(help="Fail when more events than this get no answer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka brokers, host:port separated by commas.")] = None,
) -> None:
    """Send events at a fixed rate and measure the time until each decision can be read.

    The schedule does not wait for answers, and time counts from when an event was due, so a stall shows in every event
    it delayed. Lines are sent as they are: events of a foreign shape need the worker's mapping, not ours. The fields
    named may be nested: `post.id`. Exit status 1 when a limit is broken or the broker did not take an event.
    """
    settings, _ = load_settings({"bootstrap_servers": bootstrap_servers})
    from stream.kafka.load import Plan, run_load  # noqa: PLC0415 - `fairway --help` should not pay for the clients

    report = run_load(
        settings,
        Plan(rate=rate, drain_s=drain),
        lambda partitions: read_events(
            path, partitions, repeat=repeat, key_field=key_field, time_field=time_field if now else None
        ),
        progress=lambda so_far, waiting: typer.echo(
            f"sent {so_far.sent:,}, waiting for {waiting:,}, p99 {so_far.since_due.percentile_s(99) * 1000:.1f} ms",
            err=True,
        ),
    )
    results = _results(report)
    broken = _broken(results, p99_ms=limit_p99_ms, missing=limit_missing)
    if as_json:
        typer.echo(json.dumps(results | {"broken": broken}, indent=2))
    else:
        _print(results)
    for limit in broken:
        typer.secho(limit, fg=typer.colors.RED, err=True)
    if broken:
        raise typer.Exit(1)


def read_events(
    path: Path, partitions: int, *, repeat: int, key_field: str, time_field: str | None
) -> Iterator[tuple[int, bytes | None, bytes]]:
    """Yield partition, key and value of every line, `repeat` times over, reading the file as it goes.

    Events with a key go to the partition that the key's CRC-32 names, others to one after the other. With `time_field`
    that field is set to the time the line is read; without it the line's bytes are sent as they are. Raises
    `ConfigError` for a file that cannot be read or has no lines.
    """
    key_path, time_path = key_field.split("."), time_field.split(".") if time_field else None
    turn = count()
    for _ in range(repeat):
        for value in _lines(path):
            event = _parsed(value)
            name = _holder(event, key_path).get(key_path[-1])
            key = str(name).encode() if isinstance(name, str | int) else None
            if time_path and event:
                _holder(event, time_path)[time_path[-1]] = datetime.now(UTC)
                value = msgspec.json.encode(event)  # noqa: PLW2901 - the line, brought up to date
            yield (zlib.crc32(key) if key is not None else next(turn)) % partitions, key, value


def _lines(path: Path) -> Iterator[bytes]:
    empty = True
    try:
        with path.open("rb") as file:
            for line in file:
                if value := line.rstrip(b"\r\n"):
                    empty = False
                    yield value
    except OSError as error:
        raise ConfigError(f"cannot read events from {path}: {error.strerror}") from None
    if empty:
        raise ConfigError(f"there are no events in {path}: it must have one JSON object per line")


def _parsed(value: bytes) -> dict[str, Any]:
    """The event, or nothing where the line is not one: bad lines are sent too, and come back as dead letters."""
    try:
        event = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return {}
    return event if isinstance(event, dict) else {}


def _holder(event: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The object that holds the field of that path; an empty one, which is not part of the event, if there is none."""
    for name in names[:-1]:
        inner = event.get(name)
        event = inner if isinstance(inner, dict) else {}
    return event


def _results(report: Any) -> Results:  # a LoadReport, whose module is imported when the command runs
    latencies = {
        f"{name}_p{percent}_ms": _milliseconds(histogram.percentile_s(percent))
        for name, histogram in (("since_due", report.since_due), ("since_sent", report.since_sent))
        for percent in PERCENTILES
    }
    return {
        "sent": report.sent,
        "not_acknowledged": report.not_acknowledged,
        "decided": report.decided,
        "dead_lettered": report.dead_lettered,
        "missing": report.missing,
        "duplicated": report.duplicated,
        "stopped_early": report.stopped_early,
        "sent_per_s": round(report.sent_per_s, 1),
        "answered_per_s": round(report.answered_per_s, 1),
        **latencies,
        "since_due_max_ms": _milliseconds(report.since_due.longest_s),
    }


def _milliseconds(seconds: float) -> float | None:
    """JSON has no NaN: None where nothing was measured."""
    return None if seconds != seconds else round(seconds * 1000, 2)  # noqa: PLR0124 - only NaN differs from itself


def _broken(results: Results, *, p99_ms: float | None, missing: int | None) -> list[str]:
    """The limits that do not hold, as sentences."""
    broken = []
    p99 = results["since_due_p99_ms"]
    if p99_ms is not None and (p99 is None or p99 > p99_ms):
        broken.append(f"the 99th percentile is {p99} ms, the limit {p99_ms:g} ms")
    if missing is not None and results["missing"] > missing:
        broken.append(f"{results['missing']} events got no answer, the limit is {missing}")
    if results["not_acknowledged"]:
        broken.append(f"the broker did not acknowledge {results['not_acknowledged']} events")
    if results["stopped_early"]:
        broken.append("the pipeline fell so far behind that the test was stopped")
    return broken


def _print(results: Results) -> None:
    table = Table("", "", show_header=False)
    for name, value in results.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if type(value) in {int, float} else str(value))
    Console().print(table)
