"""Two bundles on the same labelled data in; differences with paired intervals, and who is decided on otherwise, out.

Both are moved by the same resamples, so that what the items have in common cancels and the difference is what is left.
They are named by their ids only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.data.items import Items
from export.measuring.evaluate import Column, columns_of, enough_to_rank, parts_of
from export.measuring.metrics import Ranking, confusion
from export.measuring.resample import Interval, bootstrap
from export.measuring.scored import Judge, Scored
from stream.bundle.evaluation import ANY_HARM
from stream.bundle.manifest import Modality
from stream.errors import ConfigError

__all__ = ["Change", "Comparison", "Difference", "PartChange", "compare"]

_DRAWS = 500

MACRO = "macro"


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one harm (or any, or the mean over harms): both bundles' and second minus first, with interval."""

    figure: Literal["average precision", "AUROC", "F1 at threshold"]
    harm: str
    n: int
    positives: int
    first: float
    second: float
    difference: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class PartChange:
    """What becomes of the items of one part: how many are decided on more or less severely, and who gains by it."""

    part: str
    n: int
    stricter: int
    milder: int
    harmless: int
    """Items known to be harmless."""
    harmless_not_allowed: float | None
    """Change of the share of them that is not allowed straight away; null with fewer than 30."""
    harmless_interval: Interval | None
    harmful: int
    harmful_not_allowed: float | None
    """The same of the items known to be harmful, where more is better."""
    harmful_interval: Interval | None


@dataclass(frozen=True, slots=True)
class Change:
    """A text, or an image, on which the two decide otherwise."""

    id: str
    first: str
    second: str
    probabilities: dict[str, tuple[float, float]]
    """By harm, first and second."""
    moved: float
    """The largest change of a probability."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything measured about two bundles on the same texts, or images."""

    first: str
    second: str
    modality: Modality
    items: int
    harms: tuple[str, ...]
    """Those that both score."""
    labels: Literal["human", "silver"]
    differences: tuple[Difference, ...]
    moved: dict[str, float]
    """By harm, the mean size of the change of its probability."""
    reselected: dict[str, int]
    """By harm, items for which harmless, harmful or no answer became another of the three."""
    actions: dict[tuple[str, str], int]
    """Items by action of the first and of the second."""
    parts: tuple[PartChange, ...]
    changes: tuple[Change, ...]
    """Largest change of a probability first."""


def compare(first: Judge, second: Judge, scored: Scored) -> Comparison:
    """Compare two judges on the items that both of them scored. Raises `ConfigError` where they have no harm in common.

    Figures are by people's labels, or by rules' where there are no others.
    """
    harms = tuple(harm for harm in first.harms if harm in second.harms)
    if not harms:
        raise ConfigError(f"{first.name} and {second.name} have no harm in common: there is nothing to compare")
    a, b = (_shared(items, judge, harms) for items, judge in zip(scored.items, (first, second), strict=True))
    labelled: Literal["human", "silver"] = "silver" if a.silver.all() else "human"
    inside = a.silver if labelled == "silver" else ~a.silver
    probabilities = np.stack([a.probabilities, b.probabilities])
    selections = [
        of.selections[:, [judge.harms.index(harm) for harm in harms]]
        for of, judge in zip(scored.decided, (first, second), strict=True)
    ]
    ranks = _severities(first, second, scored)
    names = [
        np.array(judge.policy.actions)[of.actions] for judge, of in zip((first, second), scored.decided, strict=True)
    ]
    return Comparison(
        first=f"{first.name}, {first.digest}",
        second=f"{second.name}, {second.digest}",
        modality=scored.modality,
        items=len(scored.ids),
        harms=harms,
        labels=labelled,
        differences=tuple(_differences(a, b, inside, harms)),
        moved=dict(zip(harms, np.abs(probabilities[1] - probabilities[0]).mean(axis=0).tolist(), strict=True)),
        reselected=dict(zip(harms, (selections[0] != selections[1]).sum(axis=0).tolist(), strict=True)),
        actions=dict(sorted(Counter(zip(*(of.tolist() for of in names), strict=True)).items())),
        parts=tuple(_part(part, mask, a, ranks) for part, mask in parts_of(a)),
        changes=tuple(_changes(scored.ids, names, probabilities, harms)),
    )


def _shared(items: Items, judge: Judge, harms: tuple[str, ...]) -> Items:
    """The columns of these harms."""
    at = [judge.harms.index(harm) for harm in harms]
    return Items(
        probabilities=items.probabilities[:, at],
        labels=items.labels[:, at],
        any_harm=items.any_harm,
        flagged=items.flagged[:, at],
        silver=items.silver,
        clusters=items.clusters,
        kinds=items.kinds,
        groups=items.groups,
    )


