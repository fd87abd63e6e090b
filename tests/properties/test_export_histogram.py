"""Figures from counted scores against those from the scores themselves."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from export.measuring.histogram import ScoreHistogram
from export.measuring.metrics import expected_calibration_error, null_calibration_error, optimal_f1

Floats = NDArray[np.float64]

probabilities = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 1e-6, 1 - 1e-6])
items = st.lists(st.tuples(probabilities, st.booleans()), min_size=2, max_size=80).filter(
    lambda pairs: any(label for _, label in pairs)
)
shapes = st.floats(0.5, 8)


def counted(scores: Floats, labels: Floats) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.add(scores, labels)
    return histogram


@given(shapes, shapes, shapes, st.integers(0, 2**32 - 1))
def test_spread_scores_are_within_a_thousandth(a: float, b: float, lift: float, seed: int) -> None:
    """Of 20,000 scores of any smooth shape, 7 % harmful, every ranking figure is within 0.001 of the exact one."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(20_000) < 0.07).astype(np.float64)
    scores = np.where(labels == 1, generator.beta(a + lift, b, 20_000), generator.beta(a, b, 20_000))
    curve = counted(scores, labels).curve()
    assert curve.average_precision() == pytest.approx(average_precision_score(labels, scores), abs=1e-3)
    assert curve.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)
    assert curve.optimal_f1() == pytest.approx(optimal_f1(scores, labels), abs=1e-3)


@given(items)
def test_the_exact_average_precision_is_within_the_bounds(pairs: list[tuple[float, bool]]) -> None:
    """Whatever the scores, all in one bin included, the exact average precision is within the bounds stated."""
    scores, labels = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    histogram = counted(scores, labels)
    bounds = histogram.average_precision_bounds()
    exact = average_precision_score(labels, scores)
    assert bounds.low - 1e-12 <= exact <= bounds.high + 1e-12
    assert bounds.low - 1e-12 <= histogram.average_precision() <= bounds.high + 1e-12


@given(items, st.integers(0, 80))
def test_parts_of_a_stream_add_up(pairs: list[tuple[float, bool]], cut: int) -> None:
    """Histograms of two parts, merged, give the figures of the whole."""
    scores, labels = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    whole, merged = counted(scores, labels), counted(scores[cut:], labels[cut:])
    merged.merge(counted(scores[:cut], labels[:cut]))
    assert (merged.n, merged.positives) == (whole.n, whole.positives) == (len(labels), labels.sum())
    assert merged.average_precision() == whole.average_precision()
    assert merged.reliability().error() == pytest.approx(whole.reliability().error(), abs=1e-12)


@given(items)
def test_calibration_is_exact(pairs: list[tuple[float, bool]]) -> None:
    """Calibration error and its null value lose nothing by counting."""
    scores, labels = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    binned = counted(scores, labels).reliability()
    assert binned.error() == pytest.approx(expected_calibration_error(scores, labels), abs=1e-12)
    assert binned.null_mean() == pytest.approx(null_calibration_error(scores), abs=1e-12)


def test_unknown_labels_are_not_counted() -> None:
    """An item whose label is unknown is in no figure."""
    histogram = counted(np.array([0.2, 0.9, 0.5]), np.array([0.0, 1.0, np.nan]))
    assert (histogram.n, histogram.positives) == (2, 1)


def test_memory_does_not_grow() -> None:
    """A million items are held in the same memory as none."""
    generator = np.random.default_rng(0)
    histogram = ScoreHistogram()
    empty = sum(sys.getsizeof(array) for array in vars(histogram).values())
    for _ in range(10):
        histogram.add(generator.random(100_000), (generator.random(100_000) < 0.1).astype(np.float64))
    assert histogram.n == 1_000_000
    assert sum(sys.getsizeof(array) for array in vars(histogram).values()) == empty < 600_000
