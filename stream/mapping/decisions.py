"""Decisions of a foreign shape, for the fairness stage, which also works on decisions that were not made here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from stream.errors import MappingError
from stream.mapping import load_mapping

__all__ = ["decision_converter"]


def decision_converter(path: Path, *, max_depth: int) -> Callable[[bytes], bytes | None]:
    """Load a mapping that turns a foreign record into a decision, or into None where it does not map.

    Raises `MappingError` where the file cannot be used or maps to something else.
    """
    mapping = load_mapping(path)
    if mapping.kind != "decision":
        raise MappingError(f"{mapping.name}: maps events; the fairness stage needs a mapping with `kind: decision`")
    return partial(mapping.convert, max_depth=max_depth)
