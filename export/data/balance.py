"""How much each text counts, and how many there are of each source, so that no source drowns the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.data.dataset import Dataset
from export.data.splits import text_digest

__all__ = ["first_of_each_source", "row_weights"]

_SILVER_WEIGHT = 0.5
"""A label given by a rule counts half as much as a person's; chosen on the validation split (0.25, 0.5, 1 tried)."""


def row_weights(sources: NDArray[np.str_], silver: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weights of n rows, (n,) float32 with mean 1: one over the square root of the size of the row's source.

    Harmful and harmless labels count the same: weighting rare harms up as well, by any power of their odds, lost
    average precision on the validation split, and the calibration that follows makes up for the odds.
    """
    _, index, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    weights = np.where(silver, _SILVER_WEIGHT, 1.0) / np.sqrt(sizes[index])
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def first_of_each_source(data: Dataset, rows: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """Those of `rows` that are among the first `most` of their source by digest, ascending: the same ones each time."""
    digests = np.array([text_digest(data.texts[row]) for row in rows.tolist()])
    by_digest = rows[np.argsort(digests, kind="stable")]
    sources = data.sources[by_digest]
    return np.sort(np.concatenate([by_digest[sources == name][:most] for name in np.unique(sources)]))
