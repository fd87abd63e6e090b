"""Logits to probabilities, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from stream.uncertainty import Calibrator

HARMS = 3
logits = arrays(
    np.float32, st.tuples(st.integers(0, 40), st.just(HARMS)), elements=st.floats(-100, 100, width=32) | st.just(np.nan)
)
calibrators = st.builds(
    lambda a, b: Calibrator(np.array(a), np.array(b)),
    st.lists(st.floats(0.01, 20), min_size=HARMS, max_size=HARMS),
    st.lists(st.floats(-20, 20), min_size=HARMS, max_size=HARMS),
)


@given(logits, calibrators)
def test_it_is_the_sigmoid_of_a_line(values: np.ndarray, calibrator: Calibrator) -> None:
    """Probabilities are those of scipy's logistic function in millionths, NaN staying NaN."""
    found = calibrator.apply(values)
    assert (found.dtype.type, found.shape) == (np.float64, values.shape)
    np.testing.assert_allclose(found, expit(calibrator.a * values + calibrator.b), rtol=0, atol=0.5e-6 + 1e-12)
    np.testing.assert_array_equal(found, np.round(found, 6))


@given(logits, calibrators, st.randoms())
def test_a_probability_does_not_depend_on_its_batch(
    values: np.ndarray, calibrator: Calibrator, random: np.random.Generator
) -> None:
    """A row alone, or in any order among others, gives the same bits."""
    order = list(range(len(values)))
    random.shuffle(order)
    together = calibrator.apply(values)
    np.testing.assert_array_equal(calibrator.apply(values[order]), together[order])
    for row in range(len(values)):
        np.testing.assert_array_equal(calibrator.apply(values[row : row + 1]), together[row : row + 1])


@given(st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=50), calibrators)
def test_more_evidence_is_never_less_probable(values: list[float], calibrator: Calibrator) -> None:
    """Probabilities rise with logits, whatever the slope above zero."""
    column = np.repeat(np.sort(np.array(values, np.float32))[:, None], HARMS, axis=1)
    assert (np.diff(calibrator.apply(column), axis=0) >= 0).all()


@pytest.mark.parametrize(("logit", "probability"), [(np.inf, 1.0), (-np.inf, 0.0), (1e30, 1.0), (-1e30, 0.0), (0, 0.5)])
def test_extremes_are_certain_and_quiet(logit: float, probability: float) -> None:
    """Any logit gives a probability, without a warning."""
    calibrator = Calibrator(np.array([2.0]), np.array([0.0]))
    assert calibrator.apply(np.array([[logit]], np.float32)).tolist() == [[probability]]
