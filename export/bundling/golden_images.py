"""Made-up images of all kinds that events may have: to compare runtimes with, and to check a converted model on."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from stream.bundle import ImageInput
from stream.events import Image

__all__ = ["GoldenImage", "golden_images"]

_FORMATS: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
_ORIENTATION: Final = 0x0112
_TURNED: Final = 6

_KINDS: Final[tuple[tuple[str, str, str, dict[str, Any]], ...]] = (
    ("slopes", "RGB", "image/png", {}),
    ("blocks", "RGB", "image/png", {}),
    ("blocks", "L", "image/png", {}),
    ("slopes", "RGBA", "image/png", {}),
    ("waves", "RGB", "image/jpeg", {"quality": 70, "turned": True}),
    ("blocks", "L", "image/jpeg", {"quality": 60}),
    ("waves", "RGB", "image/webp", {"quality": 80}),
    ("slopes", "RGB", "image/webp", {"lossless": True}),
    ("slopes", "P", "image/gif", {}),
)
"""What is drawn, in which mode, and how it is written: smooth or in blocks, so that events stay small; waves only where
a lossy coder makes them so."""


@dataclass(frozen=True, slots=True)
class GoldenImage:
    """An image as events have it, and its size in pixels as it is shown."""

    image: Image
    width: int
    height: int


def golden_images(given: ImageInput) -> tuple[GoldenImage, ...]:
    """Images a quarter larger than a model reads on one side, so that it is seen how they are brought to its size."""
    height, width = given.height, given.width
    sizes = ((width + width // 4, height), (width, height + height // 4))
    return tuple(_written(kind, *sizes[number % 2], number) for number, kind in enumerate(_KINDS))


def _written(kind: tuple[str, str, str, dict[str, Any]], width: int, height: int, number: int) -> GoldenImage:
    what, mode, media_type, given = kind
    options = dict(given)
    if options.pop("turned", False):
        options["exif"] = Pillow.Exif()
        options["exif"][_ORIENTATION] = _TURNED
    across, down = (height, width) if "exif" in options else (width, height)
    picture = Pillow.fromarray(_drawn(what, across, down, number), "RGBA").convert(mode)
    file = io.BytesIO()
    picture.save(file, _FORMATS[media_type], **options)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return GoldenImage(Image.model_validate({"media_type": media_type, "data": data}), width, height)


def _drawn(what: str, width: int, height: int, number: int) -> NDArray[np.uint8]:
    """A picture (h, w, 4) uint8, the same wherever it is drawn."""
    y, x = np.mgrid[0:height, 0:width]
    grain = max(1, width // 24)
    if what == "slopes":
        values = [255 * x // width, 255 * y // height, 255 - 255 * x // width, 55 + 200 * y // height]
    elif what == "waves":
        values = [127 * (1 + np.sin((x * (k + 2) + y * (5 - k)) / grain / (3 + k))) for k in range(3)]
        values.append(np.full_like(values[0], 255))
    else:
        levels = np.random.default_rng(number).integers(0, 256, (height // grain + 1, width // grain + 1, 4))
        blocks = levels.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
        return np.asarray(blocks.astype(np.uint8))
    return np.asarray(np.stack(values, axis=-1).astype(np.uint8))
