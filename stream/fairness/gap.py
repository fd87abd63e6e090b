"""The gap between the groups with the largest and the smallest rate, and how large it would be by chance alone.

The largest of many rates minus the smallest is above zero even where every group is treated alike, and the more so the
smaller and the more numerous the groups are [S20, "bias of max-min"]. So a gap comes with its median under equality.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NULL_DRAWS", "Gap", "gap"]

NULL_DRAWS = 200
"""Draws of the bootstrap; its median is then within about a tenth of the null's spread."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Rates of groups compared.

    `difference` is max - min, in [0, 1], 0 when equal; `ratio` is min / max, in [0, 1], 1 when equal, NaN when every
    rate is zero (fairlearn's between-groups difference and ratio). `null_median` is the median difference where every
    group has the pooled rate.
    """

    groups: int
    difference: float
    ratio: float
    null_median: float


def gap(count: NDArray[np.int64], n: NDArray[np.int64], *, seed: str) -> Gap | None:
    """Compare G groups by count / n, (G,) int64 with n > 0; None where there are fewer than two.

    The null median is a parametric bootstrap: `NULL_DRAWS` times, every group draws Binomial(n, pooled rate). Equal
    counts and equal `seed` give the equal median, so a report that is made again is the same report.
    """
    if len(n) < 2:  # noqa: PLR2004 - a gap is between two
        return None
    rates = count / n
    highest, lowest = float(rates.max()), float(rates.min())
    draws = _generator(seed).binomial(n, count.sum() / n.sum(), size=(NULL_DRAWS, len(n))) / n
    return Gap(
        groups=len(n),
        difference=highest - lowest,
        ratio=lowest / highest if highest > 0 else float("nan"),
        null_median=float(np.median(draws.max(axis=1) - draws.min(axis=1))),
    )


def _generator(seed: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16])))
