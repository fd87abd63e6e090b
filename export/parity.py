"""Does the artefact say what the module said? Two models and the same texts in, the largest difference out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError

__all__ = ["TOLERANCE", "Parity", "check_parity"]

TOLERANCE = 1e-4
"""Largest difference of a logit that float32 in another order of operations explains; a thousandth of what matters."""


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
