from __future__ import annotations

import numpy as np
import pytest

from export.errors import ExportError
from export.parity import TOLERANCE, check_parity


def test_the_largest_difference_is_reported() -> None:
    """Parity is the largest difference of any logit, not a mean."""
    module = np.zeros((3, 2), np.float32)
    artefact = module.copy()
    artefact[1, 0] = -TOLERANCE / 2
    parity = check_parity(module, artefact)
    assert parity.max_abs_logit == pytest.approx(TOLERANCE / 2)
    assert parity.texts == 3


@pytest.mark.parametrize("value", [2 * TOLERANCE, np.nan, np.inf])
def test_one_logit_beyond_the_tolerance_stops_the_export(value: float) -> None:
    """A single logit that differs too much, or is not a number, is an error that names the text."""
    artefact = np.zeros((3, 2), np.float32)
    artefact[2, 1] = value
    with pytest.raises(ExportError, match="on text 2"):
        check_parity(np.zeros((3, 2), np.float32), artefact)
