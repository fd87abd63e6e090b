"""What may be read of a checkpoint's weights: numbers in safetensors, never a pickle."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportError

__all__ = ["SAFETENSORS", "refuse_pickled"]

SAFETENSORS = "model.safetensors"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def refuse_pickled(folder: Path) -> None:
    """Raise `ExportError` where the weights in `folder` are in pickles only."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(file.name for kind in _PICKLES for file in folder.glob(kind))
    if pickled:
        raise ExportError(
            f"{folder} has its weights in {pickled[0]} only, a pickle, which can run any code when it is read; "
            f"convert it to {SAFETENSORS} where it may, with the safetensors package"
        )
