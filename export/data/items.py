"""Scored, labelled texts or images as columns: what every figure is computed from, wherever the scores came from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.data.dataset import Dataset
from export.data.splits import text_digest

__all__ = ["LENGTHS", "PIXELS", "Items", "Names", "any_harm", "cluster", "items_of", "length_bucket", "pixel_bucket"]

LENGTHS = ("0-49", "50-199", "200-999", "1000+")
"""Length buckets, in characters: about a remark, a post, a page, and what is read in several windows."""

_LENGTH_STARTS = (50, 200, 1000)

PIXELS = ("0-49999 pixels", "50000-499999 pixels", "500000-1999999 pixels", "2000000+ pixels")
"""Buckets of images: less than most models read (224 x 224), a thumbnail, a screen, a photograph."""

_PIXEL_STARTS = (50_000, 500_000, 2_000_000)

Labels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Names:
    """One name for each of n items, as numbers: the longest name is stored once and not n times."""

    codes: NDArray[np.int64]
    """(n,) index into `names`."""
    names: tuple[str, ...]
    """Each name once, sorted."""

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Number these names."""
        names = list(names)
        distinct = sorted(set(names))
        index = {name: code for code, name in enumerate(distinct)}
        return cls(np.array([index[name] for name in names], dtype=np.int64), tuple(distinct))


@dataclass(frozen=True, slots=True)
class Items:
    """n texts, or images; row i of every column is the same one. They themselves are not kept."""

    probabilities: NDArray[np.float64]
    """(n, h) calibrated, one column per harm."""
    labels: Labels
    """(n, h): 1 harmful, 0 harmless, NaN unknown."""
    any_harm: Labels
    """(n,) whether any harm applies, by the same code."""
    flagged: NDArray[np.bool_]
    """(n, h) whether the threshold in force takes the item for harmful."""
    silver: NDArray[np.bool_]
    """(n,) whether a rule, a keyword or another model gave the labels, not a person."""
    clusters: NDArray[np.int64]
    """(n,) equal for copies: texts that differ in nothing but case, punctuation, digits or emoji, images that differ in
    their metadata alone."""
    kinds: Mapping[str, Names]
    """`role`, `source` and the like, by which the items are divided."""
    groups: tuple[tuple[str, ...], ...]
    """(n) groups that each item is about, as `axis:group`."""

    def __len__(self) -> int:
        return len(self.clusters)


def items_of(data: Dataset, probabilities: NDArray[np.float64], act_at: NDArray[np.float64]) -> Items:
    """The n texts of `data` with their (n, h) probabilities, flagged at the (h,) thresholds `act_at`."""
    return Items(
        probabilities=probabilities,
        labels=data.labels,
        any_harm=any_harm(data.labels, data.unsafe),
        flagged=probabilities >= act_at,
        silver=data.silver,
        clusters=np.array([cluster(text_digest(text)) for text in data.texts], dtype=np.int64),
        kinds={
            "role": Names.of(data.roles.tolist()),
            "source": Names.of(data.sources.tolist()),
            "length": Names.of(map(length_bucket, data.texts)),
        },
        groups=data.groups,
    )


def any_harm(labels: Labels, unsafe: Labels | None = None) -> Labels:
    """Whether any harm applies to n texts: (n,), 1, 0 or NaN, from (n, h) labels and, if known, (n,) `unsafe`.

    1 where a label or `unsafe` is 1; 0 where `unsafe` is 0 or every label is; unknown otherwise: a text of which one
    harm is ruled out and five were never asked about is not harmless [S02].

    >>> any_harm(np.array([[1, np.nan], [0, 0], [0, np.nan]], np.float32)).tolist()
    [1.0, 0.0, nan]
    """
    unsafe = np.full(len(labels), np.nan, dtype=np.float32) if unsafe is None else unsafe
    harmful = (labels == 1).any(axis=1) | (unsafe == 1)
    harmless = (labels == 0).all(axis=1) | (unsafe == 0)
    return np.where(harmful, 1, np.where(harmless, 0, np.nan)).astype(np.float32)


def cluster(digest: str) -> int:
    """A number that copies share: 60 bits of the hex digest that also decides their split."""
    return int(digest[:15], 16)


def length_bucket(text: str) -> str:
    """The bucket of `LENGTHS` that a text is in."""
    return LENGTHS[bisect_right(_LENGTH_STARTS, len(text))]


def pixel_bucket(pixels: int) -> str:
    """The bucket of `PIXELS` that an image of so many is in."""
    return PIXELS[bisect_right(_PIXEL_STARTS, pixels)]
