"""Thresholds from stated risks: exactly the formula, on the safe side, and the risk is kept on new items."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.events import Selection
from stream.uncertainty import select
from stream.uncertainty.risk import NotEnoughLabels, Shares, act_at, allow_below, items_needed, shares

BINS = 1024

scores = st.lists(st.floats(0, 1, width=32), max_size=120)
# Rates as people write them, so that alpha * (n + 1) is often whole and rounding could go either way.
rates = st.integers(1, 999).map(lambda thousandths: Fraction(thousandths, 1000))


def histogram(values: list[float] | NDArray[np.floating], bins: int = BINS) -> NDArray[np.float64]:
    """Counts per bin, as bundles count them."""
    indices = np.minimum(np.floor(np.asarray(values, np.float64) * bins), bins - 1).astype(int)
    return np.bincount(indices, minlength=bins).astype(np.float64)


def highest_edge_that_keeps_the_risk(values: list[float], rate: Fraction) -> float | None:
    """The general formula of conformal risk control, by trying every edge: n/(n+1) * risk + 1/(n+1) <= rate."""
    n = len(values)
    kept = [
        edge / BINS
        for edge in range(BINS)  # no edge at 1: p = 1 is in the last bin
        if Fraction(sum(value < edge / BINS for value in values) + 1, n + 1) <= rate
    ]
    return max(kept, default=None)


@given(scores, rates)
def test_allow_below_is_the_general_formula(values: list[float], rate: Fraction) -> None:
    """The closed form gives the highest edge at which the general formula holds, and says so where none does."""
    found = allow_below(histogram(values), miss_rate=float(rate))
    expected = highest_edge_that_keeps_the_risk(values, rate)
    if expected is None:
        assert found == NotEnoughLabels(len(values), items_needed(float(rate)))
    else:
        assert found == expected


@given(scores, rates)
def test_allow_below_is_never_above_the_raw_scores(values: list[float], rate: Fraction) -> None:
    """On raw scores the threshold is the k-th lowest; the histogram's is at or below it, within a bin."""
    k = int(rate * (len(values) + 1))
    found = allow_below(histogram(values), miss_rate=float(rate))
    if isinstance(found, NotEnoughLabels):
        assert k == 0
    else:
        raw = sorted(values)[k - 1]
        assert raw - 1 / BINS <= found <= raw


@given(scores, rates)
def test_act_at_is_above_the_raw_scores(values: list[float], rate: Fraction) -> None:
    """On raw scores only what is above the k-th highest is acted on; the histogram's threshold is above it too."""
    k = int(rate * (len(values) + 1))
    found = act_at(histogram(values), false_block_rate=float(rate))
    if isinstance(found, NotEnoughLabels):
        assert k == 0
    else:
        raw = sorted(values)[-k]
        assert raw < found <= (raw + 1 / BINS if raw < 1 - 1 / BINS else 1 + 1 / BINS)
        assert sum(value >= found for value in values) <= k - 1


@given(st.lists(st.integers(0, 3), min_size=8, max_size=8), rates)
def test_acting_mirrors_allowing(counts: list[int], rate: Fraction) -> None:
    """`act_at` of a histogram is 1 minus `allow_below` of its mirror image, but out of reach at the very end."""
    lower = allow_below(np.array(counts[::-1], np.float64), miss_rate=float(rate))
    upper = act_at(np.array(counts, np.float64), false_block_rate=float(rate))
    if isinstance(lower, NotEnoughLabels):
        assert upper == lower
    else:
        assert upper == (1 - lower if lower else 1 + 1 / 8)


@given(scores, rates, rates)
def test_more_risk_never_means_more_caution(values: list[float], one: Fraction, other: Fraction) -> None:
    """A higher stated risk raises `allow_below` and lowers `act_at`, or leaves them."""
    low, high = sorted((float(one), float(other)))
    lowers = [allow_below(histogram(values), miss_rate=rate) for rate in (low, high)]
    uppers = [act_at(histogram(values), false_block_rate=rate) for rate in (low, high)]
    if isinstance(lowers[0], float) and isinstance(uppers[0], float):
        assert isinstance(lowers[1], float)
        assert isinstance(uppers[1], float)
        assert lowers[0] <= lowers[1]
        assert uppers[0] >= uppers[1]


