"""Token counts in, overlapping windows out: how a text longer than the model's window is read; pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Windows", "lay_windows"]


@dataclass(frozen=True, slots=True)
class Windows:
    """r windows over the content tokens of t texts, which lie one after another in one array.

    `starts` and `lengths` are (r,) int64, in tokens; `firsts` is (t,) int64, the first window of each text, whose
    windows are consecutive; `counts` is (t,) int64, at least 1; `cut` is (t,) bool, True where tokens are in no window.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    firsts: NDArray[np.int64]
    counts: NDArray[np.int64]
    cut: NDArray[np.bool_]


def lay_windows(tokens: NDArray[np.int64], *, width: int, overlap: int, max_windows: int) -> Windows:
    """Lay windows of at most `width` tokens, `overlap` of them shared with the window before, over every text.

    `tokens` is (t,) int64, the number of content tokens of each text. The first `max_windows` windows of a text are
    kept. A text without tokens has one empty window: the model still says something about it.

    >>> lay_windows(np.array([7]), width=4, overlap=1, max_windows=8).starts.tolist()
    [0, 3]
    """
    step = width - overlap
    needed = 1 + np.maximum(tokens - width + step - 1, 0) // step
    counts = np.minimum(needed, max_windows)
    firsts = np.cumsum(counts) - counts
    text = np.repeat(np.arange(len(tokens)), counts)
    into_text = (np.arange(len(text)) - firsts[text]) * step
    return Windows(
        starts=(np.cumsum(tokens) - tokens)[text] + into_text,
        lengths=np.minimum(tokens[text] - into_text, width),
        firsts=firsts,
        counts=counts,
        cut=needed > max_windows,
    )
