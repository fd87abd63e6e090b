"""A calibration in, the thresholds out at which a bundle is judged before it has a policy [S17]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.counterfactual import Answers
from stream.bundle.calibration import CalibrationFile
from stream.uncertainty.calibration import Calibrator
from stream.uncertainty.risk import NotEnoughLabels, act_at, allow_below

__all__ = ["FALSE_BLOCK_RATE", "MISS_RATE", "Thresholds", "as_logits", "default_thresholds"]

FALSE_BLOCK_RATE = 0.005
"""Of harmless content, at most this share is acted on: what the policy that ships states for most harms."""

MISS_RATE = 0.1
"""Of harmful content, at most this share is allowed: the middle of what the policy that ships states."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """By harm, (h,) float64, `allow_below` nowhere above `act_at`; 1 where too few labels keep the stated risk."""

    act_at: NDArray[np.float64]
    allow_below: NDArray[np.float64]

    def answers(self, probabilities: NDArray[np.float64]) -> Answers:
        """What is done with n sentences of these probabilities, (n, h)."""
        return Answers(
            probability=probabilities.max(axis=1),
            flagged=np.asarray((probabilities >= self.act_at).any(axis=1)),
            not_allowed=np.asarray((probabilities >= self.allow_below).any(axis=1)),
        )


def default_thresholds(calibration: CalibrationFile, harms: tuple[str, ...]) -> Thresholds:
    """Thresholds from the default risks and the calibration histograms, as a policy would derive them.

    Where the two cross, the lower one, `act_at`, is the one cut. Without labels enough, nothing is acted on (1), or
    nothing allowed (0).
    """
    histograms = [calibration.harms[harm].histogram for harm in harms]
    upper = [_or(act_at(np.array(one.harmless), false_block_rate=FALSE_BLOCK_RATE), 1.0) for one in histograms]
    lower = [_or(allow_below(np.array(one.harmful), miss_rate=MISS_RATE), 0.0) for one in histograms]
    return Thresholds(np.array(upper), np.minimum(lower, upper))


def as_logits(thresholds: NDArray[np.float64], calibrator: Calibrator) -> list[float]:
    """Where the h thresholds lie before calibration; infinite for a harm that is never, or always, acted on."""
    with np.errstate(divide="ignore"):
        before = (np.log(thresholds) - np.log1p(-thresholds) - calibrator.b) / calibrator.a
    return [float(value) for value in before]


def _or(threshold: float | NotEnoughLabels, otherwise: float) -> float:
    return otherwise if isinstance(threshold, NotEnoughLabels) else min(threshold, 1.0)
