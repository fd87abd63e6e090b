"""`fairway export`: handed to the export package, where that is installed; the service itself never imports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import typer

from stream.errors import ConfigError

__all__ = ["GROUP", "export"]

GROUP = "fairway.commands"
"""Entry points of this group are commands that other packages bring."""

_INSTALL = (
    "install it with `pip install 'fairway[export]'`, from a checkout with `make models` or `pip install '.[export]'`"
)


def export(context: typer.Context) -> None:
    """Build, evaluate and compare bundles; `fairway export --help` lists how. Needs the export extra."""
    try:
        raise typer.Exit(_load()(context.args))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "stream":
            raise
        raise ConfigError(f"fairway export needs {error.name}, which is not installed here: {_INSTALL}") from None


def _load() -> Callable[[Sequence[str]], int]:
    found = list(entry_points(group=GROUP, name="export"))
    if not found:
        raise ConfigError(f"fairway export needs the export package, which is not installed here: {_INSTALL}")
    command: Callable[[Sequence[str]], int] = found[0].load()
    return command
