"""How well does a way of training do on sources it never saw? Rotations leave whole sources out, train, and look.

A test split of the same sources says how well a model knows its sources; what a platform will send is another source.
So choices between models are made here, and the calibration and test splits stay untouched: a rotation trains on the
train split of the sources that stay and measures on the train and validation splits of those left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from export.data.balance import first_of_each_source
from export.data.dataset import HARMS, Dataset
from export.data.splits import Splits, text_digest
from export.errors import ExportError
from export.measuring.metrics import average_precision, average_precision_interval

__all__ = [
    "ROTATIONS",
    "Figure",
    "Fold",
    "Learner",
    "Rotation",
    "RotationResult",
    "fold",
    "macro",
    "measure",
    "read_results",
    "rotate",
]

MIN_LABELS = 30
"""Fewer harmful or harmless labels than this and a harm has no figure in a rotation [S02]."""

MOST_PER_SOURCE = 3000
"""Texts of a left-out source that are measured on, the first by digest: no source is most of a rotation."""

BENIGN_RATE = 0.05
"""The threshold for any harm flags this share of the harmless validation texts of the sources that stayed."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Sources left out together. Data sets of one family, which share questions or authors, are never parted."""

    name: str
    about: str
    left_out: tuple[str, ...]


ROTATIONS = (
    Rotation(
        "posts",
        "comments, forum posts and what people say to a chatbot",
        ("context_toxicity", "convabuse", "surge_toxicity", "toxic_spans_civil", "vicomtech_stormfront"),
    ),
    Rotation(
        "implicit",
        "hate without slurs and sexism, beside an encyclopaedia's words on the same groups",
        ("bold_wikipedia", "edos", "implicit_hate"),
    ),
    Rotation(
        "prompts",
        "what people ask of a language or image model",
        ("ailuminate", "catqa", "diffusiondb_benign", "jbd_diffusiondb_harmful", "jbd_i2p", "jbd_sneakyprompt"),
    ),
    Rotation(
        "outputs",
        "answers of language models, attacked and not, with the questions",
        (
            *("adaptive_attack_outputs", "advbench", "gptfuzz_outputs", "gptfuzz_questions"),
            *("msts_outputs", "msts_prompts"),
        ),
    ),
    Rotation("dialogue", "replies in a conversation, and advice", ("diasafety", "safetext")),
    Rotation(
        "contrast",
        "adversarial pairs, templates and statements about groups",
        ("hatemojibuild", "sap200", "toxigen_annotated", "toxigen_statements"),
    ),
)
"""Six of them. Every role, every harm and every kind of writing is left out once."""


@dataclass(frozen=True, slots=True)
class Fold:
    """What a rotation learns from and is measured on: row numbers, ascending int64, no text in two of them."""

    rotation: Rotation
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    """Of the sources that stayed: to stop by, and to set a threshold by; never to choose between ways of training."""
    left_out: NDArray[np.int64]


Logits = NDArray[np.float32]

Learner = Callable[[Fold], Logits]
"""Trains on `fold.train`; gives the logits of the validation rows and then of the left-out rows, (v + l, h) float32."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Average precision of one harm, or of `any`, on left-out sources, with its 95 % interval."""

    harm: str
    labels: str
    """`human`, or `all` where people's labels alone are too few."""
    n: int
    positives: int
    average_precision: float
    low: float
    high: float

    @property
    def prevalence(self) -> float:
        """The average precision of chance."""
        return self.positives / self.n


@dataclass(frozen=True, slots=True)
class RotationResult:
    """What one way of training reached in one rotation."""

    rotation: str
    harms: tuple[Figure, ...]
    any_harm: Figure | None
    """The largest probability of a text against whether it is harmful in any way."""
    false_positive_rate: float | None
    """Share of the harmless left-out texts flagged at the threshold that flags `BENIGN_RATE` of the validation's."""
    harmless: int

    @property
    def macro(self) -> float:
        """Mean of the harms' average precision."""
        return float(np.mean([figure.average_precision for figure in self.harms]))


