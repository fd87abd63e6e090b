"""From the log-likelihoods of two answers to a logit: S01's definition, in the tails too; no score without answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.scoring.policy import answer_logits

LIKELIHOOD = st.floats(-60, 0, width=32)
TEMPERATURE = st.floats(0.5, 5)
ALPHA = st.floats(1e-6, 0.5)


def logit(
    yes: float, no: float, *, temperature: float = 1.0, alpha: float = 0.0, min_answer_mass: float = 0.0
) -> float:
    """Of one text and harm."""
    pair = np.array([[[yes, no]]], dtype=np.float32)
    found = answer_logits(pair, temperature=temperature, alpha=alpha, min_answer_mass=min_answer_mass)
    assert found.shape == (1, 1)
    assert found.dtype == np.float32
    return float(found[0, 0])


def probability(value: float) -> float:
    """Of a logit."""
    return 1 / (1 + math.exp(-value))


def test_the_published_value() -> None:
    """Answers of 2 and 1 are a probability of 0.731059 [S01]."""
    assert probability(logit(2, 1)) == pytest.approx(0.731059, abs=5e-7)


@given(yes=LIKELIHOOD, no=LIKELIHOOD, temperature=TEMPERATURE, alpha=ALPHA)
def test_it_is_the_definition(yes: float, no: float, temperature: float, alpha: float) -> None:
    """The probability of the logit is the formula as it is written."""
    numerator = math.exp(yes / temperature) + alpha
    expected = numerator / (numerator + math.exp(no / temperature) + alpha)
    assert probability(logit(yes, no, temperature=temperature, alpha=alpha)) == pytest.approx(expected, abs=1e-6)


@given(yes=st.floats(-50, 50, width=32), no=st.floats(-50, 50, width=32), shift=st.floats(-50, 50, width=32))
def test_without_alpha_a_constant_changes_nothing(yes: float, no: float, shift: float) -> None:
    """Adding a constant to both answers leaves the score, so logits of a model do as well as log-likelihoods."""
    assert logit(yes + shift, no + shift) == pytest.approx(logit(yes, no), abs=1e-4)


@given(yes=LIKELIHOOD, no=LIKELIHOOD, more=st.floats(0.01, 20), temperature=TEMPERATURE, alpha=ALPHA | st.just(0.0))
def test_it_rises_with_yes(yes: float, no: float, more: float, temperature: float, alpha: float) -> None:
    """More of yes is never less of a score."""
    values = [logit(at, no, temperature=temperature, alpha=alpha) for at in (yes, yes + more)]
    assert values[0] <= values[1]


@given(yes=LIKELIHOOD, no=LIKELIHOOD)
def test_alpha_pulls_what_is_unlikely_to_a_half(yes: float, no: float) -> None:
    """With alpha a score is nearer to a half than without, and the nearer the less likely both answers are."""
    plain, pulled = logit(yes, no), logit(yes, no, alpha=0.01)
    assert abs(pulled) <= abs(plain) + 1e-6
    assert abs(logit(yes - 30, no - 30, alpha=0.01)) <= abs(pulled) + 1e-6


def test_the_tails_are_exact() -> None:
    """A difference of hundreds is a logit of hundreds, not an infinity of a probability that is rounded to one."""
    assert logit(-1, -700) == 699
    assert logit(-700, -1, temperature=2) == -349.5


@pytest.mark.parametrize(("mass", "scored"), [(0.61, True), (0.59, False)])
def test_below_the_answer_mass_there_is_no_score(mass: float, scored: bool) -> None:
    """Where both answers together are less likely than asked for in any one harm, the row is NaN as a whole."""
    likely, unlikely = (np.log([share / 3, share * 2 / 3]) for share in (0.9, mass))
    pairs: NDArray[np.float32] = np.array([[likely, unlikely], [likely, likely]], dtype=np.float32)
    found = answer_logits(pairs, temperature=1.0, alpha=0.0, min_answer_mass=0.6)
    assert np.isfinite(found).all(axis=1).tolist() == [scored, True]
    assert np.isnan(found).any(axis=1).tolist() == np.isnan(found).all(axis=1).tolist() == [not scored, False]


def test_what_is_no_number_has_no_score() -> None:
    """A row with a NaN in one harm is NaN in all, without a warning."""
    pairs = np.zeros((2, 2, 2), dtype=np.float32)
    pairs[0, 1] = np.nan
    found = answer_logits(pairs, temperature=1.0, alpha=0.1, min_answer_mass=0.5)
    assert np.isnan(found).tolist() == [[True, True], [False, False]]
