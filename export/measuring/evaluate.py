"""Scored, labelled texts in, measurements out: every harm, any harm and their means, whole and in parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.data.items import Items
from export.measuring.metrics import (
    MIN_CALIBRATION_ITEMS,
    Confusion,
    Interval,
    Ranking,
    average_precision,
    confusion,
    macro_f1,
    reliability,
)
from export.measuring.resample import bootstrap, effective_size
from stream.bundle.evaluation import ANY_HARM, Estimate, Macro, Measurement
from stream.fairness.intervals import wilson

__all__ = [
    "MAX_NAMES",
    "Column",
    "average_precision_change",
    "columns_of",
    "enough_to_bin",
    "enough_to_rank",
    "measure",
    "measure_macro",
    "parts_of",
]

_MIN_POSITIVES = 30
"""With fewer positives (or negatives) a ranking figure is mostly chance, and is not published [S02]."""

MAX_NAMES = 200
"""Sources, groups or locales that are measured apart, the most frequent: names come from the data, which may hold any
number of them, and each costs some thousand resamples."""

Floats = NDArray[np.floating]
Labelled = Literal["human", "silver"]
_Name = TypeVar("_Name", int, str)


def measure(items: Items, *, harms: tuple[str, ...], with_small: bool = False) -> tuple[Measurement, ...]:
    """Measure n texts by harm, by who labelled them, and then over all, by each kind of name, and by group.

    Parts that are too small for any figure are left out, unless `with_small` asks for their numbers.
    """
    parts = list(parts_of(items))
    rows = (
        _measure_part(column, mask, harm=harm, part=part, labelled_by=labelled_by)
        for harm, column in zip((*harms, ANY_HARM), columns_of(items), strict=True)
        for labelled_by, by in _labellers(items)
        for part, inside in parts
        if (mask := inside & by & ~np.isnan(column.labels)).any()
    )
    return tuple(row for row in rows if with_small or row.harmless_mean is not None or row.ece is not None)


def measure_macro(items: Items, *, harms: tuple[str, ...]) -> tuple[Macro, ...]:
    """The means over harms on the whole and on every part of more than one harm that can be ranked."""
    columns = list(columns_of(items))[: len(harms)]
    means = (
        _measure_means([column.take(by & inside) for column in columns], part=part, labelled_by=labelled_by)
        for labelled_by, by in _labellers(items)
        for part, inside in parts_of(items)
    )
    return tuple(mean for mean in means if mean is not None and (mean.harms > 1 or mean.part == "all"))


def average_precision_change(
    served: NDArray[np.float32], trained: NDArray[np.float32], labels: NDArray[np.float32], *, harms: tuple[str, ...]
) -> dict[str, float]:
    """Average precision of `served` minus that of `trained`, both (n, h) scores, by harm with a harmful label."""
    known = [~np.isnan(column) for column in labels.T]
    return {
        harm: average_precision(served[mask, i], labels[mask, i]) - average_precision(trained[mask, i], labels[mask, i])
        for i, (harm, mask) in enumerate(zip(harms, known, strict=True))
        if labels[mask, i].any()
    }


def enough_to_rank(labels: Floats, clusters: NDArray[np.int64]) -> bool:
    """Whether there are 30 different harmful texts and 30 harmless ones among those with known labels; both (n,)."""
    return _is_enough(labels == 1, clusters) and _is_enough(labels == 0, clusters)


def enough_to_bin(clusters: NDArray[np.int64]) -> bool:
    """Whether there are 200 different texts."""
    return len(np.unique(clusters)) >= MIN_CALIBRATION_ITEMS


def _is_enough(mask: NDArray[np.bool_], clusters: NDArray[np.int64]) -> bool:
    return len(np.unique(clusters[mask])) >= _MIN_POSITIVES


@dataclass(frozen=True, slots=True)
class Column:
    """One harm, or any: n scores, labels with NaN for unknown, what was flagged, and which texts are copies."""

    scores: Floats
    labels: Floats
    flagged: NDArray[np.bool_]
    clusters: NDArray[np.int64]

    def take(self, mask: NDArray[np.bool_]) -> Column:
        """The items of the mask whose label is known."""
        known = mask & ~np.isnan(self.labels)
        return Column(self.scores[known], self.labels[known], self.flagged[known], self.clusters[known])


def columns_of(items: Items) -> Iterator[Column]:
    """One column per harm, and any harm's last: its score is the largest probability [S01]."""
    for i in range(items.labels.shape[1]):
        yield Column(items.probabilities[:, i], items.labels[:, i], items.flagged[:, i], items.clusters)
    yield Column(items.probabilities.max(axis=1), items.any_harm, np.asarray(items.flagged.any(axis=1)), items.clusters)


def _labellers(items: Items) -> tuple[tuple[Labelled, NDArray[np.bool_]], ...]:
    return ("human", ~items.silver), ("silver", items.silver)


