"""What the recipe asks of every way to make a model: material in, artefacts and what they are held against out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.data.dataset import Dataset
from export.data.splits import Splits
from export.graphs.parity import Parity
from export.models.logits import Model
from export.progress import Say
from stream.scoring.tokenize import TokenWindows

__all__ = ["Made", "Make", "Material", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the texts, as the model reads them, and what is known of each."""

    windows: TokenWindows
    data: Dataset


@dataclass(frozen=True, slots=True)
class Material:
    """What there is to make a model from: texts to learn from or to choose by, and texts it is not to learn from."""

    learning: Part
    calibrating: Part
    splits: Splits


@dataclass(frozen=True, slots=True)
class Made:
    """A model, ready to be calibrated."""

    artefacts: Mapping[Literal["cpu", "cuda"], tuple[str, bytes]]
    """File name and content by execution provider."""
    reference: Model
    """The model before its weights were rounded."""
    reference_logits: NDArray[np.float32]
    """What it gives the texts to calibrate on, (t, h)."""
    parity: Parity
    """How closely the converted model agrees with the module it was converted from."""
    learnt_from: Mapping[str, int] | None = None
    """Texts by source, where they are others than the texts to learn from in `Material`."""


Make = Callable[[Material, Say], Made]
