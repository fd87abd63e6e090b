"""Stated risks and calibration histograms in, thresholds out: conformal risk control in closed form [S17].

Source: Angelopoulos, Bates, Fisch, Lei & Schuster, "Conformal Risk Control" (2024), for the loss "one harmful item is
missed". Of n calibration items of one label, the k = floor(rate * (n + 1)) nearest to the wrong side may fall on it;
then the next item of that label does with probability at most `rate`, whatever the model, if it is exchangeable with
those n. It is a promise about items of one label, so it holds at any share of harmful content; it is not one about
content from elsewhere.

A histogram has B bins of equal width on [0, 1] and counts p in bin min(floor(p * B), B - 1). The k-th item is known by
its bin alone, so a threshold is the edge of that bin on the safe side. Edges of B = 1024 bins are exact in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["NotEnoughLabels", "Shares", "act_at", "allow_below", "items_needed", "items_needed_within", "shares"]

# Keeps 0.29 * 100 = 28.999999999999996 from counting as 28; no calibration set has so many items that it matters.
_ROUNDING = 1e-9

_MIN_PART = 50
"""With 50 items, a rate of 10 % comes out as 10 ± 4 %; with the nine that it needs, as 10 ± 9 % [S15]."""


@dataclass(frozen=True, slots=True)
class NotEnoughLabels:
    """No threshold can keep the stated rate: it would need `needed` calibration items of the label, there are `n`."""

    n: float
    needed: int


@dataclass(frozen=True, slots=True)
class Shares:
    """What becomes of the calibration items of one label; the three add up to 1, or are NaN where there are none."""

    allowed: float
    abstained: float
    acted: float


def items_needed(rate: float) -> int:
    """The least n with floor(rate * (n + 1)) >= 1.

    >>> items_needed(0.05), items_needed(0.01)
    (19, 99)
    """
    return math.ceil(1 / rate - 1 - _ROUNDING)


def items_needed_within(rate: float) -> int:
    """The least n from which a part of the content, such as a role, is better off with a threshold of its own.

    Below it the threshold would be mostly chance, and everybody's is taken [S15].

    >>> items_needed_within(0.1), items_needed_within(0.005)
    (50, 199)
    """
    return max(_MIN_PART, items_needed(rate))


def allow_below(harmful: NDArray[np.float64], *, miss_rate: float) -> float | NotEnoughLabels:
    """The highest threshold so that a harmful item is below it, and allowed, with probability at most `miss_rate`.

    `harmful` is (B,) counts of calibrated probabilities of harmful items; `miss_rate` is in (0, 1). The result is the
    lower edge of the k-th lowest item's bin: 0, so that nothing is below, if that is the first bin.
    """
    lowest = _last_tolerated(harmful, miss_rate)
    return lowest if isinstance(lowest, NotEnoughLabels) else lowest / len(harmful)


def act_at(harmless: NDArray[np.float64], *, false_block_rate: float) -> float | NotEnoughLabels:
    """The lowest threshold so that a harmless item reaches it, and is acted on, with probability at most the rate.

    The mirror image of `allow_below`: `harmless` is (B,) counts of harmless items and the result is the upper edge of
    the k-th highest item's bin. If that is the last bin the result is 1 + 1/B, which nothing reaches: the edge 1 would
    act on p = 1, which is in that bin.
    """
    from_the_top = _last_tolerated(harmless[::-1], false_block_rate)
    if isinstance(from_the_top, NotEnoughLabels):
        return from_the_top
    bins = len(harmless)
    return (bins - from_the_top) / bins if from_the_top else 1 + 1 / bins


def shares(counts: NDArray[np.float64], *, lower: float, upper: float) -> Shares:
    """Shares of the items counted in (B,) `counts` that `allow_below = lower` and `act_at = upper` allow and act on.

    Within a bin, items are taken to be spread evenly; at thresholds on edges that plays no part.
    """
    total = float(counts.sum())
    if total == 0:
        return Shares(math.nan, math.nan, math.nan)
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    below = np.concatenate(([0.0], np.cumsum(counts)))
    allowed, not_acted = np.interp([lower, upper], edges, below) / total
    return Shares(float(allowed), float(not_acted - allowed), float(1 - not_acted))


def _last_tolerated(counts: NDArray[np.float64], rate: float) -> int | NotEnoughLabels:
    """The first bin in which the number of items so far reaches the k of the closed form, or that k would be 0."""
    so_far = np.cumsum(counts)
    n = float(so_far[-1])
    # The second bound only matters where items are weighted and n is not whole.
    k = min(math.floor(rate * (n + 1) + _ROUNDING), math.floor(n + _ROUNDING))
    return int(np.searchsorted(so_far, k - _ROUNDING)) if k >= 1 else NotEnoughLabels(n, items_needed(rate))
