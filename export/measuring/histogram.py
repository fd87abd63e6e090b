"""The same figures from a stream: scores are counted and forgotten, in memory that no number of items makes larger.

State algebra: SUM. Histograms of two parts of a stream add up to that of the whole, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.measuring.metrics import CALIBRATION_BINS, Curve, Reliability, reliability

__all__ = ["BINS", "Bounds", "ScoreHistogram"]

BINS = 32_768
"""Bins of the grid: half a megabyte for one harm. S02 has 1024, evenly over [0, 1] and for scores that are spread over
it; on the logit most scores share a third of the bins, and 1024 of them were off by up to 0.005 in average precision
and 0.003 in optimal F1, this many by up to 0.0006 in either (400 shapes of 20,000 scores)."""

_LOGIT_RANGE = 12.0
"""Bins are equal on the logit in [-12, 12]: moderation scores crowd near 0, where bins on the score would be few."""

_SMALLEST = 1e-12  # keeps the logit of 0 and 1 finite; both are in the outermost bins whatever it is


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a figure must be between, whatever the order of the items within each bin."""

    low: float
    high: float


class ScoreHistogram:
    """Calibrated probabilities of one harm, by label. Counts are float64, exact up to 2^53 items."""

    def __init__(self) -> None:
        self._harmful = np.zeros(BINS)
        self._harmless = np.zeros(BINS)
        self._calibration = np.zeros((4, CALIBRATION_BINS))

    def add(self, probabilities: NDArray[np.float64], labels: NDArray[np.floating]) -> None:
        """Count n items; both are (n,), labels of 0 and 1, NaN, unknown, being left out."""
        known = ~np.isnan(labels)
        probabilities, labels = probabilities[known], labels[known]
        bins = _bins(probabilities)
        self._harmful += np.bincount(bins, weights=labels, minlength=BINS)
        self._harmless += np.bincount(bins, weights=1 - labels, minlength=BINS)
        binned = reliability(probabilities, labels)
        self._calibration += np.stack([binned.n, binned.probability, binned.harmful, binned.variance])

    def merge(self, other: ScoreHistogram) -> None:
        """Add what `other` counted."""
        self._harmful += other._harmful
        self._harmless += other._harmless
        self._calibration += other._calibration

    @property
    def n(self) -> float:
        """Items counted."""
        return float(self._harmful.sum() + self._harmless.sum())

    @property
    def positives(self) -> float:
        """Harmful items counted."""
        return float(self._harmful.sum())

    def curve(self) -> Curve:
        """The curve with one threshold per bin that holds anything, the highest first; no items, no curve: empty."""
        held = (self._harmful + self._harmless)[::-1] > 0
        harmful, harmless = self._harmful[::-1][held], self._harmless[::-1][held]
        return Curve(found=np.cumsum(harmful), flagged=np.cumsum(harmful + harmless))

    def average_precision(self) -> float:
        """Average precision, a bin's items taken as ties; how far off it can be, `average_precision_bounds` says."""
        return self.curve().average_precision()

    def average_precision_bounds(self) -> Bounds:
        """What the average precision of the scores themselves is between, for certain.

        Within a bin of p harmful and q harmless items, after P and N in the bins above, precision at any threshold that
        gains recall is at least (P + 1) / (P + 1 + N + q) and at most (P + p) / (P + p + N).
        """
        harmful, harmless = self._harmful[::-1], self._harmless[::-1]
        above, passed = np.cumsum(harmful) - harmful, np.cumsum(harmless) - harmless
        worst = (above + 1) / (above + 1 + passed + harmless)
        best = (above + harmful) / np.maximum(above + harmful + passed, 1)
        share = harmful / max(self.positives, 1)
        return Bounds(float((share * worst).sum()), float((share * best).sum()))

    def reliability(self) -> Reliability:
        """The bins of the calibration error, as exact as from the scores themselves."""
        return Reliability(*self._calibration)


def _bins(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    inside = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
    position = (np.log(inside) - np.log1p(-inside) + _LOGIT_RANGE) / (2 * _LOGIT_RANGE)
    return np.clip((position * BINS).astype(np.int64), 0, BINS - 1)
