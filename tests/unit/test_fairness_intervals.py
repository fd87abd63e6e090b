"""Intervals at the values that papers print, and at the edges where formulas break."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stream.fairness.intervals import newcombe, rate, risk_ratio, wilson


def ends(interval: object) -> tuple[float, float]:
    return float(interval.low), float(interval.high)  # type: ignore[attr-defined]


def test_wilson_has_width_at_zero_and_one() -> None:
    """No events among ten still leaves a rate of 28 % possible, and ten of ten one of 72 %."""
    assert ends(wilson(0, 10)) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert ends(wilson(10, 10)) == pytest.approx((0.722467, 1.0), abs=1e-6)


def test_newcombe_matches_his_examples() -> None:
    """Method 10 of Newcombe (1998), table II: 56/70 against 48/80, and 10/10 against 0/10."""
    assert ends(newcombe(56, 70, 48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert ends(newcombe(10, 10, 0, 10)) == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_katz_is_symmetric_on_the_log_scale() -> None:
    """Ratio over low end equals high end over ratio, and swapping the groups inverts the interval."""
    low, high = ends(risk_ratio(30, 100, 20, 120))
    assert 1.8 / low == pytest.approx(high / 1.8)
    assert ends(risk_ratio(20, 120, 30, 100)) == pytest.approx((1 / high, 1 / low))


@pytest.mark.parametrize(
    ("of", "low", "high"),
    [
        ((0, 50, 5, 50), 0.0, 1.6),
        ((5, 50, 0, 50), 0.6, math.inf),
        ((0, 50, 0, 50), math.nan, math.nan),
        ((50, 50, 60, 60), 0.96, 1.04),
        ((0, 0, 5, 50), math.nan, math.nan),
        ((5, 50, 0, 0), math.nan, math.nan),
    ],
)
def test_a_ratio_says_no_more_than_the_data_bound(of: tuple[int, int, int, int], low: float, high: float) -> None:
    """An end that a zero leaves open is open, two zeros say nothing, and equal certainties are not certain."""
    assert ends(risk_ratio(*of)) == pytest.approx((low, high), rel=0.05, nan_ok=True)


def test_nothing_is_said_of_an_empty_group() -> None:
    """No decisions give no rate and no interval, beside others that have them, and without a warning."""
    assert np.isnan(rate([0, 1], [0, 2])).tolist() == [True, False]
    assert np.isnan(wilson([0, 1], [0, 2]).low).tolist() == [True, False]
    assert np.isnan(newcombe([0, 1], [0, 2], [1, 1], [2, 2]).high).tolist() == [True, False]
