"""Scored, labelled texts in, the curves that figures draw out: precision over recall, and reliability bins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from export.data.items import Items
from export.measuring.evaluate import Column, columns_of, enough_to_bin, enough_to_rank, parts_of
from export.measuring.metrics import Ranking, reliability
from stream.bundle.evaluation import ANY_HARM

__all__ = ["Bins", "HarmCurves", "Line", "curves", "kinds_of"]

_POINTS = 200
"""Points of a drawn curve, evenly over recall: more than a picture has pixels for, and a file that stays small."""


@dataclass(frozen=True, slots=True)
class Line:
    """Precision at rising recall; every point is one of the exact curve."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bins:
    """The reliability bins that hold anything: mean probability, share harmful, n, and the null band's half-width.

    A perfect model's share is within `band` of the mean probability in 95 of 100 bins [S07].
    """

    probability: tuple[float, ...]
    share: tuple[float, ...]
    n: tuple[int, ...]
    band: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HarmCurves:
    """One harm on one part; a curve is None where there are too few texts to publish it."""

    harm: str
    part: str
    labels: str
    n: int
    positives: int
    line: Line | None
    bins: Bins | None

    def as_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return asdict(self)


def curves(items: Items, *, harms: tuple[str, ...]) -> tuple[HarmCurves, ...]:
    """The curves of every harm and part with enough texts: by people's labels, or by rules' where there are no others.

    `any_harm` has no bins: the largest of several probabilities is not a probability that was calibrated.
    """
    labelled_by, by = ("human", ~items.silver) if not items.silver.all() else ("silver", items.silver)
    parts = list(parts_of(items))
    drawn = (
        _draw(column.take(by & inside), harm, part, labelled_by)
        for harm, column in zip((*harms, ANY_HARM), columns_of(items), strict=True)
        for part, inside in parts
    )
    return tuple(one for one in drawn if one.line or one.bins)


def _draw(column: Column, harm: str, part: str, labelled_by: str) -> HarmCurves:
    is_ranked = enough_to_rank(column.labels, column.clusters)
    is_binned = harm != ANY_HARM and enough_to_bin(column.clusters)
    return HarmCurves(
        harm=harm,
        part=part,
        labels=labelled_by,
        n=len(column.labels),
        positives=int(column.labels.sum()),
        line=_line(column) if is_ranked else None,
        bins=_bins(column) if is_binned else None,
    )


def _line(column: Column) -> Line:
    curve = Ranking.of(column.scores, column.labels).curve()
    recall, precision = curve.recall, curve.precision
    at = np.unique(np.minimum(np.searchsorted(recall, np.linspace(0, 1, _POINTS)), len(recall) - 1))
    return Line(_rounded(recall[at]), _rounded(precision[at]))


def _bins(column: Column) -> Bins:
    binned = reliability(column.scores, column.labels)
    held = binned.n > 0
    n = binned.n[held]
    return Bins(
        probability=_rounded(binned.probability[held] / n),
        share=_rounded(binned.harmful[held] / n),
        n=tuple(int(count) for count in n),
        band=_rounded(1.96 * np.sqrt(binned.variance[held]) / n),
    )


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(values, 4).tolist())


def kinds_of(drawn: tuple[HarmCurves, ...]) -> Iterator[str]:
    """The kinds of part (`role`, `source`, ...) of which two or more have curves, in the order they come in."""
    names: dict[str, set[str]] = {}
    for one in drawn:
        kind, _, name = one.part.partition("=")
        names.setdefault(kind, set()).add(name)
    return (kind for kind, found in names.items() if kind != "all" and len(found) > 1)
