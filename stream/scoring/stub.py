"""A scorer without a model, for demos, tests and measuring everything around the model: text in, made-up logits out."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stream.events import EventBatch, Scores
from stream.scoring.modality import find_text

__all__ = ["STUB_HARMS", "StubScorer"]

STUB_HARMS = ("sexual", "hate", "harassment", "dangerous", "violence", "self_harm")

LEVELS = 256
"""Distinct logits per harm; the top bits of a hash choose one."""

CENTRE = -4.0
"""Logit of the median text: 1.8 % before calibration, so that most texts are harmless, as in real traffic."""

MIXER = 2_654_435_769
"""Knuth's multiplicative hashing constant, 2**32 over the golden ratio; its powers give each harm a hash of its own."""


class StubScorer:
    """Scores that depend on the text's bytes alone, spread over harmless, undecided and harmful; no model is asked.

    Per harm and text the logit is one of 256 quantiles of a logistic distribution around -4: 1.8 % of texts have a
    probability above a half. Text is read whole, in one window; images are unsupported, as with a text-only bundle.
    """

    def __init__(self, harms: Sequence[str] = STUB_HARMS) -> None:
        self.harms = tuple(harms)
        self.provider = "stub"
        ranks = (np.arange(LEVELS) + 0.5) / LEVELS
        self._levels: NDArray[np.float32] = (CENTRE + np.log(ranks / (1 - ranks))).astype(np.float32)
        powers = [pow(MIXER, 1 + harm, 2**32) for harm in range(len(self.harms))]
        self._mixers: NDArray[np.uint32] = np.array(powers, dtype=np.uint32)

    def score(self, events: EventBatch) -> Scores:
        """Score m events; `Scores` as documented there, h columns in the order of `harms`."""
        readable = find_text(events)
        # surrogatepass: half a surrogate pair in a text is odd, not an error.
        hashes = np.fromiter(
            (crc32(text.encode("utf-8", "surrogatepass")) for text in readable.texts),
            dtype=np.uint32,
            count=len(readable.texts),
        )
        logits = np.full((len(events), len(self.harms)), np.nan, dtype=np.float32)
        logits[readable.rows] = self._levels[(hashes[:, None] * self._mixers) >> np.uint32(24)]
        windows = np.zeros(len(events), dtype=np.int16)
        windows[readable.rows] = 1
        return Scores(logits, readable.conditions, windows)
