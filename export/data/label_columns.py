"""Labelled rows in, one after another; what is known of them out, as columns. Texts and images are let go of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.data.items import Items, Names, any_harm, cluster
from export.data.labelled import Numbered

__all__ = ["LabelColumns", "LabelTable"]

MAX_UNKNOWN = 64
"""Label names that are remembered as no harm of any model: as many as a bundle may have harms."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What is known of n items; see `Items` for the columns."""

    harms: tuple[str, ...]
    ids: tuple[str, ...]
    """(n) the rows' own ids, or file and line."""
    labels: NDArray[np.float32]
    """(n, h) in the order of `harms`: 1 harmful, 0 harmless, NaN unknown."""
    unsafe: NDArray[np.float32]
    """(n,) 1 harmful in some way, 0 in none, NaN unknown."""
    silver: NDArray[np.bool_]
    clusters: NDArray[np.int64]
    kinds: Mapping[str, Names]
    groups: tuple[tuple[str, ...], ...]

    @property
    def human_labels(self) -> NDArray[np.float32]:
        """(n, h): `labels`, NaN also where no person gave them."""
        return np.where(self.silver[:, None], np.float32(np.nan), self.labels)

    def take(self, rows: NDArray[np.int64]) -> LabelTable:
        """The rows of these numbers, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows.tolist()),
            labels=self.labels[rows],
            unsafe=self.unsafe[rows],
            silver=self.silver[rows],
            clusters=self.clusters[rows],
            kinds={kind: Names(names.codes[rows], names.names) for kind, names in self.kinds.items()},
            groups=tuple(self.groups[row] for row in rows.tolist()),
        )

    def items(self, probabilities: NDArray[np.float64], flagged: NDArray[np.bool_], *, harms: tuple[str, ...]) -> Items:
        """The items with what a model with these harms, (n, h) both, makes of them."""
        return Items(
            probabilities=probabilities,
            labels=self.labels[:, [self.harms.index(harm) for harm in harms]],
            any_harm=any_harm(self.labels, self.unsafe),
            flagged=flagged,
            silver=self.silver,
            clusters=self.clusters,
            kinds=self.kinds,
            groups=self.groups,
        )


class LabelColumns:
    """Grows row by row."""

    def __init__(self, harms: tuple[str, ...]) -> None:
        """`harms` are those whose labels are kept."""
        self._harms = harms
        self._ids: list[str] = []
        self._labels: list[list[float]] = []
        self._unsafe: list[float] = []
        self._silver: list[bool] = []
        self._clusters: list[int] = []
        self._names: dict[str, list[str]] = {}
        self._groups: list[tuple[str, ...]] = []
        self._interned: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._unknown: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of labels that are no harm here, sorted."""
        return tuple(sorted(self._unknown))

    def add(self, numbered: Numbered) -> None:
        """Keep what is known of a row, and not its text or image."""
        row = numbered.row
        self._ids.append(row.id or f"{numbered.file}:{numbered.line}")
        self._labels.append([_number(row.labels.get(harm)) for harm in self._harms])
        self._unknown.update(
            harm for harm in row.labels if harm not in self._harms and len(self._unknown) < MAX_UNKNOWN
        )
        self._unsafe.append(_number(row.unsafe))
        self._silver.append(row.silver)
        self._clusters.append(cluster(numbered.content.digest))
        self._groups.append(self._interned.setdefault(row.groups, row.groups))
        names = {
            "role": row.role,
            "source": row.source or numbered.file.partition(".")[0],
            "locale": row.locale or "unknown",
            **numbered.content.kinds,
        }
        for kind, name in names.items():
            self._names.setdefault(kind, []).append(self._interned.setdefault((name,), (name,))[0])

    def table(self) -> LabelTable:
        """The columns of everything that was added."""
        return LabelTable(
            harms=self._harms,
            ids=tuple(self._ids),
            labels=np.array(self._labels, dtype=np.float32).reshape(-1, len(self._harms)),
            unsafe=np.array(self._unsafe, dtype=np.float32),
            silver=np.array(self._silver, dtype=np.bool_),
            clusters=np.array(self._clusters, dtype=np.int64),
            kinds={kind: Names.of(names) for kind, names in self._names.items()},
            groups=tuple(self._groups),
        )


def _number(label: int | None) -> float:
    return np.nan if label is None else float(label)
