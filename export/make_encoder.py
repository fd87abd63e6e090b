"""An encoder for the recipe: trained weights in; float32, 8 bits for the CPU and half precision for CUDA out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.convert import TorchModel, convert
from export.dataset import HARMS
from export.encoder import load_classifier, served
from export.fused import fuse
from export.logits import Model, first_window_calls
from export.making import Made, Make, Material
from export.parity import check_parity
from export.progress import Say
from export.quantise import quantise
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs, TokenWindows

__all__ = ["ABOUT", "LIMITS", "make_encoder"]

ABOUT = """\
A transformer of six layers, all-MiniLM-L6-v2 trained on for six harms, with products of 8 bits for the CPU and of half
precision for CUDA. How it was trained, and what else was tried, was decided by sources it had not seen."""

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

PARITY_CALLS = 24
"""Calls of up to 16,384 tokens: a few thousand texts of every length, in a minute or two."""

SAMPLE_CALLS = 4
"""Calls that say how large the channels are: some hundred texts are enough."""

_CPU_FILE, _CUDA_FILE = "cpu-int8.onnx", "cuda-fp16.onnx"


def make_encoder(weights: Path) -> Make:
    """Convert the trained encoder and head in the file `weights`, as `fairway export train` leaves them."""

    def make(material: Material, say: Say) -> Made:
        trained = load_classifier(weights)
        model = served(trained)
        say("converting to ONNX")
        reference = open_session(content := convert(model), "cpu", signature=reads_tokens(len(HARMS)))
        say("comparing the converted model with its module")
        sample = list(_spread(material.calibrating.windows, PARITY_CALLS))
        parity = check_parity(_run(TorchModel(model), sample), _run(reference, sample))
        say("rounding to 8 bits")
        small = quantise(content, _spread(material.learning.windows, SAMPLE_CALLS))
        return Made({"cpu": (_CPU_FILE, small), "cuda": (_CUDA_FILE, fuse(trained))}, reference, parity)

    return make


def _run(model: Model, calls: list[ModelInputs]) -> NDArray[np.float32]:
    return np.concatenate([model.run(inputs) for inputs in calls])


def _spread(windows: TokenWindows, calls: int) -> Iterator[ModelInputs]:
    """So many of all calls, evenly over the lengths."""
    found = first_window_calls(windows)
    for batch in found[:: max(1, len(found) // calls)]:
        yield windows.inputs(batch)
