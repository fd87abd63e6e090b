"""Texts in, intervals out: the bootstrap, by text, so that a text that was copied many times counts as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap", "effective_size", "resamples"]

DRAWS = 200
"""Resamples for one interval [S02]: an end moves by less than a tenth of the width with the seed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def bootstrap(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    clusters: NDArray[np.int64],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Interval]:
    """The 2.5 % and 97.5 % quantiles of each of k figures over `draws` resamples of the clusters.

    `statistic` maps weights of n items, (n,), to figures, (k,); NaN where a resample has none, which is then left out.
    `clusters` is (n,), equal where items are not independent of each other. The order of the items plays no part but
    for the rounding of sums. Intervals of a figure that no resample has are NaN.
    """
    values = np.array([statistic(weights) for weights in resamples(clusters, draws=draws, seed=seed)])
    missing = np.isnan(values).all(axis=0)
    low, high = np.nanquantile(np.where(missing, 0.0, values), [0.025, 0.975], axis=0)
    return [
        Interval(float("nan"), float("nan")) if without else Interval(float(start), float(end))
        for start, end, without in zip(low, high, missing, strict=True)
    ]


def resamples(clusters: NDArray[np.int64], *, draws: int = DRAWS, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Yield weights of n items, (n,): how often each one's cluster is drawn, as many being drawn as there are."""
    _, index = np.unique(clusters, return_inverse=True)
    count = int(index.max()) + 1
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)
        yield drawn[index].astype(np.float64)


def effective_size(clusters: NDArray[np.int64]) -> float:
    """Kish's size: how many independent items n items are worth if those of a cluster are one and the same.

    >>> effective_size(np.array([1, 2, 3])), effective_size(np.array([7, 7, 7]))
    (3.0, 1.0)
    """
    if not len(clusters):
        return 0.0
    sizes = np.unique(clusters, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())
