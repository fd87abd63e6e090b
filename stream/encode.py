"""Verdicts into the bytes that leave: decisions and review records, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np

from stream.decode import unknown_fields
from stream.events import (
    Action,
    Decision,
    FailCondition,
    HarmDecision,
    ReviewRecord,
    ReviewWhy,
    Selection,
    SourceRecord,
)
from stream.pipeline import Moderated

__all__ = ["DecisionEncoder", "Provenance", "ReviewOptions"]

PROBABILITY_DECIMALS = 6
"""Probabilities are written to a millionth: finer than any calibration set can tell apart."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which model, calibration and mapping made the decisions of one pipeline."""

    bundle: str
    calibration: str
    mapping: str | None
    provider: str
    harms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """What a review record carries of the event."""

    with_event: bool
    event_max_bytes: int


class DecisionEncoder:
    """Encodes the verdicts of one pipeline configuration."""

    def __init__(self, provenance: Provenance, review: ReviewOptions) -> None:
        self._provenance = provenance
        self._review = review
        self._encode = msgspec.json.Encoder().encode

    def decisions(self, moderated: Moderated, *, topic: str, partition: int, now: float) -> list[bytes]:
        """Encode the m decisions, in order. `now` is seconds since the epoch."""
        encode, made_by, policy = self._encode, self._provenance, moderated.policy
        decided_at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        prefix, actions = f"{topic}:{partition}:", policy.actions
        rows = zip(
            moderated.events.events,
            moderated.events.offsets.tolist(),
            moderated.events.input_digests,
            moderated.verdicts.actions.tolist(),
            moderated.verdicts.moderated.tolist(),
            moderated.verdicts.review_propensity.tolist(),
            moderated.scores.windows.tolist(),
            _harms(moderated, made_by.harms),
            _reasons(moderated, made_by.harms),
            strict=True,
        )
        return [
            encode(
                Decision(
                    decision_id=f"{prefix}{offset}",
                    content_id=event.id,
                    action=actions[action],
                    reasons=reasons,
                    harms=harms,
                    moderated=was_moderated,
                    bundle=made_by.bundle,
                    policy=policy.digest,
                    calibration=made_by.calibration,
                    mapping=made_by.mapping,
                    input_digest=digest,
                    created_at=event.created_at,
                    decided_at=decided_at,
                    review_propensity=propensity,
                    groups=event.groups or {},
                    role=event.role,
                    surface=event.surface,
                    locale=event.locale,
                    tenant=event.tenant,
                    generator=event.generator and event.generator.label,
                    provider=made_by.provider,
                    windows=windows,
                    unknown_fields=unknown_fields(event),
                )
            )
            for event, offset, digest, action, was_moderated, propensity, windows, harms, reasons in rows
        ]

    def reviews(
        self, moderated: Moderated, decisions: Sequence[bytes], records: Sequence[SourceRecord]
    ) -> tuple[list[int], list[bytes]]:
        """Encode what people should look at; rows of `moderated`, ascending, and one review record for each."""
        verdicts, review = moderated.verdicts, moderated.policy.actions.index(Action.REVIEW)
        rows = np.flatnonzero((verdicts.actions == review) | verdicts.audited).tolist()
        positions = moderated.events.positions
        return rows, [
            self.review(decisions[row], _why(moderated, row, review), records[int(positions[row])].value) for row in rows
        ]

    def review(self, decision: bytes, why: ReviewWhy, event: bytes | None) -> bytes:
        """Encode one review record; `event` is the record's value as received, None to say it was too large."""
        if not self._review.with_event:
            record = ReviewRecord(why=why, decision=msgspec.Raw(decision), event_omitted="switched_off")
        elif event is None or len(event) > self._review.event_max_bytes:
            record = ReviewRecord(why=why, decision=msgspec.Raw(decision), event_omitted="too_large")
        else:
            record = ReviewRecord(why=why, decision=msgspec.Raw(decision), event=msgspec.Raw(event))
        return self._encode(record)


def _harms(moderated: Moderated, names: Sequence[str]) -> list[dict[str, HarmDecision]]:
    """Per event, what was found about each harm; empty where the model could not look."""
    policy, words = moderated.policy, [selection.name.lower() for selection in Selection]
    thresholds = [
        list(zip(act_at, allow_below, strict=True))
        for act_at, allow_below in zip(policy.act_at.tolist(), policy.allow_below.tolist(), strict=True)
    ]
    probabilities = np.round(moderated.probabilities.astype(np.float64), PROBABILITY_DECIMALS)
    return [
        {
            name: HarmDecision(probability, words[selection], act_at, allow_below)
            for name, probability, selection, (act_at, allow_below) in zip(names, row, selections, thresholds[ruleset])
        }
        if was_scored
        else {}
        for row, selections, ruleset, was_scored in zip(
            probabilities.tolist(),
            moderated.selections.tolist(),
            moderated.rulesets.tolist(),
            moderated.scores.scored.tolist(),
            strict=True,
        )
    ]


def _reasons(moderated: Moderated, names: Sequence[str]) -> list[list[str]]:
    """Per event, what spoke against allowing it: `harm:harmful`, `harm:abstain`, `fail:condition`."""
    nothing: list[str] = []  # one shared list: most events have no reason, and nobody writes to it
    reasons = [nothing] * len(moderated.events)
    scored = moderated.scores.scored
    for row in np.flatnonzero((moderated.selections != Selection.HARMLESS).any(axis=1) | (moderated.conditions != 0)):
        reasons[row] = [
            f"{name}:{Selection(selection).name.lower()}"
            for name, selection in zip(names, moderated.selections[row].tolist(), strict=True)
            if scored[row] and selection != Selection.HARMLESS
        ] + [
            f"fail:{condition.name.lower()}"
            for condition in FailCondition
            if moderated.conditions[row] >> condition & 1
        ]
    return reasons


def _why(moderated: Moderated, row: int, review: int) -> ReviewWhy:
    if moderated.verdicts.actions[row] != review:
        return ReviewWhy.AUDIT_SAMPLE
    if not moderated.verdicts.moderated[row]:
        return ReviewWhy.FAIL_RULE
    if (moderated.selections[row] == Selection.ABSTAIN).any():
        return ReviewWhy.ABSTAINED
    return ReviewWhy.POLICY
