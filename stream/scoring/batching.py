"""Row lengths in, micro-batches out: which rows one model call takes and to what length they are padded; pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MicroBatch", "length_classes", "micro_batches", "most_rows"]

STEPS = ((32, 4), (64, 8), (128, 16), (512, 32))
"""(up to this length, padded lengths are this far apart): padding stays near an eighth of a row. Finer steps would mean
smaller calls, which cost more than the padding saved."""

COARSE_STEP = 64
"""Distance of padded lengths above the last entry of `STEPS`."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The rows of one model call.

    `rows` is (n,) int64, n at least 1; `length` is the padded length of each; after them come `idle` rows of padding.
    """

    rows: NDArray[np.int64]
    length: int
    idle: int = 0

    def at_least(self, rows: int) -> MicroBatch:
        """The same call with enough idle rows to have `rows` rows."""
        return MicroBatch(self.rows, self.length, max(self.idle, rows - len(self.rows)))

    def smaller(self, *, fewest: int) -> tuple[MicroBatch, ...]:
        """What to try after this call failed, of `fewest` rows or more: no needless idle rows; else halves; or none."""
        count = len(self.rows)
        if count + self.idle > max(count, fewest):
            return (MicroBatch(self.rows, self.length).at_least(fewest),)
        if count == 1:
            return ()
        parts = (self.rows[: count // 2], self.rows[count // 2 :])
        return tuple(MicroBatch(part, self.length).at_least(fewest) for part in parts)


def length_classes(longest: int) -> NDArray[np.int64]:
    """The padded lengths in use, (c,) int64, ascending; the last one is `longest`, the model's window.

    >>> length_classes(40).tolist()
    [4, 8, 12, 16, 20, 24, 28, 32, 40]
    """
    classes: list[int] = []
    length = 0
    while length < longest:
        step = next((step for limit, step in STEPS if length < limit), COARSE_STEP)
        length = min(length + step, longest)
        classes.append(length)
    return np.array(classes, dtype=np.int64)


def most_rows(length: int, *, max_tokens: int) -> int:
    """How many rows of a padded length fit into one call; a single row always does."""
    return max(1, max_tokens // length)


def micro_batches(lengths: NDArray[np.int64], classes: NDArray[np.int64], *, max_tokens: int) -> list[MicroBatch]:
    """Put every row into exactly one micro-batch of rows of its own length class, shortest class first.

    `lengths` is (r,) int64, at most `classes[-1]`. A call holds at most `max_tokens` tokens, padding included, or one
    row. A row's padded length depends on its own length alone: were it the longest of the batch, the order in which the
    runtime adds numbers, and with it the last bits of a score, would depend on the company a text happens to be in.
    """
    class_of_row = np.searchsorted(classes, lengths)
    order = np.argsort(class_of_row, kind="stable")
    ends = np.cumsum(np.bincount(class_of_row, minlength=len(classes)))
    batches: list[MicroBatch] = []
    start = 0
    for length, end in zip(classes.tolist(), ends.tolist(), strict=True):
        most = most_rows(length, max_tokens=max_tokens)
        batches += [MicroBatch(order[at : min(at + most, end)], length) for at in range(start, end, most)]
        start = end
    return batches
