"""Texts as token windows in, logits per text out, read exactly as the service reads them; any model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stream.scoring.batching import MicroBatch, length_classes, micro_batches
from stream.scoring.tokenize import ModelInputs, TokenWindows

__all__ = ["Model", "first_window_calls", "first_windows", "text_logits"]

_BATCH_TOKENS = 2048
"""An encoder is twice as fast with such calls as with the largest that the service may make, and scores are the same
but for what the order of additions in float32 makes."""

_MOST_THREADS = 8
"""Of calls at the same time: each has its own activations, 50 MB for MiniLM."""


class Model(Protocol):
    """Anything that maps the inputs of n rows to their logits, (n, h) float32."""

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """The logits of n rows. Called from several threads at once."""
        ...


def text_logits(model: Model, windows: TokenWindows, *, harms: int) -> NDArray[np.float32]:
    """The logits of t texts, (t, h) float32: the largest over each text's windows, as in the service."""
    logits = np.empty((len(windows.lengths), harms), dtype=np.float32)

    def run(batch: MicroBatch) -> None:
        logits[batch.rows] = model.run(windows.inputs(batch))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
        list(pool.map(run, _batches(windows)))
    return np.asarray(np.maximum.reduceat(logits, windows.windows.firsts))


def first_windows(windows: TokenWindows) -> Iterator[tuple[NDArray[np.int64], ModelInputs]]:
    """Yield text numbers and the inputs of those texts' first windows, until every text was given once."""
    firsts = windows.windows.firsts
    for batch in first_window_calls(windows):
        yield np.searchsorted(firsts, batch.rows), windows.inputs(batch)


def first_window_calls(windows: TokenWindows) -> list[MicroBatch]:
    """The calls that read every text's first window, shortest first; nothing is laid out yet."""
    is_first = np.zeros(len(windows.lengths), dtype=np.bool_)
    is_first[windows.windows.firsts] = True
    kept = ((batch.rows[is_first[batch.rows]], batch.length) for batch in _batches(windows))
    return [MicroBatch(rows, length) for rows, length in kept if len(rows)]


def _batches(windows: TokenWindows) -> list[MicroBatch]:
    return micro_batches(windows.lengths, length_classes(int(windows.lengths.max())), max_tokens=_BATCH_TOKENS)
