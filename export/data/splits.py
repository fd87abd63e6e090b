"""Which text is for training, validation, calibration or testing: decided by the text's own digest, once and for all.

A text keeps its place when the data grows, and two texts that differ only in case, punctuation, digits or emoji share
one, so that a near-copy of a training text never flatters a test. Images are divided by the same shares.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from export.data.dataset import Dataset, read_dataset
from export.errors import ExportError
from export.progress import Say

__all__ = ["SPLIT_NAMES", "SplitName", "Splits", "check_disjoint", "read_split", "split", "split_of", "text_digest"]

SplitName = Literal["train", "validation", "calibration", "test"]

SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)

_BOUNDS = (0.63, 0.70, 0.85)
"""Shares of train, validation, calibration and test end here. Rare harms have some 400 positives in all: with 15 %
each, calibration and test keep the 30 that a figure needs to be published [S02]."""

_WORDS = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Splits:
    """Row numbers of each split, ascending int64; together they are every row, and no row is in two."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    calibration: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def learning(self) -> NDArray[np.int64]:
        """Rows to train on or to choose a model by, ascending."""
        return np.union1d(self.train, self.validation)

    def sizes(self) -> dict[SplitName, int]:
        """Number of rows of each split."""
        return {name: len(getattr(self, name)) for name in SPLIT_NAMES}


def read_split(data: Path, say: Say) -> tuple[Dataset, Splits]:
    """Read the labelled texts in the folder `data`, split them, and say what was left out. Raises `ExportError`."""
    dataset = read_dataset(data)
    splits = split(dataset.texts)
    say(f"read {len(dataset)} labelled texts of {len(np.unique(dataset.sources))} sources: {splits.sizes()}")
    if dataset.held_out:
        say(f"left out {dataset.held_out} lines of other splits than train")
    for bad in dataset.bad:
        say(f"left out line {bad.line} of {bad.file}: {bad.why}")
    return dataset, splits


def text_digest(text: str) -> str:
    """The sha256 hex digest of the text's letters, in lower case; of the text itself where it has none."""
    words = " ".join(_WORDS.findall(text.lower()))
    return hashlib.sha256((words or text).encode("utf-8", "surrogatepass")).hexdigest()


def split(texts: Sequence[str]) -> Splits:
    """Split n texts by digest. Shares hold within every source as well, since a digest knows nothing of sources."""
    digests = [text_digest(text) for text in texts]
    part = np.array([split_of(digest) for digest in digests], dtype=np.str_)
    splits = Splits(*(np.flatnonzero(part == name) for name in SPLIT_NAMES))
    check_disjoint(splits, digests)
    return splits


def split_of(digest: str) -> SplitName:
    """The split of what has this hex digest."""
    return SPLIT_NAMES[bisect_right(_BOUNDS, int(digest[:15], 16) / 16**15)]


def check_disjoint(splits: Splits, digests: Sequence[str]) -> None:
    """Raise `ExportError` if a digest is in two splits; cheap, and the one mistake that makes every figure a lie."""
    seen: dict[str, str] = {}
    for name in SPLIT_NAMES:
        for row in getattr(splits, name):
            if seen.setdefault(digests[row], name) != name:
                raise ExportError(f"the text in row {row} is in both {seen[digests[row]]} and {name}")
