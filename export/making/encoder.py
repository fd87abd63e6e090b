"""An encoder for the recipe: trained weights in; float32, 8 bits for the CPU and half precision for CUDA out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from export.data.dataset import HARMS
from export.errors import ExportError
from export.graphs.convert import TorchModel, convert
from export.graphs.fused import fuse
from export.graphs.parity import MAX_FLIPS, Flips, check_parity, count_flips
from export.graphs.quantise import quantise_until
from export.making.parts import Made, Make, Material
from export.measuring.calibrate import calibrate, calibrator_of
from export.measuring.thresholds import as_logits, default_thresholds
from export.models.encoder import load_classifier, served
from export.models.logits import Model, first_window_calls, text_logits
from export.progress import Say
from export.train import FIGURES
from export.training import TrainingRecipe
from stream.bundle.manifest import explain
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs, TokenWindows

__all__ = ["LIMITS", "Training", "about", "make_encoder", "training_of"]

_ABOUT = """\
A transformer of six layers, {encoder}, with products of 8 bits for the CPU and of half
precision for CUDA. Its head, which reads the mean states of the last {layers} layers, was trained for six harms. How it
was trained, and what else was tried, was decided by sources it had not seen."""

LIMITS = """\
- It reads a text by itself: who says it to whom, and what was said before, escape it. Irony, quotation and coded
  language often do.
- It is better on sources it has seen than on others; what it does on others is measured apart, and is the sterner
  figure.
- **Labels are biased, and so is it.** Those of `davidson` mark African American English as offensive far more often
  than other English (Sap et al. 2019; Davidson et al. 2019). Watch false positives by group before acting on `hate` or
  `harassment`, and prefer review to blocking.
- Names of groups carry weight of their own: see the figures by group and over identity terms.
- Refusals and other harmless answers to harmful questions are suspected more than other harmless text.
- Disguised words are read where the tokenizer undoes the disguise, and can be disguised in other ways."""

PARITY_CALLS = 16
"""Calls of up to 2,048 tokens: some hundred texts of every length, in ten seconds."""

SAMPLE_CALLS = 16
"""Calls that say how large the channels are: some hundred texts are enough."""

Logits = NDArray[np.float32]

_CPU_FILE, _CUDA_FILE = "cpu-int8.onnx", "cuda-fp16.onnx"


class Training(BaseModel):
    """What has to be known of `training.json`, which `fairway export train` leaves beside the weights."""

    recipe: TrainingRecipe
    rows_by_source: dict[str, Annotated[int, Field(ge=1)]]


def make_encoder(weights: Path) -> Make:
    """Convert the trained encoder and head in the file `weights`, as `fairway export train` leaves them."""

    def make(material: Material, say: Say) -> Made:
        trained, learnt_from = load_classifier(weights), training_of(weights).rows_by_source
        model = served(trained)
        say("converting to ONNX")
        reference = open_session(content := convert(model), "cpu", signature=reads_tokens(len(HARMS)))
        say("comparing the converted model with its module")
        sample = list(_spread(material.calibrating.windows, PARITY_CALLS))
        parity = check_parity(_run(TorchModel(model), sample), _run(reference, sample))
        calibrating = material.calibrating
        say(f"scoring {len(calibrating.data)} texts before rounding")
        expected = text_logits(reference, calibrating.windows, harms=len(HARMS))

        def acceptable(small: bytes) -> bool:
            session = open_session(small, "cpu", signature=reads_tokens(len(HARMS)))
            found = text_logits(session, calibrating.windows, harms=len(HARMS))
            flips = _flips(expected, found, calibrating.data.human_labels)
            say(f"rounding to 8 bits turns at most {flips.worst:.2%} of the decisions on a harm round")
            return flips.worst <= MAX_FLIPS

        small, kept = quantise_until(content, list(_spread(material.learning.windows, SAMPLE_CALLS)), acceptable)
        if kept:
            say(f"kept {len(kept)} matrix products in float32: {', '.join(map(str, kept))}")
        artefacts: dict[Literal["cpu", "cuda"], tuple[str, bytes]] = {
            "cpu": (_CPU_FILE, small),
            "cuda": (_CUDA_FILE, fuse(trained)),
        }
        return Made(artefacts, reference, expected, parity, learnt_from)

    return make


def _flips(expected: Logits, found: Logits, labels: NDArray[np.float32]) -> Flips:
    """At the thresholds that a bundle of the rounded model would have by default."""
    calibration = calibrate(found, labels, harms=HARMS, split="the same", created_at=datetime.now(UTC))
    thresholds = default_thresholds(calibration, HARMS)
    return count_flips(expected, found, as_logits(thresholds.act_at, calibrator_of(calibration, HARMS)))


def about(training: Training) -> str:
    """What the card says of such a model."""
    encoder = "all-MiniLM-L6-v2 trained on" if training.recipe.tune else "all-MiniLM-L6-v2 as it comes"
    return _ABOUT.format(encoder=encoder, layers=training.recipe.head.layers)


def training_of(weights: Path) -> Training:
    """How the weights in this file came about. Raises `ExportError` where nothing beside them says so."""
    figures = weights.with_name(FIGURES)
    try:
        return Training.model_validate_json(figures.read_bytes())
    except OSError as error:
        raise ExportError(
            f"cannot read {figures}: {error.strerror}; `fairway export train` writes it beside the weights, and it "
            "says how and from what they were learnt"
        ) from None
    except ValidationError as error:
        raise ExportError(f"{explain(error, str(figures))}; train the model again") from None


def _run(model: Model, calls: list[ModelInputs]) -> NDArray[np.float32]:
    return np.concatenate([model.run(inputs) for inputs in calls])


def _spread(windows: TokenWindows, calls: int) -> Iterator[ModelInputs]:
    """So many of all calls, evenly over the lengths."""
    found = first_window_calls(windows)
    for batch in found[:: max(1, len(found) // calls)]:
        yield windows.inputs(batch)
