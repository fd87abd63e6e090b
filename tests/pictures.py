"""Images for tests, drawn and encoded by Pillow, and batches of events that have them."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image as Pillow

from stream.events import EventBatch, Image
from tests.records import batch_of

__all__ = ["KINDS", "drawn", "encoded", "events_with", "image_of"]

KINDS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}


def drawn(width: int, height: int, *, mode: str = "RGB", seed: int = 0) -> Pillow.Image:
    """A picture of slopes and some noise, the same for the same arguments; no two corners of it are alike."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 40, (height, width, 4))
    slopes = np.stack(
        [200 * x / max(1, width - 1), 200 * y / max(1, height - 1), (x * 3 + y * 5) % 200, 50 + x % 150], -1
    )
    return Pillow.fromarray((slopes + noise).clip(0, 255).astype(np.uint8), "RGBA").convert(mode)


def encoded(picture: Pillow.Image, media_type: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    picture.save(file, KINDS[media_type], **options)
    return file.getvalue()


def image_of(data: bytes, media_type: str) -> Image:
    """An event's image with these bytes."""
    return Image.model_validate({"media_type": media_type, "data": base64.b64encode(data).decode()})


def events_with(*images: Image | None, texts: dict[int, str] | None = None) -> EventBatch:
    """Events with these images, and text in the rows that `texts` names."""
    return replace(batch_of(*((texts or {}).get(row) for row in range(len(images)))), images=list(images))
