"""Scoring: a batch of events in, logits per harm out.

The scorer that runs models is `stream.scoring.onnx.OnnxScorer`. It is not imported here, so that what only names the
protocol, the pipeline above all, does not load ONNX Runtime.
"""

from typing import Protocol

from stream.events import EventBatch, Scores
from stream.scoring.stub import STUB_HARMS, StubScorer

__all__ = ["STUB_HARMS", "Scorer", "StubScorer"]


class Scorer(Protocol):
    """What the pipeline asks of a model. Threads may share one."""

    @property
    def harms(self) -> tuple[str, ...]:
        """The harms, in the order of the columns of the logits."""
        ...

    @property
    def provider(self) -> str:
        """Where the model runs: `cpu`, `cuda`, or `stub` for none."""
        ...

    def score(self, events: EventBatch) -> Scores:
        """Score m events, m may be 0, row i of the result being event i.

        A row depends on its event alone, to the last bit, and not on its batch-mates. Bad content is never an error:
        such a row has NaN logits and a bit set in `conditions`. Raises `ScoringError` where nothing can be scored.
        """
        ...
