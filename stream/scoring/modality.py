"""What of an event a model can look at that reads text alone, or images alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.bundle.manifest import TextForm
from stream.events import EventBatch, FailCondition, Image
from stream.scoring.form import PLAIN, compose

__all__ = ["Readable", "Viewable", "find_images", "find_text"]


@dataclass(frozen=True, slots=True)
class Readable:
    """The rows of a batch that have text, and what is known of every row before the model runs.

    `rows` is (t,) int64, ascending; `texts` are their texts as the model reads them, none empty; `conditions` is (m,)
    uint8, `UNSUPPORTED` set where the event has an image or has no text.
    """

    rows: NDArray[np.int64]
    texts: list[str]
    conditions: NDArray[np.uint8]


def find_text(batch: EventBatch, form: TextForm = PLAIN) -> Readable:
    """Find the rows that have text, as `form` puts it; an image beside it does not keep the text from being scored."""
    has_text = np.fromiter(map(bool, batch.texts), dtype=np.bool_, count=len(batch))
    has_image = np.fromiter((image is not None for image in batch.images), dtype=np.bool_, count=len(batch))
    unsupported = (~has_text | has_image).astype(np.uint8)
    rows = np.flatnonzero(has_text)
    texts = [text for text in batch.texts if text]
    if form != PLAIN:
        which = rows.tolist()
        roles, prompts = [batch.roles[row] for row in which], [batch.prompts[row] for row in which]
        texts = compose(form, texts, roles=roles, prompts=prompts)
    return Readable(
        rows=rows,
        texts=texts,
        conditions=unsupported << np.uint8(FailCondition.UNSUPPORTED),
    )


@dataclass(frozen=True, slots=True)
class Viewable:
    """The rows of a batch that have an image at hand, and what is known of every row before it is looked at.

    `rows` is (v,) int64, ascending; `images` are their images, all with `data`; `conditions` is (m,) uint8,
    `UNSUPPORTED` set where the event has no image, has it by its address alone, or has text.
    """

    rows: NDArray[np.int64]
    images: list[Image]
    conditions: NDArray[np.uint8]


def find_images(batch: EventBatch) -> Viewable:
    """Find the rows that have an image; text beside it does not keep the image from being scored."""
    images = [image if image is not None and image.data is not None else None for image in batch.images]
    has_image = np.fromiter((image is not None for image in images), dtype=np.bool_, count=len(batch))
    has_text = np.fromiter(map(bool, batch.texts), dtype=np.bool_, count=len(batch))
    unsupported = (~has_image | has_text).astype(np.uint8)
    return Viewable(
        rows=np.flatnonzero(has_image),
        images=[image for image in images if image is not None],
        conditions=unsupported << np.uint8(FailCondition.UNSUPPORTED),
    )