@pytest.mark.parametrize(
    ("rate", "needed"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.001, 999), (0.3, 3), (0.07, 14)]
)
def test_the_number_of_items_needed(rate: float, needed: int) -> None:
    """`needed` items are enough for a rate, and one fewer is not."""
    assert items_needed(rate) == needed
    assert isinstance(allow_below(histogram([0.5] * needed), miss_rate=rate), float)
    assert allow_below(histogram([0.5] * (needed - 1)), miss_rate=rate) == NotEnoughLabels(needed - 1, needed)


@pytest.mark.parametrize(
    ("rate", "threshold"), [(0.19, None), (0.2, 0.0), (0.39, 0.0), (0.4, 0.25), (0.6, 0.5), (0.8, 0.75), (0.99, 0.75)]
)
def test_the_reference_steps_of_four_items(rate: float, threshold: float | None) -> None:
    """Four items, one a bin: the adjusted risks are .2, .4, .6, .8 and 1, so thresholds step where rates reach them."""
    found = allow_below(np.ones(4), miss_rate=rate)
    assert found == (NotEnoughLabels(4, items_needed(rate)) if threshold is None else threshold)


def test_saturated_scores_are_not_acted_on() -> None:
    """Where the tolerated harmless item is in the last bin, even p = 1 is below `act_at`."""
    found = act_at(histogram([1.0] * 20), false_block_rate=0.05)
    assert found == 1 + 1 / BINS


def test_weighted_counts_are_read_as_they_are() -> None:
    """Counts need not be whole: n is their sum, and no more items than that can be tolerated."""
    assert allow_below(np.array([0.5, 0.75, 0.25, 0.0]), miss_rate=0.9) == 0.25
    assert allow_below(np.array([0.25, 0.25, 0.0, 0.0]), miss_rate=0.9) == NotEnoughLabels(0.5, 1)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [60, 97, 400])
def test_the_miss_rate_is_kept_on_new_items(rate: float, n: int) -> None:
    """Over 500 calibration sets, the mean share of new harmful items that is allowed is at most the rate."""
    random = np.random.default_rng(n)
    missed = []
    for _ in range(500):
        calibration, new = random.beta(2, 1, n), random.beta(2, 1, 500)
        missed.append(float((new < threshold_of(allow_below(histogram(calibration), miss_rate=rate))).mean()))
    assert rate - 0.025 < np.mean(missed) <= rate + 0.005


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_false_block_rate_is_kept_on_new_items(rate: float) -> None:
    """Over 500 calibration sets, the mean share of new harmless items that is acted on is at most the rate."""
    random = np.random.default_rng(3)
    acted = []
    for _ in range(500):
        calibration, new = random.beta(1, 3, 120), random.beta(1, 3, 500)
        acted.append(float((new >= threshold_of(act_at(histogram(calibration), false_block_rate=rate))).mean()))
    assert rate - 0.025 < np.mean(acted) <= rate + 0.005


def test_the_reference_simulation() -> None:
    """At a rate of .1 and n = 60, six items of sixty-one are tolerated: a mean miss of 6/61 = .0984, less a bin."""
    random = np.random.default_rng(17)
    missed = [
        threshold_of(allow_below(histogram(random.random(60)), miss_rate=0.1))  # of uniform scores, the share below
        for _ in range(4000)
    ]
    assert np.mean(missed) == pytest.approx(6 / 61 - 0.5 / BINS, abs=0.002)


@given(scores, st.integers(0, BINS), st.integers(0, BINS))
def test_shares_count_what_select_would_do(values: list[float], one: int, other: int) -> None:
    """At thresholds on edges, shares are those of selecting every item."""
    lower, upper = sorted((one / BINS, other / BINS))
    found = shares(histogram(values), lower=lower, upper=upper)
    if not values:
        assert all(np.isnan([found.allowed, found.abstained, found.acted]))
        return
    # p = 1 is counted in the last bin, so below an upper threshold of 1.
    column = np.minimum(np.array(values), np.nextafter(1.0, 0.0))[:, None]
    selected = select(column, np.full_like(column, upper), np.full_like(column, lower))
    expected = [float((selected == s).mean()) for s in (Selection.HARMLESS, Selection.ABSTAIN, Selection.HARMFUL)]
    np.testing.assert_allclose([found.allowed, found.abstained, found.acted], expected, atol=1e-12)


def test_shares_within_a_bin_are_proportional() -> None:
    """A threshold inside a bin has the part of the bin's items below it that it has of its width."""
    assert shares(np.array([4.0, 4.0]), lower=0.125, upper=0.75) == Shares(0.125, 0.625, 0.25)


def threshold_of(found: float | NotEnoughLabels) -> float:
    """The threshold, in tests whose sets are large enough for one."""
    assert isinstance(found, float)
    return found
