"""What importing makes of a checkpoint, whatever kind of model it is; a bundle is made of it in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from export.graphs.parity import Parity
from stream.bundle import ModelInput
from stream.bundle.manifest import Role

__all__ = ["MODEL", "Imported"]

MODEL = "model.onnx"


@dataclass(frozen=True, slots=True)
class Imported:
    """A converted model, not yet calibrated. Its logits are one column per harm, in the order of `harms`."""

    name: str
    version: str
    harms: tuple[str, ...]
    roles: tuple[Role, ...]
    input: ModelInput
    artefacts: Mapping[Literal["cpu", "cuda"], tuple[str, bytes]]
    """File name and content by execution provider."""
    tokenizer: bytes | None
    """`tokenizer.json`; None for a model that reads images."""
    parity: Parity
    """How closely the converted model agrees with the module it was converted from."""
    about: str
    """What the card says of the kind of model this is."""
    weights: Mapping[str, str]
    """The SHA-256 of every file of weights that it was made from, by name."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Other files of the bundle, such as the questions of a policy scorer."""
