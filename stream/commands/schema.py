"""`fairway schema`: the JSON Schema of each kind of record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.errors import ConfigError
from stream.schemas import KINDS, file_name, render
from stream.yamlfile import did_you_mean

__all__ = ["schema"]


def schema(
    name: Annotated[str | None, typer.Argument(help="Kind of record; without one, the kinds are listed.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write all schemas into this folder instead.")] = None,
) -> None:
    """Print the JSON Schema of a kind of record."""
    if write is not None:
        _write(write)
    elif name is None:
        width = max(map(len, KINDS))
        typer.echo("\n".join(f"{kind:{width}}  {KINDS[kind].title}" for kind in KINDS))
    elif name not in KINDS:
        raise ConfigError(f"there is no schema `{name}`, only {', '.join(KINDS)}{did_you_mean(name, KINDS)}")
    else:
        typer.echo(render(name), nl=False)


def _write(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (folder / file_name(kind)).write_text(render(kind), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write schemas to {folder}: {error.strerror}") from None
    typer.echo(f"{len(KINDS)} schemas in {folder}")
