"""Calls to be compared in, the best time of each out: made in turns, so that a busy minute slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

__all__ = ["best_in_turns"]


def best_in_turns(calls: Sequence[Callable[[], object]], *, rounds: int) -> list[float]:
    """Seconds of the fastest of `rounds` calls of each: what the machine can do when nothing else runs on it."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for number, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - started)
    return best
