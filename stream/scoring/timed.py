"""A scorer that says when it worked, and so when everything around it did.

The pipeline has no clock, so that what it returns depends on nothing but what it is given. Scoring is its one call that
can be replaced from outside: what a unit spends before it is decoding, and what it spends after is deciding. Two looks
at the clock per unit measure all three.
"""

from __future__ import annotations

import time

from stream.events import EventBatch, Scores
from stream.scoring import Scorer

__all__ = ["TimedScorer"]


class TimedScorer:
    """Scores as `scorer` does, once: it is made for a single unit. Times are those of `time.perf_counter`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.asked_at = self.answered_at = time.perf_counter()

    @property
    def harms(self) -> tuple[str, ...]:
        """Those of the scorer behind it."""
        return self._scorer.harms

    @property
    def provider(self) -> str:
        """That of the scorer behind it."""
        return self._scorer.provider

    def score(self, events: EventBatch) -> Scores:
        """Score m events."""
        self.asked_at = time.perf_counter()
        scores = self._scorer.score(events)
        self.answered_at = time.perf_counter()
        return scores
