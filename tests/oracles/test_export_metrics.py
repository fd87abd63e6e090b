"""Export's measures against scikit-learn, scipy and counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
)

from export.measuring.calibrate import fit_platt
from export.measuring.metrics import (
    Ranking,
    auroc,
    average_precision,
    average_precision_interval,
    confusion,
    expected_calibration_error,
    macro_f1,
    null_calibration_error,
    null_calibration_spread,
    optimal_f1,
)

# Scores on a coarse grid, so that ties, where definitions differ, are common.
items = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: 0 < sum(label for _, label in pairs) < len(pairs)
)


def columns(pairs: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores in [0, 1] and labels of the drawn items."""
    scores, labels = zip(*pairs, strict=True)
    return np.array(scores) / 20, np.array(labels, dtype=np.float64)


@given(items)
def test_average_precision_is_sklearns(pairs: list[tuple[int, bool]]) -> None:
    """Average precision equals scikit-learn's, ties included."""
    scores, labels = columns(pairs)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(items)
def test_auroc_is_sklearns(pairs: list[tuple[int, bool]]) -> None:
    """AUROC equals scikit-learn's, ties included."""
    scores, labels = columns(pairs)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(items)
def test_optimal_f1_is_the_best_of_sklearns_thresholds(pairs: list[tuple[int, bool]]) -> None:
    """Optimal F1 is the largest harmonic mean along scikit-learn's precision-recall curve."""
    scores, labels = columns(pairs)
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = max(2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r)
    assert optimal_f1(scores, labels) == pytest.approx(best, abs=1e-12)


@given(items, st.integers(0, 2**32 - 1))
def test_weighted_figures_are_sklearns(pairs: list[tuple[int, bool]], seed: int) -> None:
    """With whole weights, as a resample has, average precision and AUROC equal scikit-learn's with sample weights."""
    scores, labels = columns(pairs)
    weights = np.random.default_rng(seed).integers(0, 4, len(labels)).astype(np.float64)
    curve = Ranking.of(scores, labels).curve(weights)
    if 0 < (weights * labels).sum() < weights.sum():
        kept = weights > 0
        expected = average_precision_score(labels[kept], scores[kept], sample_weight=weights[kept])
        assert curve.average_precision() == pytest.approx(expected, abs=1e-12)
        ranked = roc_auc_score(labels[kept], scores[kept], sample_weight=weights[kept])
        assert curve.auroc() == pytest.approx(ranked, abs=1e-12)


@given(items, st.integers(0, 20))
def test_rates_at_a_threshold_are_sklearns(pairs: list[tuple[int, bool]], cut: int) -> None:
    """F1 and the counts of right and wrong answers at a threshold equal scikit-learn's."""
    scores, labels = columns(pairs)
    flagged = scores >= cut / 20
    counted = confusion(flagged, labels)
    (true_negatives, false_positives), (false_negatives, true_positives) = confusion_matrix(labels, flagged)
    assert counted.f1 == pytest.approx(f1_score(labels, flagged, zero_division=0), abs=1e-12)
    assert counted.false_positive_rate == false_positives / (false_positives + true_negatives)
    assert counted.false_negative_rate == false_negatives / (false_negatives + true_positives)


@given(st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=30))
def test_macro_f1_is_sklearns(rows: list[tuple[bool, ...]]) -> None:
    """Macro-F1 equals scikit-learn's with undefined classes as zero, and says how many those are."""
    labels, flagged = np.array(rows)[:, :3], np.array(rows)[:, 3:]
    measured = macro_f1([confusion(flagged[:, i], labels[:, i].astype(np.float64)) for i in range(3)])
    expected = f1_score(labels, flagged, average="macro", zero_division=0)
    assert measured.value == pytest.approx(expected, abs=1e-12)
    assert measured.undefined == (~(labels | flagged).any(axis=0)).sum()


def test_interval_is_that_of_resampled_sklearn() -> None:
    """The bootstrap interval is the quantiles of scikit-learn's average precision over the same kind of resamples."""
    generator = np.random.default_rng(3)
    labels = (generator.random(500) < 0.3).astype(np.float64)
    scores = np.round(labels * 0.3 + generator.random(500), 2)
    draws = generator.integers(0, 500, (400, 500))
    expected = np.quantile([average_precision_score(labels[d], scores[d]) for d in draws], [0.025, 0.975])
    interval = average_precision_interval(scores, labels, draws=400)
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.02)


def test_interval_of_a_rare_positive_leaves_out_empty_resamples() -> None:
    """Resamples without a positive are left out instead of turning the interval into NaN."""
    scores, labels = np.linspace(0, 1, 20), np.eye(20)[19]
    interval = average_precision_interval(scores, labels)
    assert (interval.low, interval.high) == (1.0, 1.0)


@given(items)
def test_calibration_error_is_counted_by_hand(pairs: list[tuple[int, bool]]) -> None:
    """The calibration error is the weighted gap between share and mean probability, bin by bin."""
    probabilities, labels = columns(pairs)
    expected = 0.0
    for number in range(15):
        inside = np.array([min(int(p * 15), 14) == number for p in probabilities])
        if inside.any():
            expected += inside.mean() * abs(labels[inside].mean() - probabilities[inside].mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-12)


def test_null_error_is_what_a_perfect_model_has() -> None:
    """The null calibration error is the mean error of labels drawn from the probabilities themselves."""
    generator = np.random.default_rng(7)
    probabilities = generator.uniform(0, 1, 1000)
    errors = [
        expected_calibration_error(probabilities, (generator.random(1000) < probabilities).astype(np.float64))
        for _ in range(300)
    ]
    assert null_calibration_error(probabilities) == pytest.approx(np.mean(errors), rel=0.05)


def test_null_spread_is_that_of_a_perfect_model() -> None:
    """The null spread is the standard deviation of the error of labels drawn from the probabilities themselves."""
    generator = np.random.default_rng(7)
    probabilities = generator.uniform(0, 1, 1000)
    errors = [
        expected_calibration_error(probabilities, (generator.random(1000) < probabilities).astype(np.float64))
        for _ in range(600)
    ]
    assert null_calibration_spread(probabilities) == pytest.approx(np.std(errors), rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_platt_is_the_minimum_that_scipy_finds(seed: int) -> None:
    """Slope and intercept minimise the cross-entropy against Platt's smoothed targets."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(200) < 0.1 + 0.15 * seed).astype(np.float64)
    logits = generator.normal(labels * 2 - 1, 1.5)
    harmful, harmless = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (harmful + 1) / (harmful + 2), 1 / (harmless + 2))

    def loss(parameters: NDArray[np.float64]) -> float:
        scaled = parameters[0] * logits + parameters[1]
        return float((np.logaddexp(0, scaled) - targets * scaled).sum())

    expected = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8}).x
    assert fit_platt(logits, labels) == pytest.approx(tuple(expected), abs=1e-4)
