"""Row lengths in, the batches of an epoch out: rows of one length together, in an order by the seed; pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.scoring.batching import MicroBatch

__all__ = ["plan"]

_JITTER = 4.0
"""Rows are sorted by length plus up to so many tokens, so that epochs do not put the same rows together."""


def plan(lengths: NDArray[np.int64], *, batch_rows: int, seed: int) -> list[MicroBatch]:
    """The batches of an epoch, in order; each row is in one of them.

    `lengths` is (n,) int64, tokens of each row. A row is padded to the longest of its batch, so sorting saves most of
    the padding; the batches themselves come in random order, or the model would learn short texts first.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(lengths + _JITTER * generator.random(len(lengths)), kind="stable")
    parts = np.array_split(order, -(-len(order) // batch_rows))
    return [MicroBatch(parts[i], int(lengths[parts[i]].max())) for i in generator.permutation(len(parts))]
