"""JSON Schemas of every record on every topic, made from the types that read and write them.

The files in `ops/schemas` are these, committed, so that a change of a record is seen as one.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stream import events
from stream.events import SCHEMA_VERSION, Action, ContentEvent, RejectReason, ReviewWhy
from stream.fairness.report import FairnessReport
from stream.fairness.state import ClosedPane, PartitionState, ReportProgress

__all__ = ["KINDS", "Kind", "file_name", "render"]

Schema = dict[str, Any]  # Any: JSON Schema is JSON of many shapes

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_OF_INPUT = (
    "Fields that are not listed are accepted, in the generator and the image too: they never influence a decision, "
    "their names are in its `unknown_fields`, and their values in the review record's copy of the event. Every other "
    "departure from this schema makes the record a dead letter, and so does what a schema cannot say: the value is one "
    "JSON text in UTF-8 with no key twice in one object and no number beyond a double, nested no deeper than "
    "FAIRWAY_MAX_JSON_DEPTH and no larger than FAIRWAY_MAX_EVENT_BYTES, and its time is neither before 2000 nor "
    "further ahead than FAIRWAY_MAX_FUTURE_S. Types are exact: a number in quotes is no number."
)
_OF_OUTPUT = (
    "Later releases may add fields under the same schema_version: ignore those you do not know. Removing a field, or "
    "changing what one means, raises schema_version."
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record: its title, what becomes of fields that its schema does not list, how the schema is made."""

    title: str
    unknown: str
    make: Callable[[], Schema]


def render(name: str) -> str:
    """The schema of one of `KINDS` as JSON text."""
    kind = KINDS[name]
    schema = kind.make()
    head = {
        "$schema": _DIALECT,
        "$id": f"urn:fairway:schema:{name}:{SCHEMA_VERSION}",
        "title": kind.title,
        "description": f"{schema.pop('description')}\n\n{kind.unknown}",
    }
    del schema["title"]
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


def file_name(name: str) -> str:
    """The name of a schema's committed file: kind of record and version."""
    return f"{name}.v{SCHEMA_VERSION}.json"


def _content_event() -> Schema:
    schema = ContentEvent.model_json_schema()
    text = {"properties": {"text": {"type": "string", "pattern": r"\S"}}, "required": ["text"]}
    image = {"properties": {"image": {"type": "object"}}, "required": ["image"]}
    return _described(schema.pop("$defs") | {"ContentEvent": schema | {"anyOf": [text, image]}}, "ContentEvent")


class ReviewRecord(events.ReviewRecord, frozen=True, kw_only=True):
    """A review record whose fields have types that a schema can be made from."""

    decision: events.Decision
    event: Any = None  # Any: a foreign event may be any JSON


def _review_record() -> Schema:
    return _of(ReviewRecord) | {"description": inspect.getdoc(events.ReviewRecord)}


def _of(struct: type[msgspec.Struct]) -> Schema:
    return _described(msgspec.json.schema(struct)["$defs"], struct.__name__)


def _described(definitions: Schema, root: str) -> Schema:
    """The root's definition, the others below it, and in all of them what `_FIELDS` adds."""
    for name, definition in definitions.items():
        definition["description"] = inspect.cleandoc(definition["description"])
        for field, more in _FIELDS.get(name, {}).items():
            described = definition["properties"][field]
            if "type" in more:
                described.clear()
            described |= more
    top: Schema = definitions.pop(root)
    return top | ({"$defs": definitions} if definitions else {})


def _dead_letter() -> Schema:
    text, number = {"type": "string"}, {"type": "string", "pattern": "^-?[0-9]+$"}
    fields = {
        "reason": _field("Why the input can have no decision.", enum=list(RejectReason)),
        "error": _field("What is wrong and where; never what the content was.", maxLength=1000, **text),
        "topic": _field("Topic the input came from.", **text),
        "partition": _field("Partition the input came from.", **number),
        "offset": _field("Offset of the input.", **number),
        "attempts": _field("How often the input has been a dead letter, this time included.", **number),
        "worker": _field("Which worker wrote this.", **text),
        "timestamp": _field("Timestamp of the input in milliseconds; absent where it had none.", **number),
        "value_omitted": _field("There where the broker refused the value, and only there.", const="true"),
    }
    return {
        "title": "",
        "description": "The headers of a dead letter, as an object with the text of each under its name. Key and value "
        "are the input's, byte for byte, and its other headers are there too.",
        "type": "object",
        "properties": {f"fairway.dlq.{name}": schema for name, schema in fields.items()},
        "required": [f"fairway.dlq.{name}" for name in list(fields)[:7]],
    }


def _field(description: str, /, **more: Any) -> Schema:
    """What a type does not say of a field. A `type` replaces all that it does say."""
    return {"description": description, **more}


_DIGEST = {"type": "string", "pattern": "^sha256:"}
_SHARE = {"minimum": 0, "maximum": 1}