_RESULT = TypeAdapter(RotationResult)


def fold(data: Dataset, splits: Splits, rotation: Rotation) -> Fold:
    """Lay a rotation over the data. Raises `ExportError` where a source it leaves out is not there."""
    missing = sorted(set(rotation.left_out) - set(np.unique(data.sources).tolist()))
    if missing:
        raise ExportError(
            f"the rotation {rotation.name!r} leaves out {missing[0]!r}, which is not in the data: give the whole folder"
        )
    out = np.isin(data.sources, rotation.left_out)
    measured = first_of_each_source(data, splits.learning[out[splits.learning]], most=MOST_PER_SOURCE)
    # Near-copies may not be told apart by source: a text that is measured on is not learnt from under another name.
    seen = {text_digest(data.texts[row]) for row in np.flatnonzero(out).tolist()}
    copied = np.array([text_digest(text) in seen for text in data.texts])
    stays = ~out & ~copied
    return Fold(rotation, splits.train[stays[splits.train]], splits.validation[stays[splits.validation]], measured)


def rotate(
    data: Dataset, splits: Splits, learner: Learner, *, rotations: Sequence[Rotation] = ROTATIONS
) -> Iterator[RotationResult]:
    """Train and measure once per rotation. What is random in it is the learner's business."""
    for rotation in rotations:
        laid = fold(data, splits, rotation)
        yield measure(data, laid, learner(laid))


def measure(data: Dataset, laid: Fold, logits: Logits) -> RotationResult:
    """Measure logits (v + l, h) of the validation and left-out rows of a fold."""
    at = len(laid.validation)
    known, unseen = data.take(laid.validation), data.take(laid.left_out)
    harms = (_harm_figure(unseen, logits[at:, harm], harm) for harm in range(len(HARMS)))
    largest = logits.max(axis=1)
    harmless = unseen.unsafe == 0
    threshold = np.quantile(largest[:at][known.unsafe == 0], 1 - BENIGN_RATE)
    return RotationResult(
        rotation=laid.rotation.name,
        harms=tuple(figure for figure in harms if figure),
        any_harm=_figure("any", "all", largest[at:], unseen.unsafe),
        false_positive_rate=float((largest[at:][harmless] > threshold).mean()) if harmless.any() else None,
        harmless=int(harmless.sum()),
    )


def read_results(path: Path) -> tuple[RotationResult, ...]:
    """Read what `fairway export rotate` wrote, a JSON line per rotation; raise `ExportError` naming a wrong line."""
    results = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}; `fairway export rotate` writes such a file") from None
    for number, line in enumerate(lines, start=1):
        try:
            results.append(_RESULT.validate_json(line))
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise ExportError(f"line {number} of {path} is no result of a rotation: {where} {problem['msg']}") from None
    return tuple(results)


def macro(results: Sequence[RotationResult]) -> float:
    """The one number to choose by: the mean over rotations of the mean over harms of average precision."""
    return float(np.mean([result.macro for result in results]))


def _harm_figure(data: Dataset, scores: Logits, harm: int) -> Figure | None:
    """The figure on people's labels, or on all where those are too few, or none."""
    return _figure(HARMS[harm], "human", scores, data.human_labels[:, harm]) or _figure(
        HARMS[harm], "all", scores, data.labels[:, harm]
    )


def _figure(harm: str, by: str, scores: Logits, labels: NDArray[np.float32]) -> Figure | None:
    known = ~np.isnan(labels)
    scores, labels = scores[known], labels[known]
    positives = int(labels.sum())
    if min(positives, len(labels) - positives) < MIN_LABELS:
        return None
    interval = average_precision_interval(scores, labels)
    return Figure(
        harm=harm,
        labels=by,
        n=len(labels),
        positives=positives,
        average_precision=average_precision(scores, labels),
        low=interval.low,
        high=interval.high,
    )
