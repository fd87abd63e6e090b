"""Texts of our own writing of many lengths, on which a converted model is compared with its module."""

from __future__ import annotations

from itertools import cycle, islice

from export.bundling.golden import TEXTS

__all__ = ["texts_of_lengths"]

_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 17, 21, 26, 32, 40, 52, 64, 80, 101, 128, 160, 203, 256, 320, 405, 512)


def texts_of_lengths(words: int) -> list[str]:
    """The golden texts, and texts of about 1 to `words` words made of theirs, two of each length."""
    said = " ".join(text for _, text in TEXTS).split()
    return [text for _, text in TEXTS] + [
        " ".join(islice(cycle(said), start, start + length))
        for length in _LENGTHS
        if length <= words
        for start in (length % len(said), (7 * length) % len(said))
    ]
