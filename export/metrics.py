"""Ranking and calibration measures of one harm; pure numpy, each equal to its textbook definition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interval",
    "auroc",
    "average_precision",
    "average_precision_interval",
    "expected_calibration_error",
    "null_calibration_error",
]

_BINS = 15  # the usual number; with 1024 bins every bin is nearly empty and the error is all noise

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def average_precision(scores: Floats, labels: Floats) -> float:
    """Sum over thresholds of (recall gained) × (precision there), in step form; 1 is perfect, the prevalence is chance.

    `scores` is (n,), higher is more harmful; `labels` is (n,) of 0 and 1 with at least one 1. Never interpolated:
    trapezoids over-estimate [S02].

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]))  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    ranking = _rank(scores)
    return _weighted_average_precision(ranking, labels[ranking.order], np.ones(len(labels)))


def average_precision_interval(scores: Floats, labels: Floats, *, draws: int = 200, seed: int = 0) -> Interval:
    """The 2.5 % and 97.5 % quantiles of average precision over `draws` bootstrap resamples.

    A resample without a positive has no average precision and is left out; with 30 positives that is one in 10^13.
    """
    ranking = _rank(scores)
    ranked = labels[ranking.order]
    generator = np.random.default_rng(seed)
    values = [_weighted_average_precision(ranking, ranked, _resample(generator, len(labels))) for _ in range(draws)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


def auroc(scores: Floats, labels: Floats) -> float:
    """Probability that a random harmful item outranks a random harmless one, ties counting half; 0.5 is chance.

    >>> auroc(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]))
    0.5
    """
    ranking = _rank(scores)
    at_threshold = np.add.reduceat(labels[ranking.order], ranking.starts)
    counts = np.diff(np.append(ranking.starts, len(scores)))
    harmless = counts - at_threshold
    harmless_below = harmless.sum() - np.cumsum(harmless)
    return float((at_threshold * (harmless_below + harmless / 2)).sum() / (labels.sum() * harmless.sum()))


def expected_calibration_error(probabilities: Floats, labels: Floats) -> float:
    """Mean over items of |share harmful − mean probability| in the item's bin; 0 is perfectly calibrated [S07].

    Fifteen bins of equal width, closed on the left. Biased upwards at small n: read it beside `null_calibration_error`.
    """
    bins = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=labels - probabilities, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def null_calibration_error(probabilities: Floats) -> float:
    """What `expected_calibration_error` would be on average were the probabilities perfect: sum_b sqrt(2 v_b / π) / n.

    v_b sums p (1 − p) over the items of bin b; normal approximation of the bin's count [S07].
    """
    bins = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    variance = np.bincount(bins, weights=probabilities * (1 - probabilities), minlength=_BINS)
    return float(np.sqrt(2 * variance / np.pi).sum() / len(probabilities))


@dataclass(frozen=True, slots=True)
class _Ranking:
    """`order` sorts the scores from high to low; `starts` is where each distinct score begins in that order."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]


def _rank(scores: Floats) -> _Ranking:
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return _Ranking(order, np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])))


def _resample(generator: np.random.Generator, n: int) -> NDArray[np.float64]:
    """How often each of n items is drawn in n draws with replacement, (n,)."""
    return np.bincount(generator.integers(0, n, n), minlength=n).astype(np.float64)


def _weighted_average_precision(ranking: _Ranking, labels: Floats, weights: NDArray[np.float64]) -> float:
    """Average precision where item i counts `weights[i]` times; NaN without a positive; both are in ranking order."""
    gained = np.add.reduceat(weights * labels, ranking.starts)
    flagged = np.cumsum(np.add.reduceat(weights, ranking.starts))
    found = np.cumsum(gained)
    if found[-1] == 0:
        return np.nan
    # A threshold above which a resample has nothing gains nothing either.
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return float((gained * precision).sum() / found[-1])
