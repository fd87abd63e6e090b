"""How an export says what it is doing."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Say"]

Say = Callable[[str], None]
"""Takes one line for the person who waits; the command line prints it, tests drop it."""
