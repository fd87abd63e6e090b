"""The largest gap, and what chance makes of equal groups."""

from __future__ import annotations

import numpy as np
import pytest

from stream.fairness.gap import gap


def test_rates_compared() -> None:
    """The worked example of methods S20: rates .40 and .35 have a difference of .05 and a ratio of .875."""
    found = gap(np.array([40, 35]), np.array([100, 100]), seed="s")
    assert found is not None
    assert (found.difference, found.ratio) == pytest.approx((0.05, 0.875))


def test_one_group_has_no_gap() -> None:
    """A single group is compared with nothing."""
    assert gap(np.array([3]), np.array([10]), seed="s") is None


def test_equal_certainty_has_no_gap_even_by_chance() -> None:
    """Where every rate is zero, chance makes no gap, and a ratio does not exist."""
    found = gap(np.array([0, 0]), np.array([10, 20]), seed="s")
    assert found is not None
    assert (found.difference, found.null_median) == (0.0, 0.0)
    assert np.isnan(found.ratio)


def test_equal_seeds_give_equal_medians() -> None:
    """A report made again is the same report."""
    counts = np.array([5, 9, 7]), np.array([50, 60, 70])
    assert gap(*counts, seed="s") == gap(*counts, seed="s")
    assert len({gap(*counts, seed=str(seed)).null_median for seed in range(20)}) > 1  # type: ignore[union-attr]


def test_the_null_median_is_the_median_gap_of_equal_groups() -> None:
    """Half of all streams without any unfairness have a gap above the null median that they are published with."""
    draw = np.random.default_rng(7)
    n = np.arange(50, 70)  # of different sizes, so that gaps are rarely equal
    found = [gap(draw.binomial(n, 0.1), n, seed=str(stream)) for stream in range(400)]
    above = sum(one.difference > one.null_median for one in found if one is not None)
    assert 160 < above < 240  # a fair coin is outside once in 15,000 times
    assert min(one.null_median for one in found if one is not None) > 0.08  # rates of .1 seem to differ by that much
