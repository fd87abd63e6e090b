"""Labelled texts made up for tests: words that mean harm, in sources of their own style."""

from __future__ import annotations

import json
import random

import numpy as np

from export.data.dataset import HARMS, Dataset

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


# One made-up word marks each harm; it is misleading in one text of ten, so that there is something to calibrate.
MARKS = dict(zip(HARMS, ("apple", "banana", "cherry", "garden", "melon", "olive"), strict=True))
FILLER = ("river", "stone", "cloud", "paper", "window", "music", "winter", "summer", "market", "engine", "letter")


def made_up_lines(count: int) -> list[str]:
    """Lines of made-up texts, a third of whose labels are unknown and a tenth of which are silver."""
    draw = random.Random(5)
    lines = []
    for number in range(count):
        harmful = {harm for harm in HARMS if draw.random() < 0.3}
        shown = {harm for harm in HARMS if (harm in harmful) != (draw.random() < 0.1)}
        words = draw.choices(FILLER, k=draw.randrange(3, 40)) + [MARKS[harm] for harm in sorted(shown)]
        draw.shuffle(words)
        labels = {harm: None if draw.random() < 1 / 3 else int(harm in harmful) for harm in HARMS}
        source = "edos" if number % 3 else "advbench"
        lines.append(
            json.dumps(
                {
                    "text": " ".join(words),
                    "source": source,
                    "role": draw.choice(["prompt", "output", "post"]),
                    "labels": labels,
                    "split": "train",
                    "silver": draw.random() < 0.1,
                }
            )
        )
    return lines