def _severities(first: Judge, second: Judge, scored: Scored) -> NDArray[np.int8]:
    """(2, n) rank of each decision's action; raise `ConfigError` where the two do not rank them alike."""
    if first.policy.actions != second.policy.actions:
        raise ConfigError("the two policies order their actions differently: compare under one policy")
    return np.stack([decided.actions for decided in scored.decided])


def _differences(a: Items, b: Items, inside: NDArray[np.bool_], harms: tuple[str, ...]) -> Iterator[Difference]:
    pairs = [
        (harm, one.take(inside), other.take(inside))
        for harm, one, other in zip((*harms, ANY_HARM), columns_of(a), columns_of(b), strict=True)
    ]
    ranked = [pair for pair in pairs if enough_to_rank(pair[1].labels, pair[1].clusters)]
    for harm, one, other in ranked:
        yield from _paired([(one, other)], harm)
    of_harms = [(one, other) for harm, one, other in ranked if harm != ANY_HARM]
    if len(of_harms) > 1:
        yield from _paired(of_harms, MACRO)


def _paired(pairs: Sequence[tuple[Column, Column]], harm: str) -> Iterator[Difference]:
    """Figures of both and their differences, means over the pairs, all pairs moved by the same resamples of texts."""
    rankings = [[Ranking.of(column.scores, column.labels) for column in pair] for pair in pairs]
    clusters, index = np.unique(np.concatenate([one.clusters for one, _ in pairs]), return_inverse=True)
    rows = np.split(index, np.cumsum([len(one.labels) for one, _ in pairs])[:-1])

    def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2, 3): by bundle, the three figures."""
        values = np.empty((len(pairs), 2, 3))
        for at, (pair, of) in enumerate(zip(pairs, rows, strict=True)):
            for which, column in enumerate(pair):
                curve = rankings[at][which].curve(weights[of])
                f1 = confusion(column.flagged, column.labels, weights[of]).f1
                values[at, which] = curve.average_precision(), curve.auroc(), f1
        return np.asarray(values.mean(axis=0))

    both = figures(np.ones(len(clusters)))
    intervals = bootstrap(
        lambda weights: np.asarray(np.diff(figures(weights), axis=0)[0]), np.arange(len(clusters)), draws=_DRAWS
    )
    names: tuple[Literal["average precision", "AUROC", "F1 at threshold"], ...] = (
        "average precision",
        "AUROC",
        "F1 at threshold",
    )
    for at, (name, interval) in enumerate(zip(names, intervals, strict=True)):
        yield Difference(
            figure=name,
            harm=harm,
            n=sum(len(one.labels) for one, _ in pairs),
            positives=int(sum(one.labels.sum() for one, _ in pairs)),
            first=float(both[0, at]),
            second=float(both[1, at]),
            difference=float(both[1, at] - both[0, at]),
            interval=interval,
        )


def _part(part: str, mask: NDArray[np.bool_], items: Items, ranks: NDArray[np.int8]) -> PartChange:
    harmless, harmful = (mask & (items.any_harm == label) for label in (0, 1))
    moved = np.sign(ranks[1].astype(np.int64) - ranks[0])
    # The least severe action is `allow`; whether a text is allowed straight away is what its author notices.
    not_allowed = (ranks[1] > 0).astype(np.float64) - (ranks[0] > 0)
    less, more = (_change(not_allowed[rows], items.clusters[rows]) for rows in (harmless, harmful))
    return PartChange(
        part=part,
        n=int(mask.sum()),
        stricter=int((moved[mask] > 0).sum()),
        milder=int((moved[mask] < 0).sum()),
        harmless=int(harmless.sum()),
        harmless_not_allowed=less[0] if less else None,
        harmless_interval=less[1] if less else None,
        harmful=int(harmful.sum()),
        harmful_not_allowed=more[0] if more else None,
        harmful_interval=more[1] if more else None,
    )


_MIN_TEXTS = 30  # as for every other share that is published


def _change(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> tuple[float, Interval] | None:
    """The mean of paired differences with its interval."""
    if len(np.unique(clusters)) < _MIN_TEXTS:
        return None
    (interval,) = bootstrap(lambda weights: np.array([weights @ values / weights.sum()]), clusters, draws=_DRAWS)
    return float(values.mean()), interval


def _changes(
    ids: Sequence[str], names: Sequence[NDArray[np.str_]], probabilities: NDArray[np.float64], harms: tuple[str, ...]
) -> Iterator[Change]:
    moved = np.abs(probabilities[1] - probabilities[0]).max(axis=1)
    changed = np.flatnonzero(names[0] != names[1])
    for row in changed[np.argsort(-moved[changed], kind="stable")].tolist():
        both = {
            harm: (float(probabilities[0, row, i]), float(probabilities[1, row, i])) for i, harm in enumerate(harms)
        }
        yield Change(ids[row], str(names[0][row]), str(names[1][row]), both, float(moved[row]))
