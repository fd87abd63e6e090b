"""The way from labelled text to a bundle: read → split → make → calibrate → flips → evaluate → gate → pack.

Making is the only step that knows which model it is: train the small one, or convert and round an encoder that was
trained before. What follows sees artefacts and logits, so another model replaces that one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.bundling.pack import CALIBRATION, CARD, EVALUATION, TOKENIZER, manifest_of, pack
from export.counterfactual import Answers, Sentence, load_templates, measure_counterfactual, refuse_unfair
from export.counterfactual.measure import MAX_GAP
from export.data.dataset import HARMS, Dataset
from export.data.items import items_of
from export.data.sources import licence_of
from export.data.splits import Splits, read_split
from export.errors import ExportError
from export.graphs.parity import Flips, check_flips, count_flips
from export.making.encoder import LIMITS as ENCODER_LIMITS
from export.making.encoder import about, make_encoder, training_of
from export.making.lite import make_lite
from export.making.parts import Made, Make, Material, Part
from export.measuring.calibrate import calibrate, calibrator_of
from export.measuring.curves import curves
from export.measuring.evaluate import average_precision_change, measure, measure_macro
from export.measuring.rotations import Figure, RotationResult
from export.measuring.thresholds import Thresholds, as_logits, default_thresholds
from export.models import lite
from export.models.logits import Model, text_logits
from export.progress import Say
from export.reporting.card import write_card
from export.reporting.figures import draw_all
from export.text.tokens import build_moderator_tokenizer, build_tokenizer
from stream.bundle import Bundle, TextInput
from stream.bundle.calibration import CalibrationFile
from stream.bundle.evaluation import Conversion, Counterfactual, Estimate, Evaluation, LeftOut
from stream.bundle.manifest import Role, TextForm, TrainingSource
from stream.scoring.form import compose
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import WindowTokenizer
from stream.uncertainty.calibration import Calibrator

__all__ = ["LITE", "Recipe", "build", "encoder"]

_CALIBRATED_ON = "calibration: 15 % of the texts, by digest; human labels only"

_ROLES: tuple[Role, ...] = ("prompt", "output", "post")

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make of the data; `about` says in the card what kind of model it is."""

    name: str
    version: str
    about: str
    limits: str
    """What the card says the model cannot do."""
    input: TextInput
    tokenizer: Callable[[], bytes]
    make: Make
    max_false_positive_gap: float | None = None
    """Largest gap over identity terms that still makes a bundle; None measures it and lets every gap pass."""
    gates_flips: bool = True
    """Whether more decisions turned round by rounding than `MAX_FLIPS` make no bundle."""


# 256 tokens hold 99 of 100 texts of the data whole; a quarter is shared, so that no phrase falls between windows.
_INPUT = TextInput(max_tokens=256, stride=64, max_windows=8)

LITE = Recipe(
    name="lite",
    version="1",
    about=lite.ABOUT,
    limits=lite.LIMITS,
    input=_INPUT,
    tokenizer=build_tokenizer,
    make=make_lite(lite.Training()),
    gates_flips=False,
)


def encoder(weights: Path) -> Recipe:
    """An encoder, the default moderator say, from weights that `fairway export train` has made by a recipe file.

    Raises `ExportError` where nothing says how the weights came about.
    """
    training = training_of(weights)
    return Recipe(
        name=training.recipe.name,
        version="1",
        about=about(training),
        limits=ENCODER_LIMITS,
        input=_INPUT.model_copy(update={"form": training.recipe.form}),
        tokenizer=build_moderator_tokenizer,
        make=make_encoder(weights),
        max_false_positive_gap=MAX_GAP,
    )


