"""The spine: records of one partition in, one verdict or rejection per record out.

    decode → score → calibrate → select → decide

No broker, clock, file or log is in it. Bad data comes out as a `Rejected`; an exception from here is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.decode import Decoder
from stream.events import EventBatch, FailCondition, Rejected, Scores, SourceRecord
from stream.policy import CompiledPolicy, Verdicts, decide
from stream.sampling import uniform
from stream.scoring import Scorer
from stream.uncertainty import Calibrator, select

__all__ = ["Moderated", "Pipeline"]


@dataclass(frozen=True, slots=True)
class Moderated:
    """What became of n records: m events with their verdicts, as columns, and n − m rejections."""

    events: EventBatch
    rejected: Sequence[Rejected]
    scores: Scores
    probabilities: NDArray[np.float64]
    """(m, h) calibrated; NaN where not scored."""
    rulesets: NDArray[np.int64]
    """(m,) which of the policy's rule sets applied."""
    selections: NDArray[np.int8]
    """(m, h) values of `Selection`."""
    conditions: NDArray[np.uint8]
    """(m,) mask of `FailCondition` bits."""
    verdicts: Verdicts
    policy: CompiledPolicy


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One configuration of the spine. To change model or policy, make a new one and swap the reference."""

    decoder: Decoder
    scorer: Scorer
    calibrator: Calibrator
    policy: CompiledPolicy

    def run(self, records: Sequence[SourceRecord], *, topic: str, partition: int, now: float) -> Moderated:
        """Moderate records of one partition, in offset order. `now` is seconds since the epoch."""
        policy = self.policy
        events, rejected = self.decoder.decode(records, now=now)
        scores = self.scorer.score(events)
        probabilities = self.calibrator.apply(scores.logits)
        rulesets = policy.resolve(events.surfaces, events.roles, events.locales)
        act_at, allow_below = policy.act_at.take(rulesets, axis=0), policy.allow_below.take(rulesets, axis=0)
        selections = select(probabilities, act_at, allow_below)
        conditions = scores.conditions | _expired(events, policy, now=now)
        sampling = uniform(topic, partition, events.offsets)
        verdicts = decide(selections, conditions, rulesets, sampling, policy, scored=scores.scored)
        return Moderated(events, rejected, scores, probabilities, rulesets, selections, conditions, verdicts, policy)


def _expired(events: EventBatch, policy: CompiledPolicy, *, now: float) -> NDArray[np.uint8]:
    """Mask bit `EXPIRED` of events older than the policy allows; (m,) uint8."""
    if policy.max_age_s is None:
        return np.zeros(len(events), np.uint8)
    return np.where(now - events.created_at > policy.max_age_s, np.uint8(1 << FailCondition.EXPIRED), np.uint8(0))
