"""Verdicts into the bytes that leave: decisions and review records, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events import (
    SCHEMA_VERSION,
    Action,
    FailCondition,
    ReviewRecord,
    ReviewWhy,
    Selection,
    SourceRecord,
)
from stream.pipeline import Moderated

__all__ = ["NO_REVIEW", "REVIEW_WHYS", "DecisionEncoder", "Provenance", "ReviewOptions", "review_whys", "without_event"]

REVIEW_WHYS = tuple(ReviewWhy)
NO_REVIEW = np.int8(-1)


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


class _Varying(msgspec.Struct, frozen=True):
    """The fields of a `Decision` that differ from event to event, in its order of writing."""

    decision_id: str
    content_id: str
    action: str
    reasons: list[str]
    moderated: bool
    input_digest: str
    created_at: datetime
    review_propensity: float
    groups: Mapping[str, Sequence[str]]
    role: str
    surface: str
    locale: str | None
    tenant: str | None
    generator: str | None
    windows: int
    unknown_fields: Sequence[str]


class DecisionEncoder:
    """Encodes the verdicts of one pipeline configuration.

    A decision is written from three pieces: what varies, encoded by msgspec; the harms, from a template per rule set
    and selection with the probabilities put in; and what is the same for the whole batch. That takes half the time of
    encoding a `Decision`, whose shape the result has; a contract test holds the two together.
    """

    def __init__(self, provenance: Provenance, review: ReviewOptions) -> None:
        self._provenance = provenance
        self._review = review
        self._encode = msgspec.json.Encoder().encode

    def decisions(self, moderated: Moderated, *, topic: str, partition: int, now: float) -> list[bytes]:
        """Encode the m decisions, in order. `now` is seconds since the epoch."""
        if not len(moderated.events):
            return []  # an empty text splits into one number, not none
        encode, actions = self._encode, moderated.policy.actions
        prefix = f"{topic}:{partition}:"
        events, verdicts = moderated.events, moderated.verdicts
        varying = map(
            _Varying,
            [f"{prefix}{offset}" for offset in events.offsets.tolist()],
            events.ids,
            [actions[action] for action in verdicts.actions.tolist()],
            _reasons(moderated, self._provenance.harms),
            verdicts.moderated.tolist(),
            events.input_digests,
            events.times,
            verdicts.review_propensity.tolist(),
            events.groups,
            events.roles,
            events.surfaces,
            events.locales,
            events.tenants,
            events.generators,
            moderated.scores.windows.tolist(),
            events.unknown_fields,
        )
        # One call writes all numbers of the batch: a NaN is written as null, and its row is not used.
        numbers = iter(encode(moderated.probabilities.ravel().tolist())[1:-1].split(b","))
        heads = [encode(varied)[:-1] for varied in varying]
        templates = self._templates(moderated, now)
        return [
            template % values
            for template, values in zip(
                templates, zip(heads, *[numbers] * len(self._provenance.harms), strict=True), strict=True
            )
        ]

    def _same(self, moderated: Moderated, now: float) -> bytes:
        """Encode what is the same for every decision of a batch, from the comma after the harms to the last brace."""
        made_by = self._provenance
        decided_at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {
            "schema_version": SCHEMA_VERSION,
            "bundle": made_by.bundle,
            "policy": moderated.policy.digest,
            "calibration": made_by.calibration,
            "mapping": made_by.mapping,
            "provider": made_by.provider,
            "decided_at": decided_at,
        }
        return b"," + self._encode(fields)[1:]

    def _templates(self, moderated: Moderated, now: float) -> list[bytes]:
        """What is around the varying fields and the probabilities of each event, with `%b` where they go.

        There are few combinations in a batch, and equal templates are one object.
        """
        same = self._same(moderated, now).replace(b"%", b"%%")
        known: dict[tuple[int, bytes, bool], bytes] = {}
        keys = zip(
            moderated.rulesets.tolist(),
            _rows(moderated.selections),
            moderated.scores.scored.tolist(),
            strict=True,
        )
        return [
            known[key] if key in known else known.setdefault(key, b"%b" + self._harms(moderated, *key) + same)
            for key in keys
        ]

    def _harms(self, moderated: Moderated, ruleset: int, selections: bytes, scored: bool) -> bytes:
        """Write the harms of one rule set and selection, from the comma before, with `%b` where probabilities go."""
        policy, encode = moderated.policy, self._encode
        if not scored:
            return b',"harms":{%s}' % (b"%.0b" * len(selections))  # takes each number and writes none of it
        harms = [
            b'%b:{"probability":%%b,"selection":%b,"act_at":%b,"allow_below":%b}'
            % (
                encode(name).replace(b"%", b"%%"),
                encode(Selection(selection).name.lower()),
                encode(float(policy.act_at[ruleset, column])),
                encode(float(policy.allow_below[ruleset, column])),
            )
            for column, (name, selection) in enumerate(zip(self._provenance.harms, selections, strict=True))
        ]
        return b',"harms":{' + b",".join(harms) + b"}"

    def reviews(
        self, moderated: Moderated, decisions: Sequence[bytes], records: Sequence[SourceRecord]
    ) -> tuple[list[int], list[bytes]]:
        """Encode what people should look at; rows of `moderated`, ascending, and one review record for each."""
        whys, positions = review_whys(moderated), moderated.events.positions
        rows = np.flatnonzero(whys != NO_REVIEW).tolist()
        return rows, [
            self._review_record(decisions[row], REVIEW_WHYS[whys[row]], records[int(positions[row])].value)
            for row in rows
        ]

    def _review_record(self, decision: bytes, why: ReviewWhy, event: bytes | None) -> bytes:
        if not self._review.with_event:
            record = ReviewRecord(why=why, decision=msgspec.Raw(decision), event_omitted="switched_off")
        elif event is None or len(event) > self._review.event_max_bytes:
            record = ReviewRecord(why=why, decision=msgspec.Raw(decision), event_omitted="too_large")
        else:
            record = ReviewRecord(why=why, decision=msgspec.Raw(decision), event=msgspec.Raw(event))
        return self._encode(record)


class _WrittenReview(ReviewRecord, frozen=True, kw_only=True):
    """A review record whose decision stays the bytes it is."""

    decision: msgspec.Raw


_read_review = msgspec.json.Decoder(_WrittenReview).decode


def without_event(review: bytes) -> bytes:
    """Encode a review record again without its event, for a broker that refused it; nothing else in it changes."""
    record = _read_review(review)
    if record.event_omitted is not None:
        return review
    return msgspec.json.encode(msgspec.structs.replace(record, event=msgspec.Raw(b"null"), event_omitted="too_large"))


def review_whys(moderated: Moderated) -> NDArray[np.int8]:
    """Why a person is asked about each of m events, (m,) int8 index into `REVIEW_WHYS`, or `NO_REVIEW`."""
    verdicts = moderated.verdicts
    reviewed = verdicts.actions == moderated.policy.actions.index(Action.REVIEW)
    abstained = (moderated.selections == Selection.ABSTAIN).any(axis=1)
    why: NDArray[np.int8] = np.full(len(reviewed), NO_REVIEW)
    for where, reason in (
        (verdicts.audited, ReviewWhy.AUDIT_SAMPLE),
        (reviewed, ReviewWhy.POLICY),
        (reviewed & abstained, ReviewWhy.ABSTAINED),
        (reviewed & ~verdicts.moderated, ReviewWhy.FAIL_RULE),
    ):
        why[where] = REVIEW_WHYS.index(reason)
    return why


def _reasons(moderated: Moderated, names: Sequence[str]) -> list[list[str]]:
    """Per event, what spoke against allowing it: `harm:harmful`, `harm:abstain`, `fail:condition`.

    Equal lists are one object: there are few combinations in a batch, and nobody writes to them.
    """
    known: dict[tuple[bytes, int, bool], list[str]] = {}
    keys = zip(
        _rows(moderated.selections), moderated.conditions.tolist(), moderated.scores.scored.tolist(), strict=True
    )
    return [known[key] if key in known else known.setdefault(key, _reasons_of(*key, names)) for key in keys]


def _reasons_of(selections: bytes, conditions: int, scored: bool, names: Sequence[str]) -> list[str]:
    found = [
        f"{name}:{Selection(selection).name.lower()}"
        for name, selection in zip(names, selections, strict=True)
        if scored and selection != Selection.HARMLESS
    ]
    return found + [f"fail:{condition.name.lower()}" for condition in FailCondition if conditions >> condition & 1]


def _rows(matrix: NDArray[np.int8]) -> list[bytes]:
    """The rows of an (m, h) int8 array as bytes, which can be keys."""
    width, content = matrix.shape[1], matrix.tobytes()
    return [content[start : start + width] for start in range(0, len(content), width)]
