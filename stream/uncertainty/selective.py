"""Probabilities and two thresholds in; harmful, harmless or no answer out (selective classification)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.events import Selection

__all__ = ["select"]


def select(
    probabilities: NDArray[np.float64], act_at: NDArray[np.float64], allow_below: NDArray[np.float64]
) -> NDArray[np.int8]:
    """Answer where the thresholds allow one; all arguments (m, h), the result (m, h) int8 values of `Selection`.

    HARMFUL where p >= act_at, else HARMLESS where p < allow_below, else ABSTAIN. NaN, not scored, is ABSTAIN.

    >>> import numpy as np
    >>> p = np.array([[0.1, 0.5, 0.9, np.nan]])
    >>> select(p, act_at=np.full((1, 4), 0.8), allow_below=np.full((1, 4), 0.2)).tolist()
    [[0, 1, 2, 1]]
    """
    selections = np.full(probabilities.shape, Selection.ABSTAIN, np.int8)
    selections[probabilities < allow_below] = Selection.HARMLESS
    selections[probabilities >= act_at] = Selection.HARMFUL
    return selections
