"""Logits in, honest probabilities out: of all content given 0.3, three in ten should be harmful."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROBABILITY_DECIMALS", "Calibrator"]

PROBABILITY_DECIMALS = 6
"""Probabilities are millionths: finer than any calibration set can tell apart, and decimals that JSON writes exactly.
So what a decision shows is the number that was compared with the thresholds beside it."""


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Platt scaling (Platt 1999) of h harms [S05]: probability = 1 / (1 + exp(-(a * logit + b))).

    >>> import numpy as np
    >>> Calibrator(a=np.array([1.0]), b=np.array([0.0])).apply(np.array([[0.0], [np.nan]], np.float32)).tolist()
    [[0.5], [nan]]
    """

    a: NDArray[np.float64]
    """(h,) slopes, above zero."""
    b: NDArray[np.float64]
    """(h,) intercepts."""

    def apply(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Calibrate (m, h) float32 logits to (m, h) float64 probabilities in millionths; NaN, not scored, stays NaN.

        Elementwise: a probability does not depend on what else is in the batch. Where a histogram of probabilities is
        counted for `stream.uncertainty.risk`, they must come from here, so that rounding is the same on both sides.
        """
        scaled = self.a * logits + self.b
        # exp of what is never positive: it cannot overflow, and both tails keep their precision.
        small = np.exp(-np.abs(scaled))
        return np.round(np.where(scaled >= 0, 1.0, small) / (1.0 + small), PROBABILITY_DECIMALS)