_FIELDS: Mapping[str, Mapping[str, Schema]] = {
    "ContentEvent": {
        "schema_version": _field(
            "Version of this schema. An event of a later one is a dead letter.", maximum=SCHEMA_VERSION
        ),
        "id": _field("The producer's name for the content, echoed as the decision's content_id."),
        "created_at": _field(
            "When the content was made: RFC 3339 text with an offset. A number is refused: it could be seconds or "
            "milliseconds."
        ),
        "role": _field("What the content is: said to a model, said by one, or published."),
        "text": _field("The text to moderate. Without an image it has more than whitespace."),
        "image": _field("The image to moderate."),
        "prompt": _field("What the content answers."),
        "generator": _field("The model that made the content."),
        "surface": _field("Where the content appears. Policies may differ by surface."),
        "locale": _field("BCP 47 tag of the content's language. Policies may differ by locale."),
        "author": _field("Whose content it is, in the producer's terms. Not copied to decisions."),
        "groups": _field("Group attributes, axis to names. Fairness is counted by them; no decision depends on them."),
        "tenant": _field("Whose traffic it is."),
    },
    "Generator": {"name": _field("Name of the model."), "version": _field("Version of the model.")},
    "Image": {
        "media_type": _field("What the bytes are, which is checked."),
        "data": _field(
            "The image in base64 (RFC 4648, section 4); either this or url. FAIRWAY_MAX_IMAGE_PIXELS and "
            "FAIRWAY_MAX_IMAGE_FRAMES bound its size."
        ),
        "url": _field("An http, https, s3 or gs address. The service does not fetch it."),
    },
    "Decision": {
        "schema_version": _field("Version of this schema.", const=SCHEMA_VERSION),
        "decision_id": _field(
            "Topic, partition and offset of the event, the same when it is moderated again: key by it.",
            pattern="^.+:[0-9]+:[0-9]+$",
        ),
        "content_id": _field("The event's id."),
        "action": _field("What is to happen to the content.", enum=list(Action)),
        "reasons": _field("What spoke against allowing it: harm:harmful, harm:abstain, fail:condition."),
        "harms": _field(
            "What was found about each harm; empty where the model could not look.",
            type="object",
            additionalProperties={"$ref": "#/$defs/HarmDecision"},
        ),
        "moderated": _field("False where a fail rule decided: the content was not, or not all, looked at."),
        "bundle": _field("Digest of the model bundle.", **_DIGEST),
        "policy": _field("Digest of the policy file.", **_DIGEST),
        "calibration": _field("Digest of the calibration.", **_DIGEST),
        "mapping": _field("Digest of the mapping file; null where events come in our own shape."),
        "input_digest": _field("Digest of the record's value as received.", **_DIGEST),
        "created_at": _field("The event's time.", format="date-time"),
        "decided_at": _field("When the decision was made.", format="date-time"),
        "review_propensity": _field(
            "The probability with which such content goes to review: 1 where it does, else the policy's audit rate. "
            "Weight what reviewers find by its inverse.",
            **_SHARE,
        ),
        "groups": _field("The event's groups; empty where it has none."),
        "role": _field("The event's role."),
        "surface": _field("The event's surface."),
        "locale": _field("The event's locale."),
        "tenant": _field("The event's tenant."),
        "generator": _field("The event's generator, as name or name@version."),
        "provider": _field("What the model ran on: cpu, cuda or stub."),
        "windows": _field("How many overlapping windows the text was read in; 0 where it was not.", minimum=0),
        "unknown_fields": _field("Names of the event's fields that this release does not know.", maxItems=16),
    },
    "HarmDecision": {
        "probability": _field("Calibrated probability that the content is harmful.", **_SHARE),
        "selection": _field("What is believed."),
        "act_at": _field("Harmful from this probability on.", **_SHARE),
        "allow_below": _field("Harmless below this probability. Between the two there is no answer.", **_SHARE),
    },
    "ReviewRecord": {
        "schema_version": _field("Version of this schema.", const=SCHEMA_VERSION),
        "why": _field(
            "The model abstained; a fail rule asks for review; the policy does; or this is a sample for audit.",
            enum=list(ReviewWhy),
        ),
        "decision": _field("The decision."),
        "event": _field("The record's value as received, of our own or a foreign shape; null where it is left out."),
        "event_omitted": _field("Why the event is left out."),
    },
    "FairnessReport": {"pane_start": {"format": "date-time"}, "pane_end": {"format": "date-time"}},
}

KINDS: Mapping[str, Kind] = {
    "content-event": Kind("Content event", _OF_INPUT, _content_event),
    "decision": Kind("Decision", _OF_OUTPUT, lambda: _of(events.Decision)),
    "review-record": Kind("Review record", _OF_OUTPUT, _review_record),
    "dead-letter": Kind("Headers of a dead letter", _OF_OUTPUT, _dead_letter),
    "fairness-report": Kind("Fairness report", _OF_OUTPUT, lambda: _of(FairnessReport)),
    "fairness-state": Kind("State of the fairness stage: a partition", _OF_OUTPUT, lambda: _of(PartitionState)),
    "fairness-pane": Kind("State of the fairness stage: a closed pane", _OF_OUTPUT, lambda: _of(ClosedPane)),
    "fairness-progress": Kind("State of the fairness stage: what is reported", _OF_OUTPUT, lambda: _of(ReportProgress)),
}
"""Every kind of record, by name."""
