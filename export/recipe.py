"""The way from labelled text to a bundle: read → split → train → convert → parity → calibrate → evaluate → pack.

`export.lite` is the only step that knows which model it is. What follows sees a torch module once and logits from then
on, so another model replaces that one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export import lite
from export.balance import row_weights
from export.calibrate import calibrate, calibrator_of
from export.card import write_card
from export.convert import TorchModel, convert
from export.counterfactual import Answers, Sentence, load_templates, measure_counterfactual, refuse_unfair
from export.curves import curves
from export.dataset import HARMS, Dataset, read_dataset
from export.errors import ExportError
from export.evaluate import average_precision_change, measure, measure_macro
from export.figures import draw_precision_recall, draw_reliability, draw_terms
from export.items import items_of
from export.logits import Model, text_logits
from export.pack import CALIBRATION, CARD, EVALUATION, MODEL, TOKENIZER, entries, pack
from export.parity import Parity, check_parity
from export.progress import Say
from export.sources import Source, licence_of
from export.splits import Splits, split
from export.thresholds import default_thresholds
from export.tokens import build_tokenizer
from stream.bundle import Bundle, Manifest, ModelInput
from stream.bundle.evaluation import Conversion, Evaluation
from stream.bundle.manifest import SCHEMA_VERSION, Role, TrainingSource
from stream.scoring.session import open_session
from stream.scoring.tokenize import TokenWindows, WindowTokenizer

__all__ = ["LITE", "Recipe", "build"]

_CALIBRATED_ON = "calibration: 15 % of the texts, by digest; human labels only"

_ROLES: tuple[Role, ...] = ("prompt", "output", "post")

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make of the data; `about` says in the card what kind of model it is."""

    name: str
    version: str
    about: str
    input: ModelInput
    training: lite.Training
    max_false_positive_gap: float | None = None
    """Largest gap over identity terms that still makes a bundle; None measures it and lets every gap pass."""


