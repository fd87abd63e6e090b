"""Thresholds from stated risks against scikit-learn's curves and quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from stream.uncertainty.risk import act_at, allow_below

BINS = 1024
# Scores in the middle of their bins: then the histogram loses nothing, and edges are where curves may be read.
SCORES = (np.random.default_rng(5).integers(0, BINS, (2, 3000)) + 0.5) / BINS
HARMFUL, HARMLESS = SCORES[0] ** 0.5, 0.9 * SCORES[1] ** 2
HARMFUL, HARMLESS = (np.floor(HARMFUL * BINS) + 0.5) / BINS, (np.floor(HARMLESS * BINS) + 0.5) / BINS


def counts(scores: np.ndarray) -> np.ndarray:
    """The histogram of scores that are bin centres."""
    return np.bincount((scores * BINS).astype(int), minlength=BINS).astype(np.float64)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.1, 0.5])
def test_thresholds_are_the_tightest_on_the_roc_curve(rate: float) -> None:
    """On scikit-learn's curve the thresholds keep the adjusted rate, and one more bin of risk would not."""
    labels = np.repeat([1, 0], [len(HARMFUL), len(HARMLESS)])
    curve = roc_curve(labels, np.concatenate([HARMFUL, HARMLESS]), drop_intermediate=False)
    acted, found, scores = (np.flip(column) for column in curve)  # by rising score, the last one infinite
    adjusted = (math.floor(rate * (len(HARMFUL) + 1) + 1e-9) - 1) / len(HARMFUL) + 1e-12

    lower = allow_below(counts(HARMFUL), miss_rate=rate)
    upper = act_at(counts(HARMLESS), false_block_rate=rate)
    assert isinstance(lower, float)
    assert isinstance(upper, float)
    # At an edge, what counts is the first score at or above it.
    missed, missed_one_up = 1 - found[np.searchsorted(scores, [lower, lower + 1 / BINS])]
    acted_on, acted_on_one_down = acted[np.searchsorted(scores, [upper, upper - 1 / BINS])]
    assert missed <= adjusted < missed_one_up
    assert acted_on <= adjusted < acted_on_one_down


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.5])
def test_allow_below_is_the_conformal_quantile(rate: float) -> None:
    """It is the lower edge at numpy's order statistic of rank floor(rate * (n + 1))."""
    rank = math.floor(rate * (len(HARMFUL) + 1) + 1e-9)
    quantile = np.quantile(HARMFUL, (rank - 1) / (len(HARMFUL) - 1), method="nearest")
    assert allow_below(counts(HARMFUL), miss_rate=rate) == math.floor(quantile * BINS) / BINS
