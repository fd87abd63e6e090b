"""Labelled texts in, what a step of training reads out: token windows, targets, and how much each label counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.data.balance import first_of_each_source
from export.data.dataset import Dataset
from export.errors import ExportError
from export.training.recipe import Balance
from stream.bundle.manifest import TextForm
from stream.scoring.tokenize import TokenWindows, WindowTokenizer

__all__ = ["Examples", "keep_rows", "make_examples"]

_ONE_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Examples:
    """n texts, one window each. A label that is unknown has weight 0, whatever its target says.

    `targets` is (n, h) float32 in [0, 1]; `weights` is (n, h) float32, 0 where unknown; before classes are balanced
    the mean weight of a row is 1.
    """

    windows: TokenWindows
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def digest(self) -> str:
        """The sha256 of everything that is learnt from: a checkpoint belongs to these examples and no others."""
        parts = (self.windows.tokens, self.windows.windows.lengths, self.targets, self.weights)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def keep_rows(data: Dataset, rows: NDArray[np.int64], balance: Balance) -> NDArray[np.int64]:
    """Those of `rows` to learn from, ascending: with a label, and the first of each source by digest."""
    rows = rows[~np.isnan(data.labels[rows]).all(axis=1)]
    return first_of_each_source(data, rows, most=balance.most_per_source) if balance.most_per_source else rows


def make_examples(data: Dataset, balance: Balance, form: TextForm, reader: WindowTokenizer) -> Examples:
    """Read the texts of `data` as the service would.

    Raises `ExportError` where `balance.trust` names a source that is not in the data.
    """
    known = ~np.isnan(data.labels)
    targets = np.nan_to_num(data.labels)
    drawn = np.where(data.silver, np.float32(balance.silver_smoothing), np.float32(0))[:, None]
    return Examples(
        windows=reader.read(data.as_read(form)),
        targets=np.asarray(targets + drawn * (_ONE_HALF - targets), dtype=np.float32),
        weights=np.asarray(_class_balanced(_row_weights(data, balance)[:, None] * known, targets, balance), np.float32),
    )


def _class_balanced(weights: NDArray[np.float64], labels: NDArray[np.float32], balance: Balance) -> NDArray[np.float64]:
    """(n, h) `weights`, those of harmful labels times the odds of harmless ones, by weight, to the recipe's power."""
    harmful = (weights * labels).sum(axis=0)
    odds = np.where(harmful > 0, (weights.sum(axis=0) - harmful) / np.where(harmful > 0, harmful, 1), 1)
    return np.asarray(np.where(labels == 1, weights * odds**balance.class_power, weights))


def _row_weights(data: Dataset, balance: Balance) -> NDArray[np.float64]:
    """(n,) with mean 1: the recipe's trust in the label over the size of its source, to the recipe's power."""
    names, index, sizes = np.unique(data.sources, return_inverse=True, return_counts=True)
    unknown = sorted(set(balance.trust) - set(names.tolist()))
    if unknown:
        raise ExportError(f"balance.trust names the source {unknown[0]!r}, which is not in the data")
    trust = np.array([balance.trust.get(name, 1.0) for name in names.tolist()])
    weights = np.where(data.silver, balance.silver_weight, 1.0) * (trust / sizes**balance.source_power)[index]
    return np.asarray(weights / weights.mean())