def build(
    data: Path,
    out: Path,
    *,
    recipe: Recipe,
    created_at: datetime,
    say: Say,
    rotations: Sequence[RotationResult] = (),
) -> Bundle:
    """Build the bundle `out` from the labelled texts in the folder `data`; its card shows how `rotations` went.

    The same data, recipe, time and machine give the same bytes. Raises `ExportError` where data or model do not allow a
    bundle, naming what to mend.
    """
    dataset, splits = _load(data, say)
    tokenizer = recipe.tokenizer()
    reader = WindowTokenizer.of(tokenizer, recipe.input)
    learning, calibrating, testing = (
        _read(reader, recipe.input, dataset.take(rows)) for rows in (splits.learning, splits.calibration, splits.test)
    )
    made = recipe.make(Material(learning, calibrating, splits), say)

    say(f"scoring {len(calibrating.data)} texts to calibrate on and {len(testing.data)} to test on")
    session = open_session(made.artefacts["cpu"][1], "cpu", signature=reads_tokens(len(HARMS)))
    calibrating_logits, logits = _logits(session, calibrating), _logits(session, testing)
    calibration = _calibrate(calibrating.data, calibrating_logits, created_at)
    judge = _Judge.of(session, reader, recipe.input.form, calibration)
    flips = _flips(recipe, made, calibrating_logits, as_logits(judge.thresholds.act_at, judge.calibrator))

    say("evaluating")
    items = items_of(testing.data, judge.calibrator.apply(logits), judge.thresholds.act_at)
    counterfactual = _counterfactual(recipe, judge)
    evaluation = Evaluation(
        created_at=created_at,
        split_rows=splits.sizes(),
        measurements=measure(items, harms=HARMS),
        conversion=_conversion(made, flips, logits, testing),
        macro=measure_macro(items, harms=HARMS),
        act_at=dict(zip(HARMS, judge.thresholds.act_at.tolist(), strict=True)),
        counterfactual=counterfactual,
        left_out=tuple(map(_left_out, rotations)),
    )
    return _pack(
        out,
        recipe,
        {
            **dict(made.artefacts.values()),
            TOKENIZER: tokenizer,
            CALIBRATION: calibration.model_dump_json().encode(),
            EVALUATION: evaluation.model_dump_json().encode(),
            **draw_all(curves(items, harms=HARMS), counterfactual),
        },
        evaluation=evaluation,
        training_data=_training_data(made, learning.data),
        created_at=created_at,
        artefacts={provider: name for provider, (name, _) in made.artefacts.items()},
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """A model with its calibration and default thresholds: what the figures of a bundle are of."""

    model: Model
    reader: WindowTokenizer
    form: TextForm
    calibrator: Calibrator
    thresholds: Thresholds

    @classmethod
    def of(cls, model: Model, reader: WindowTokenizer, form: TextForm, calibration: CalibrationFile) -> _Judge:
        thresholds = default_thresholds(calibration, HARMS)
        return cls(model, reader, form, calibrator_of(calibration, HARMS), thresholds)

    def answer(self, sentences: Sequence[Sentence]) -> Answers:
        """What the model says of sentences that nobody answers to."""
        read = compose(
            self.form,
            [sentence.text for sentence in sentences],
            roles=[sentence.role for sentence in sentences],
            prompts=[None] * len(sentences),
        )
        logits = text_logits(self.model, self.reader.read(read), harms=len(HARMS))
        return self.thresholds.answers(self.calibrator.apply(logits))


def _load(data: Path, say: Say) -> tuple[Dataset, Splits]:
    dataset, splits = read_split(data, say)
    licence_of(dataset.sources)  # before anything is made of texts that nobody may use
    empty = [name for name, rows in splits.sizes().items() if not rows]
    if empty:
        raise ExportError(f"too few texts: {' and '.join(empty)} would be empty")
    return dataset, splits


def _read(reader: WindowTokenizer, model_input: TextInput, data: Dataset) -> Part:
    return Part(reader.read(data.as_read(model_input.form)), data)


def _logits(model: Model, part: Part) -> Logits:
    return text_logits(model, part.windows, harms=len(HARMS))


def _calibrate(data: Dataset, logits: Logits, created_at: datetime) -> CalibrationFile:
    return calibrate(
        logits, data.human_labels, harms=HARMS, split=_CALIBRATED_ON, created_at=created_at, roles=data.roles
    )


def _counterfactual(recipe: Recipe, judge: _Judge) -> Counterfactual:
    """The figures over identity terms; the gate, where the recipe has one."""
    measured = measure_counterfactual(judge.answer, load_templates())
    if recipe.max_false_positive_gap is not None:
        refuse_unfair(measured, max_gap=recipe.max_false_positive_gap)
    return measured


def _flips(recipe: Recipe, made: Made, logits: Logits, cuts: Sequence[float]) -> Flips:
    """Count the decisions that rounding turns round at `cuts`, in logits; the gate, where the recipe has one."""
    if recipe.gates_flips:
        return check_flips(made.reference_logits, logits, cuts, harms=HARMS)
    return count_flips(made.reference_logits, logits, cuts)


def _conversion(made: Made, flips: Flips, logits: Logits, testing: Part) -> Conversion:
    data = testing.data
    return Conversion(
        parity_max_abs_logit=made.parity.max_abs_logit,
        parity_texts=made.parity.texts,
        average_precision_change=average_precision_change(
            logits, _logits(made.reference, testing), data.human_labels, harms=HARMS
        ),
        flips=dict(zip(HARMS, flips.shares, strict=True)),
    )


def _left_out(result: RotationResult) -> LeftOut:
    def estimate(figure: Figure) -> Estimate:
        return Estimate(value=figure.average_precision, low=figure.low, high=figure.high)

    return LeftOut(
        rotation=result.rotation,
        harms={figure.harm: estimate(figure) for figure in result.harms},
        any_harm=estimate(result.any_harm) if result.any_harm else None,
        false_positive_rate=result.false_positive_rate,
        harmless=result.harmless,
    )


def _training_data(made: Made, learning: Dataset) -> tuple[TrainingSource, ...]:
    rows = made.learnt_from
    if rows is None:
        names, counts = np.unique(learning.sources, return_counts=True)
        rows = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return tuple(
        TrainingSource(source=source.name, licence=source.licence, rows=rows[source.name])
        for source in licence_of(rows)
    )


def _pack(
    out: Path,
    recipe: Recipe,
    files: dict[str, bytes],
    *,
    evaluation: Evaluation,
    training_data: tuple[TrainingSource, ...],
    created_at: datetime,
    artefacts: Mapping[Literal["cpu", "cuda"], str],
) -> Bundle:
    """Add the card and the manifest, and write the folder."""
    card = write_card(
        title=f"{recipe.name} {recipe.version}",
        about=recipe.about,
        limits=recipe.limits,
        model_input=recipe.input,
        evaluation=evaluation,
        training_data=training_data,
        sources=licence_of(used.source for used in training_data),
        figures=[name for name in files if name.startswith("figures/")],
        within_roles=True,
    )
    files = {**files, CARD: card.encode()}
    manifest = manifest_of(
        files,
        name=recipe.name,
        version=recipe.version,
        created_at=created_at,
        harms=HARMS,
        roles=_ROLES,
        model_input=recipe.input,
        artefacts=artefacts,
        training_data=training_data,
    )
    return pack(out, manifest, files=files)
