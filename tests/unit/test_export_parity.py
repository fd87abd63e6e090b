from __future__ import annotations

import numpy as np
import pytest

from export.errors import ExportError
from export.graphs.parity import MAX_FLIPS, TOLERANCE, check_flips, check_parity, count_flips


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


def test_flips_are_counted_per_harm_at_its_threshold() -> None:
    """A decision flips where one model is at or above the harm's threshold and the other is below."""
    reference = np.array([[0.0, 1.0], [2.0, 1.0], [0.4, 1.0], [0.6, 0.9]], np.float32)
    artefact = np.array([[0.1, 0.9], [1.9, 1.0], [0.5, 3.0], [0.4, 0.8]], np.float32)
    flips = count_flips(reference, artefact, [0.5, 1.0])
    assert flips.shares == (0.5, 0.25)
    assert (flips.worst, flips.texts) == (0.5, 4)


def test_too_many_flips_stop_the_export() -> None:
    """One decision in a hundred may flip; more are an error that names the harm and what to do."""
    reference = np.zeros((200, 2), np.float32)
    artefact = reference.copy()
    artefact[:2, 1] = -1
    assert check_flips(reference, artefact, [0, 0], harms=("hate", "sexual")).shares == (0.0, MAX_FLIPS)
    artefact[2, 1] = -1
    with pytest.raises(ExportError, match=r"turns 1.50% of 200 decisions on sexual round; 1% is allowed. Keep more"):
        check_flips(reference, artefact, [0, 0], harms=("hate", "sexual"))
