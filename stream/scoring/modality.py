"""What of an event a model that only reads text can look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.events import EventBatch, FailCondition

__all__ = ["Readable", "find_text"]


@dataclass(frozen=True, slots=True)
class Readable:
    """The rows of a batch that have text, and what is known of every row before the model runs.

    `rows` is (t,) int64, ascending; `texts` are their texts, none empty; `conditions` is (m,) uint8, `UNSUPPORTED` set
    where the event has an image or has no text.
    """

    rows: NDArray[np.int64]
    texts: list[str]
    conditions: NDArray[np.uint8]


def find_text(batch: EventBatch) -> Readable:
    """Find the rows that have text; an image beside the text does not keep the text from being scored."""
    has_text = np.fromiter(map(bool, batch.texts), dtype=np.bool_, count=len(batch))
    has_image = np.fromiter((image is not None for image in batch.images), dtype=np.bool_, count=len(batch))
    unsupported = (~has_text | has_image).astype(np.uint8)
    return Readable(
        rows=np.flatnonzero(has_text),
        texts=[text for text in batch.texts if text],
        conditions=unsupported << np.uint8(FailCondition.UNSUPPORTED),
    )
