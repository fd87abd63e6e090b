"""What of an event a model that only reads text can look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.bundle.manifest import TextForm
from stream.events import EventBatch, FailCondition
from stream.scoring.form import PLAIN, compose

__all__ = ["Readable", "bits", "find_text"]


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
    rows = np.flatnonzero(has_text)
    texts = [text for text in batch.texts if text]
    if form != PLAIN:
        which = rows.tolist()
        roles, prompts = [batch.roles[row] for row in which], [batch.prompts[row] for row in which]
        texts = compose(form, texts, roles=roles, prompts=prompts)
    return Readable(
        rows=rows,
        texts=texts,
        conditions=bits(FailCondition.UNSUPPORTED, ~has_text | has_image),
    )


def bits(condition: FailCondition, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The mask bit of `condition` in the rows that `where`, (m,) bool, says; (m,) uint8."""
    return where.astype(np.uint8) << np.uint8(condition)
