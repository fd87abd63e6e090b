"""Functional texts of our own writing: `library` reads and expands the templates beside it."""

from __future__ import annotations

from export.functional.library import (
    SOURCE,
    TEMPLATES,
    FunctionalText,
    Library,
    expand,
    read_library,
    to_dataset,
    to_lines,
)

__all__ = ["SOURCE", "TEMPLATES", "FunctionalText", "Library", "expand", "read_library", "to_dataset", "to_lines"]