LITE = Recipe(
    name="lite",
    version="1",
    about=lite.ABOUT,
    # 256 tokens hold 99 of 100 texts of the data whole; a quarter is shared, so that no phrase falls between windows.
    input=ModelInput(max_tokens=256, stride=64, max_windows=8),
    training=lite.Training(),
)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the texts, as the model reads them, and what is known of each."""

    windows: TokenWindows
    data: Dataset


def build(data: Path, out: Path, *, recipe: Recipe, created_at: datetime, say: Say) -> Bundle:
    """Build the bundle `out` from the labelled texts in the folder `data`.

    The same data, recipe, time and machine give the same bytes. Raises `ExportError` where data or model do not allow a
    bundle, naming what to mend.
    """
    dataset = read_dataset(data)
    sources = licence_of(dataset.sources)
    splits = split(dataset.texts)
    _tell(dataset, splits, say)
    _refuse_empty(splits)

    tokenizer = build_tokenizer()
    reader = _reader(tokenizer, recipe.input)
    learning, calibrating, testing = (
        _Part(reader.read(part.texts), part)
        for part in map(dataset.take, (splits.learning, splits.calibration, splits.test))
    )
    candidate = _train(learning, splits, recipe.training, say)
    say("converting to ONNX")
    model = convert(candidate.served)

    say(f"scoring {len(calibrating.data)} texts to calibrate on and {len(testing.data)} to test on")
    session = open_session(model, "cpu", harms=len(HARMS))
    logits = _logits(session, testing)
    parity = check_parity(_logits(TorchModel(candidate.served), testing), logits)
    calibration = calibrate(
        _logits(session, calibrating),
        calibrating.data.human_labels,
        harms=HARMS,
        split=_CALIBRATED_ON,
        created_at=created_at,
    )

    say("evaluating")
    calibrator = calibrator_of(calibration, HARMS)
    thresholds = default_thresholds(calibration, HARMS)
    items = items_of(testing.data, calibrator.apply(logits), thresholds.act_at)

    def answer(sentences: Sequence[Sentence]) -> Answers:
        windows = reader.read([sentence.text for sentence in sentences])
        probabilities = calibrator.apply(text_logits(session, windows, harms=len(HARMS)))
        return Answers(
            probability=probabilities.max(axis=1),
            flagged=np.asarray((probabilities >= thresholds.act_at).any(axis=1)),
            not_allowed=np.asarray((probabilities >= thresholds.allow_below).any(axis=1)),
        )

    counterfactual = measure_counterfactual(answer, load_templates())
    if recipe.max_false_positive_gap is not None:
        refuse_unfair(counterfactual, max_gap=recipe.max_false_positive_gap)
    evaluation = Evaluation(
        created_at=created_at,
        split_rows=splits.sizes(),
        measurements=measure(items, harms=HARMS),
        conversion=_conversion(parity, logits, _logits(TorchModel(candidate.trained), testing), testing.data),
        macro=measure_macro(items, harms=HARMS),
        act_at=dict(zip(HARMS, thresholds.act_at.tolist(), strict=True)),
        counterfactual=counterfactual,
    )
    drawn = curves(items, harms=HARMS)
    return _pack(
        out,
        recipe,
        {
            MODEL: model,
            TOKENIZER: tokenizer,
            CALIBRATION: calibration.model_dump_json().encode(),
            EVALUATION: evaluation.model_dump_json().encode(),
            "figures/precision_recall.svg": draw_precision_recall(drawn),
            "figures/reliability.svg": draw_reliability(drawn),
            "figures/identity_terms.svg": draw_terms(counterfactual),
        },
        evaluation=evaluation,
        training_data=_count_rows(learning.data, sources),
        sources=sources,
        created_at=created_at,
    )


def _tell(dataset: Dataset, splits: Splits, say: Say) -> None:
    say(f"read {len(dataset)} labelled texts of {len(np.unique(dataset.sources))} sources: {splits.sizes()}")
    if dataset.held_out:
        say(f"left out {dataset.held_out} lines of other splits than train")
    for bad in dataset.bad:
        say(f"left out line {bad.line} of {bad.file}: {bad.why}")


def _refuse_empty(splits: Splits) -> None:
    empty = [name for name, rows in splits.sizes().items() if not rows]
    if empty:
        raise ExportError(f"too few texts: {' and '.join(empty)} would be empty")


def _reader(tokenizer: bytes, model_input: ModelInput) -> WindowTokenizer:
    return WindowTokenizer(
        tokenizer,
        window=model_input.max_tokens,
        overlap=model_input.stride,
        max_windows=model_input.max_windows,
    )


def _train(learning: _Part, splits: Splits, training: lite.Training, say: Say) -> lite.Candidate:
    data = learning.data
    return lite.train(
        lite.TrainingSet(
            windows=learning.windows,
            labels=data.labels,
            human_labels=data.human_labels,
            weights=row_weights(data.sources, data.silver),
            train=np.flatnonzero(np.isin(splits.learning, splits.train)),
            validation=np.flatnonzero(np.isin(splits.learning, splits.validation)),
        ),
        training,
        say=say,
    )


def _logits(model: Model, part: _Part) -> Logits:
    return text_logits(model, part.windows, harms=len(HARMS))


def _conversion(parity: Parity, served: Logits, trained: Logits, data: Dataset) -> Conversion:
    return Conversion(
        parity_max_abs_logit=parity.max_abs_logit,
        parity_texts=parity.texts,
        average_precision_change=average_precision_change(served, trained, data.human_labels, harms=HARMS),
    )


def _count_rows(data: Dataset, sources: Sequence[Source]) -> tuple[TrainingSource, ...]:
    return tuple(
        TrainingSource(source=source.name, licence=source.licence, rows=int((data.sources == source.name).sum()))
        for source in sources
    )


def _pack(
    out: Path,
    recipe: Recipe,
    files: dict[str, bytes],
    *,
    evaluation: Evaluation,
    training_data: tuple[TrainingSource, ...],
    sources: Sequence[Source],
    created_at: datetime,
) -> Bundle:
    """Add the card and the manifest, and write the folder."""
    card = write_card(
        title=f"{recipe.name} {recipe.version}",
        about=recipe.about,
        model_input=recipe.input,
        evaluation=evaluation,
        training_data=training_data,
        sources=sources,
        figures=[name for name in files if name.startswith("figures/")],
    )
    files = {**files, CARD: card.encode()}
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=recipe.name,
        version=recipe.version,
        created_at=created_at,
        harms=HARMS,
        roles=_ROLES,
        input=recipe.input,
        artefacts={"cpu": MODEL},
        tokenizer=TOKENIZER,
        calibration=CALIBRATION,
        evaluation=EVALUATION,
        card=CARD,
        training_data=training_data,
        code_version=f"fairway {installed_version('fairway')}",
        files=entries(files),
    )
    return pack(out, manifest, files=files)