def parts_of(items: Items) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Name and (n,) mask of the whole, of every name of every kind, and of every group."""
    yield "all", np.ones(len(items), dtype=np.bool_)
    for kind, names in items.kinds.items():
        sizes = np.bincount(names.codes, minlength=len(names.names))
        for code in _most_frequent(dict(enumerate(sizes.tolist()))):
            yield f"{kind}={names.names[code]}", names.codes == code
    for group in _most_frequent(Counter(group for groups in items.groups for group in set(groups))):
        yield f"group={group}", np.array([group in groups for groups in items.groups])


def _most_frequent(sizes: Mapping[_Name, int]) -> list[_Name]:
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    return sorted(by_size[:MAX_NAMES])


def _measure_part(
    column: Column, mask: NDArray[np.bool_], *, harm: str, part: str, labelled_by: Labelled
) -> Measurement:
    column = column.take(mask)
    scores, labels = column.scores, column.labels
    harmful, harmless = labels == 1, labels == 0
    enough_harmful, enough_harmless = (_is_enough(mask, column.clusters) for mask in (harmful, harmless))
    distinct = len(np.unique(column.clusters))
    # The largest of several probabilities was never calibrated as the probability of any harm.
    is_binned = harm != ANY_HARM and enough_to_bin(column.clusters)
    binned = reliability(scores, labels) if is_binned else None
    ranking = _rank(column) if enough_harmful and enough_harmless else None
    return Measurement(
        harm=harm,
        part=part,
        labels=labelled_by,
        n=len(labels),
        distinct=distinct,
        positives=int(harmful.sum()),
        prevalence=_share(harmful, column.clusters),
        average_precision=ranking.average_precision.value if ranking else None,
        average_precision_low=ranking.average_precision.low if ranking else None,
        average_precision_high=ranking.average_precision.high if ranking else None,
        auroc=ranking.auroc.value if ranking else None,
        auroc_low=ranking.auroc.low if ranking else None,
        auroc_high=ranking.auroc.high if ranking else None,
        optimal_f1=ranking.optimal_f1 if ranking else None,
        f1=ranking.f1 if ranking else None,
        false_positive_rate=_share(column.flagged[harmless], column.clusters[harmless]) if enough_harmless else None,
        false_negative_rate=_share(~column.flagged[harmful], column.clusters[harmful]) if enough_harmful else None,
        harmless_mean=float(scores[harmless].mean()) if enough_harmless else None,
        ece=_clip(binned.error()) if binned else None,
        ece_null=_clip(binned.null_mean()) if binned else None,
        ece_alarm=_clip(binned.alarm()) if binned else None,
    )


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The figures that have bootstrap intervals."""

    average_precision: Estimate
    auroc: Estimate
    optimal_f1: Estimate
    f1: Estimate


def _rank(column: Column) -> _Ranked:
    ranking = Ranking.of(column.scores, column.labels)

    def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        curve = ranking.curve(weights)
        at_threshold = confusion(column.flagged, column.labels, weights)
        return np.array([curve.average_precision(), curve.auroc(), curve.optimal_f1(), at_threshold.f1])

    values = figures(np.ones(len(column.labels)))
    intervals = bootstrap(figures, column.clusters)
    return _Ranked(*(_estimate(float(value), interval) for value, interval in zip(values, intervals, strict=True)))


def _measure_means(columns: Sequence[Column], *, part: str, labelled_by: Labelled) -> Macro | None:
    """Means over the harms that can be ranked, resampled together; None where none has any item."""
    if not any(len(column.labels) for column in columns):
        return None
    columns = [column for column in columns if enough_to_rank(column.labels, column.clusters)]
    if not columns:
        return Macro(part=part, labels=labelled_by, harms=0, average_precision=None, f1=None, f1_undefined=0)
    rankings = [Ranking.of(column.scores, column.labels) for column in columns]
    clusters, index = np.unique(np.concatenate([column.clusters for column in columns]), return_inverse=True)
    rows = np.split(index, np.cumsum([len(column.labels) for column in columns])[:-1])

    def means(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        weighted = [weights[of] for of in rows]
        precisions = [
            ranking.curve(weight).average_precision() for ranking, weight in zip(rankings, weighted, strict=True)
        ]
        return np.array([np.mean(precisions), macro_f1(_confusions(columns, weighted)).value])

    ones = np.ones(len(clusters))
    values = means(ones)
    precision, f1 = (
        _estimate(float(value), interval)
        for value, interval in zip(values, bootstrap(means, np.arange(len(clusters))), strict=True)
    )
    undefined = macro_f1(_confusions(columns, [ones[of] for of in rows])).undefined
    return Macro(
        part=part, labels=labelled_by, harms=len(columns), average_precision=precision, f1=f1, f1_undefined=undefined
    )


def _confusions(columns: Sequence[Column], weights: Sequence[NDArray[np.float64]]) -> list[Confusion]:
    return [confusion(one.flagged, one.labels, weight) for one, weight in zip(columns, weights, strict=True)]


def _estimate(value: float, interval: Interval) -> Estimate:
    """A figure with its interval; where rounding of weighted sums leaves a share by a last bit, it is put back."""
    return Estimate(value=_clip(value), low=_clip(interval.low), high=_clip(interval.high))


def _share(hits: NDArray[np.bool_], clusters: NDArray[np.int64]) -> Estimate:
    """A share with Wilson's interval at the effective number of independent texts.

    Unlike a bootstrap it has width at rates of 0 and 1, where good models are.
    """
    value = float(hits.mean())
    size = effective_size(clusters)
    interval = wilson(value * size, size)
    return Estimate(value=value, low=_clip(float(interval.low)), high=_clip(float(interval.high)))


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
