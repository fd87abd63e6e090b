"""`fairway config`: every setting, its value, where it came from and what it means."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column, Table

from stream.settings import Settings, load_settings

__all__ = ["config"]

UNITS = {
    "_ms": "milliseconds",
    "_s": "seconds",
    "_bytes": "bytes",
    "_records": "records",
    "_tokens": "tokens",
    "_pixels": "pixels",
    "_frames": "frames",
    "_windows": "windows",
}


def config(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every setting: value, where it came from, unit and meaning. Secrets are never printed."""
    settings, origins = load_settings()
    rows = [
        {
            "name": name,
            "value": _shown(getattr(settings, name)),
            "unit": next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), ""),
            "source": origins[name].source,
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row.values()))
        return
    table = Table(Column("setting", no_wrap=True), "value", "unit", "from", "meaning", header_style="bold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def _shown(value: Any) -> str:  # a setting's value may be of any type
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    return "" if value is None else str(value)
