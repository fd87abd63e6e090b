"""Does the artefact say what the module said? Two models and the same texts in, differences and flips out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

__all__ = ["MAX_FLIPS", "TOLERANCE", "Flips", "Parity", "check_flips", "check_parity", "count_flips"]

TOLERANCE = 1e-4
"""Largest difference of a logit that float32 in another order of operations explains; a thousandth of what matters."""


MAX_FLIPS = 0.01
"""Largest share of decisions at any threshold that rounding to 8 bits may turn round."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Of t texts, the share that rounding puts on the other side of each harm's threshold, (h,), in harm order."""

    shares: tuple[float, ...]
    texts: int

    @property
    def worst(self) -> float:
        """The largest share of any harm."""
        return max(self.shares)


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely two models agree: the largest difference in any logit, over so many texts."""

    max_abs_logit: float
    texts: int


def check_parity(module: NDArray[np.float32], artefact: NDArray[np.float32]) -> Parity:
    """Compare the logits of the same t texts, both (t, h) float32; raise `ExportError` above the tolerance."""
    differences = np.abs(module - artefact).max(axis=1)
    worst = int(np.argmax(differences))  # NaN counts as largest, and fails the comparison below
    if not differences[worst] <= TOLERANCE:
        raise ExportError(
            f"the artefact's logits differ from the module's by {differences[worst]:.3g} on text {worst}; "
            f"{TOLERANCE:g} is allowed. The conversion changed the model"
        )
    return Parity(float(differences[worst]), len(module))


def count_flips(reference: NDArray[np.float32], artefact: NDArray[np.float32], thresholds: Sequence[float]) -> Flips:
    """Count the texts on different sides of a threshold in two models; logits (t, h), a threshold per harm, in logits.

    A text at its threshold is above it, as in the service.
    """
    limits = np.asarray(thresholds, dtype=np.float32)
    turned = (reference >= limits) != (artefact >= limits)
    return Flips(tuple(turned.mean(axis=0).tolist()), len(reference))


def check_flips(
    reference: NDArray[np.float32], artefact: NDArray[np.float32], thresholds: Sequence[float], *, harms: Sequence[str]
) -> Flips:
    """Count flips; raise `ExportError` where they are more than allowed for a harm."""
    flips = count_flips(reference, artefact, thresholds)
    for harm, share in zip(harms, flips.shares, strict=True):
        if share > MAX_FLIPS:
            raise ExportError(
                f"rounding to 8 bits turns {share:.2%} of {flips.texts} decisions on {harm} round; {MAX_FLIPS:.0%} is "
                "allowed. Keep more matrix products in float32 (export.quantise.quantise_until)"
            )
    return flips
