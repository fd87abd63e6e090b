"""Labelled texts made up for tests: words that mean harm, in sources of their own style."""

from __future__ import annotations

import numpy as np

from export.dataset import HARMS, Dataset

WORDS = ("river", "window", "music", "paper", "garden", "letter", "stone", "morning", "coffee", "train")
HARMFUL = ("poison", "weapon", "idiot", "blood", "razor", "naked")


def labelled(sources: tuple[str, ...], *, each: int, seed: int = 0) -> Dataset:
    """`each` texts of every source: harm h is there where its word is, and nothing else tells."""
    generator = np.random.default_rng(seed)
    texts, names, labels = [], [], []
    for source in sources:
        for number in range(each):
            row = (generator.random(len(HARMS)) < 0.25).astype(np.float32)
            words = [*generator.choice(WORDS, 5), *(word for word, on in zip(HARMFUL, row, strict=True) if on)]
            generator.shuffle(words)
            # Letters that make each text's digest its own, and mean nothing.
            mark = "".join(chr(ord("a") + int(digit)) for digit in f"{number:05d}")
            texts.append(f"{' '.join(words)} {source}{mark}")
            names.append(source)
            labels.append(row)
    columns = np.array(labels, dtype=np.float32)
    return Dataset(
        texts=tuple(texts),
        labels=columns,
        sources=np.array(names),
        roles=np.array(["post"] * len(texts)),
        silver=np.zeros(len(texts), dtype=np.bool_),
        groups=((),) * len(texts),
        unsafe=columns.max(axis=1),
        prompts=("",) * len(texts),
        bad=(),
        held_out=0,
    )
