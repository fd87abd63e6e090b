"""Ranking, threshold and calibration measures of one harm; pure numpy, each equal to its textbook definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.measuring.resample import Interval, bootstrap

__all__ = [
    "CALIBRATION_BINS",
    "MIN_CALIBRATION_ITEMS",
    "Confusion",
    "Curve",
    "Interval",
    "MacroF1",
    "Ranking",
    "auroc",
    "average_precision",
    "average_precision_interval",
    "confusion",
    "expected_calibration_error",
    "macro_f1",
    "null_calibration_error",
    "null_calibration_spread",
    "optimal_f1",
    "reliability",
]

CALIBRATION_BINS = 15  # the usual number; with 1024 bins every bin is nearly empty and the error is all noise

MIN_CALIBRATION_ITEMS = 200
"""With fewer items even a perfect model's calibration error is above 0.06, and the error is not published [S07]."""

_ALARM = 3  # standard deviations [S07]

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Curve:
    """What k thresholds find, the highest first: items at or above each, harmful ones (`found`) and all (`flagged`).

    Both are (k,) float64 and never fall; weighted items count by their weight.
    """

    found: NDArray[np.float64]
    flagged: NDArray[np.float64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """(k,) share of the harmful items that is found; NaN without any."""
        return self.found / self.found[-1] if self.found[-1] else np.full_like(self.found, np.nan)

    @property
    def precision(self) -> NDArray[np.float64]:
        """(k,) share of the flagged items that is harmful; 0 where a resample flags none, which gains no recall."""
        return np.divide(self.found, self.flagged, out=np.zeros_like(self.found), where=self.flagged > 0)

    def average_precision(self) -> float:
        """Sum over thresholds of (recall gained) × (precision there); NaN without a harmful item [S02]."""
        return float((_gains(self.found) * self.precision).sum() / self.found[-1]) if self.found[-1] else float("nan")

    def auroc(self) -> float:
        """Probability that a harmful item outranks a harmless one, ties counting half; NaN without either."""
        gained, harmless = _gains(self.found), _gains(self.flagged - self.found)
        pairs = gained.sum() * harmless.sum()
        below = harmless.sum() - np.cumsum(harmless)
        return float((gained * (below + harmless / 2)).sum() / pairs) if pairs else float("nan")

    def optimal_f1(self) -> float:
        """The largest 2PR / (P + R) over the thresholds [S02]; NaN without a harmful item."""
        total = self.found[-1]
        return float((2 * self.found / (self.flagged + total)).max()) if total else float("nan")


def _gains(cumulative: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each entry adds to the one before."""
    gains = cumulative.copy()
    gains[1:] -= cumulative[:-1]
    return gains


@dataclass(frozen=True, slots=True)
class Ranking:
    """n items from the highest score to the lowest: sorted once, weighted as often as a bootstrap likes."""

    order: NDArray[np.int64]
    """(n,) row numbers, highest score first."""
    starts: NDArray[np.int64]
    """(k,) where in that order each distinct score begins."""
    labels: NDArray[np.float64]
    """(n,) of 0 and 1, in that order."""
    thresholds: NDArray[np.float64]
    """(k,) the distinct scores."""

    @classmethod
    def of(cls, scores: Floats, labels: Floats) -> Ranking:
        """Rank n items; `scores` is (n,), higher is more harmful, `labels` is (n,) of 0 and 1."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
        return cls(order, starts, labels[order].astype(np.float64), ranked[starts].astype(np.float64))

    def curve(self, weights: NDArray[np.float64] | None = None) -> Curve:
        """The curve where row i counts `weights[i]` times; every row once without them."""
        weighted = np.ones(len(self.order)) if weights is None else weights[self.order]
        return Curve(
            found=np.cumsum(np.add.reduceat(weighted * self.labels, self.starts)),
            flagged=np.cumsum(np.add.reduceat(weighted, self.starts)),
        )


def average_precision(scores: Floats, labels: Floats) -> float:
    """Sum over thresholds of (recall gained) × (precision there), in step form; 1 is perfect, the prevalence is chance.

    `scores` is (n,), higher is more harmful; `labels` is (n,) of 0 and 1 with at least one 1. Never interpolated:
    trapezoids over-estimate [S02].

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]))  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    return Ranking.of(scores, labels).curve().average_precision()


def average_precision_interval(
    scores: Floats, labels: Floats, *, clusters: NDArray[np.int64] | None = None, draws: int = 200, seed: int = 0
) -> Interval:
    """The 2.5 % and 97.5 % quantiles of average precision over `draws` bootstrap resamples of the (n,) clusters.

    A resample without a positive has no average precision and is left out; with 30 positives that is one in 10^13.
    """
    ranking = Ranking.of(scores, labels)
    clusters = np.arange(len(labels)) if clusters is None else clusters
    (interval,) = bootstrap(
        lambda weights: np.array([ranking.curve(weights).average_precision()]), clusters, draws=draws, seed=seed
    )
    return interval


def auroc(scores: Floats, labels: Floats) -> float:
    """Probability that a random harmful item outranks a random harmless one, ties counting half; 0.5 is chance.

    >>> auroc(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]))
    0.5
    """
    return Ranking.of(scores, labels).curve().auroc()


def optimal_f1(scores: Floats, labels: Floats) -> float:
    """The best F1 that any one threshold on the scores reaches, chosen with the labels: an upper bound [S02].

    >>> optimal_f1(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.0, 1.0]))
    0.8
    """
    return Ranking.of(scores, labels).curve().optimal_f1()


@dataclass(frozen=True, slots=True)
class Confusion:
    """Weights of the items of one harm: harmful and flagged or not, harmless and flagged or not."""

    true_positives: float
    false_negatives: float
    false_positives: float
    true_negatives: float

    @property
    def f1(self) -> float:
        """2TP / (2TP + FP + FN); 0 where nothing is harmful and nothing flagged, which `is_undefined` tells apart."""
        below = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / below if below else 0.0

    @property
    def is_undefined(self) -> bool:
        """Whether nothing is harmful and nothing was flagged, so that there is no F1."""
        return self.true_positives + self.false_positives + self.false_negatives == 0

    @property
    def false_positive_rate(self) -> float:
        """Share of the harmless items that is flagged; NaN without any."""
        harmless = self.false_positives + self.true_negatives
        return self.false_positives / harmless if harmless else float("nan")

    @property
    def false_negative_rate(self) -> float:
        """Share of the harmful items that is not flagged; NaN without any."""
        harmful = self.true_positives + self.false_negatives
        return self.false_negatives / harmful if harmful else float("nan")


def confusion(flagged: NDArray[np.bool_], labels: Floats, weights: NDArray[np.float64] | None = None) -> Confusion:
    """Count n items by label and by whether they were flagged; both are (n,), labels of 0 and 1."""
    cell = 2 * labels.astype(np.int64) + flagged
    harmless_passed, harmless_flagged, harmful_passed, harmful_flagged = np.bincount(cell, weights, minlength=4)
    return Confusion(
        true_positives=float(harmful_flagged),
        false_negatives=float(harmful_passed),
        false_positives=float(harmless_flagged),
        true_negatives=float(harmless_passed),
    )


@dataclass(frozen=True, slots=True)
class MacroF1:
    """Mean F1 over classes, with the number of classes that have none and counted as 0."""

    value: float
    undefined: int


def macro_f1(classes: Sequence[Confusion]) -> MacroF1:
    """Mean of the classes' F1; one without a true or a flagged item counts as 0 and in `undefined` [S02].

    >>> macro_f1([Confusion(1, 0, 0, 5), Confusion(0, 0, 0, 6)])
    MacroF1(value=0.5, undefined=1)
    """
    return MacroF1(
        value=float(np.mean([one.f1 for one in classes])) if classes else float("nan"),
        undefined=sum(one.is_undefined for one in classes),
    )


@dataclass(frozen=True, slots=True)
class Reliability:
    """Fifteen bins of equal width on [0, 1], closed on the left: sums over the items of each; all (15,) float64."""

    n: NDArray[np.float64]
    probability: NDArray[np.float64]
    """Sum of the probabilities."""
    harmful: NDArray[np.float64]
    """Number of harmful items."""
    variance: NDArray[np.float64]
    """Sum of p times 1 - p."""

    def error(self) -> float:
        """The expected calibration error of these bins."""
        return float(np.abs(self.harmful - self.probability).sum() / self.n.sum())

    def null_mean(self) -> float:
        """What `error` would be on average for a perfect model."""
        return float(np.sqrt(2 * self.variance / np.pi).sum() / self.n.sum())

    def null_spread(self) -> float:
        """The standard deviation of `error` for a perfect model."""
        return float(np.sqrt((1 - 2 / np.pi) * self.variance.sum()) / self.n.sum())

    def alarm(self) -> float:
        """Three standard deviations above `null_mean`: a larger error is none that chance makes."""
        return self.null_mean() + _ALARM * self.null_spread()


def reliability(probabilities: Floats, labels: Floats) -> Reliability:
    """Bin n items by probability, (n,); `labels` is (n,) of 0 and 1 [S07]."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    sums = (None, probabilities, labels, probabilities * (1 - probabilities))
    return Reliability(
        *(np.bincount(bins, weights=weight, minlength=CALIBRATION_BINS).astype(np.float64) for weight in sums)
    )


def expected_calibration_error(probabilities: Floats, labels: Floats) -> float:
    """Mean over items of |share harmful − mean probability| in the item's bin; 0 is perfectly calibrated [S07].

    Fifteen bins of equal width, closed on the left. Biased upwards at small n: read it beside `null_calibration_error`.
    """
    return reliability(probabilities, labels).error()


def null_calibration_error(probabilities: Floats) -> float:
    """What `expected_calibration_error` would be on average were the probabilities perfect: sum_b sqrt(2 v_b / π) / n.

    v_b sums p (1 − p) over the items of bin b; normal approximation of the bin's count [S07].
    """
    return reliability(probabilities, np.zeros_like(probabilities)).null_mean()


def null_calibration_spread(probabilities: Floats) -> float:
    """Standard deviation of the calibration error of perfect probabilities; three above the mean is an alarm [S07].

    A bin's gap is the size of a normal number of variance v_b, whose own variance is (1 − 2/π) v_b.
    """
    return reliability(probabilities, np.zeros_like(probabilities)).null_spread()
