from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from export.measuring.metrics import average_precision_interval
from export.measuring.resample import bootstrap, effective_size, resamples

Floats = NDArray[np.float64]


def test_copies_of_a_text_do_not_narrow_an_interval() -> None:
    """The same texts nine times over give the interval that they give once, where texts are told apart."""
    generator = np.random.default_rng(1)
    labels = (generator.random(200) < 0.3).astype(np.float64)
    scores = labels * 0.3 + generator.random(200)
    once = average_precision_interval(scores, labels, clusters=np.arange(200))
    copied = average_precision_interval(np.tile(scores, 9), np.tile(labels, 9), clusters=np.tile(np.arange(200), 9))
    mistaken = average_precision_interval(np.tile(scores, 9), np.tile(labels, 9))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert mistaken.high - mistaken.low < (once.high - once.low) / 2


def test_the_order_of_rows_plays_no_part() -> None:
    """Shuffled rows give the same interval: resamples are drawn for texts by their digests, not for places."""
    generator = np.random.default_rng(2)
    values, clusters = generator.random(50), generator.permutation(10_000)[:50]
    shuffled = generator.permutation(50)

    def mean_of(column: Floats) -> list[tuple[float, float]]:
        order = np.arange(50) if column is values else shuffled
        intervals = bootstrap(lambda weights: np.array([weights @ column / weights.sum()]), clusters[order])
        return [(interval.low, interval.high) for interval in intervals]

    assert mean_of(values)[0] == pytest.approx(mean_of(values[shuffled])[0])


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """The bootstrap interval of a mean is the normal one, to within what 2000 draws can tell."""
    values = np.random.default_rng(3).normal(5, 2, 400)
    (interval,) = bootstrap(lambda weights: np.array([weights @ values / 400]), np.arange(400), draws=2000)
    half = 1.96 * values.std() / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_a_figure_that_no_resample_has_is_nan_without_a_warning() -> None:
    """A figure that is never defined has a NaN interval, and the others keep theirs."""
    first, second = bootstrap(lambda weights: np.array([np.nan, weights.sum()]), np.arange(10))
    assert np.isnan(first.low)
    assert np.isnan(first.high)
    assert (second.low, second.high) == (10.0, 10.0)


def test_a_resample_draws_whole_texts() -> None:
    """All copies of a text have the same weight, and as many texts are drawn as there are."""
    clusters = np.array([7, 7, 3, 9, 9, 9])
    for weights in resamples(clusters, draws=20):
        assert weights[0] == weights[1]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[2] + weights[3] == 3


@pytest.mark.parametrize(("clusters", "size"), [([], 0.0), ([1, 2, 3, 4], 4.0), ([5, 5, 5, 5], 1.0), ([1, 1, 2], 1.8)])
def test_effective_size_is_kishs(clusters: list[int], size: float) -> None:
    """N items are worth (sum of cluster sizes)² / (sum of their squares) independent ones."""
    assert effective_size(np.array(clusters, dtype=np.int64)) == pytest.approx(size)
