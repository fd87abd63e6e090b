"""What of a record is shown to someone who watches a topic: not what people wrote, nor who they are, unless asked for.

Which it is follows from the topic and never from the record: an event could pretend to be a decision.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from stream.kafka import deadletter
from stream.kafka.following import TopicRecord
from stream.settings import Settings

__all__ = ["Describe", "Document", "describer"]

Document = dict[str, Any]
"""A JSON object."""

Describe = Callable[[TopicRecord], Document]

PERSONAL = frozenset({"groups"})
"""Fields of a decision that say something about a person."""

CALENDAR_MS = -62_135_596_800_000, 253_402_300_799_000
"""The years 1 and 9999. A producer may give a record any time before now, such as 100 million years ago."""


def describer(settings: Settings, topic: str, *, content: bool) -> Describe:
    """The function that describes the records of a topic; with `content` it leaves nothing out.

    Every document has `partition`, `offset`, `at` and `bytes`; a decision and a review record have `decision`, a dead
    letter has `reason`, an aggregate of the service itself (report, state, order) has `value`.
    """
    kinds: dict[str, Callable[[TopicRecord, bool], Document]] = {
        settings.decisions_topic: _decision,
        settings.review_topic: _review,
        settings.dead_letter_topic: _dead_letter,
        settings.reports_topic: _aggregate,
        settings.fairness_state_topic: _aggregate,
        settings.control_topic: _aggregate,
    }
    kind = kinds.get(topic, _unknown)
    return lambda record: _coordinates(record, content) | kind(record, content)


def _coordinates(record: TopicRecord, content: bool) -> Document:
    known_ms = min(max(record.timestamp or 0, CALENDAR_MS[0]), CALENDAR_MS[1])
    at = datetime.fromtimestamp(known_ms / 1000, UTC).isoformat(timespec="milliseconds")
    document = {"partition": record.partition, "offset": record.offset, "at": at, "bytes": len(record.value or b"")}
    if content:
        document["key"] = None if record.key is None else record.key.decode("utf-8", "replace")
    return document


def _decision(record: TopicRecord, content: bool) -> Document:
    return {"decision": _without_person(_parsed(record.value), content)}


def _review(record: TopicRecord, content: bool) -> Document:
    parsed = _parsed(record.value)
    decision = parsed.get("decision")
    shown = {
        "why": _word(parsed.get("why")),
        "decision": _without_person(decision if isinstance(decision, dict) else {}, content),
        "event_omitted": _word(parsed.get("event_omitted")),
    }
    return shown | ({"event": parsed.get("event")} if content else {})


def _dead_letter(record: TopicRecord, content: bool) -> Document:
    letter = deadletter.decode(record.headers)
    if isinstance(letter, deadletter.Foreign):
        return {"foreign": letter.why}
    shown: Document = {
        "reason": letter.reason,
        "error": letter.error,
        "source": letter.source_id,
        "attempts": letter.attempts,
        "worker": letter.worker,
        "value_omitted": letter.value_omitted,
    }
    return shown | (_unknown(record, content))


def _aggregate(record: TopicRecord, content: bool) -> Document:  # noqa: ARG001 - nothing in it is about one person
    return {"value": _parsed(record.value)}


def _unknown(record: TopicRecord, content: bool) -> Document:
    """Bytes of any kind: as JSON if they are, as text if they are that, else in base64."""
    value = record.value
    if not content or value is None:
        return {}
    try:
        return {"value": json.loads(value)}
    except (ValueError, RecursionError):
        pass
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}


def _without_person(decision: Document, content: bool) -> Document:
    return decision if content else {name: value for name, value in decision.items() if name not in PERSONAL}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _parsed(value: bytes | None) -> Document:
    """A record of the service's own; an empty object if somebody else wrote something else there."""
    try:
        parsed = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
