"""Records' bytes into content events, or into the reason why there is none: one or the other for every record.

What a record says decides which, never an exception. Reasons are looked for in this order, so that a record has one
answer whatever way it took: tombstone, size, JSON, repeated keys, mapping, version, schema, time, image, content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
from pydantic import TypeAdapter, ValidationError

from stream.errors import MappingError
from stream.events import SCHEMA_VERSION, ContentEvent, EventBatch, Rejected, RejectReason, SourceRecord
from stream.images import ImageLimits, image_problem
from stream.mapping import Mapping, Unmapped
from stream.strictjson import Refusal, is_free_of_repeats, read

__all__ = ["DecodeLimits", "Decoder", "unknown_fields"]

# Before the oldest content there is: a year below is a unit mixed up, seconds for milliseconds, or nothing at all.
_EARLIEST = 946_684_800.0  # 2000-01-01T00:00:00Z
# What is wrong with an event is clear from the first few; the rest would be header bytes on every dead letter.
_MAX_PROBLEMS = 3
# Unknown names are echoed in decisions: enough to see what a producer sends, bounded against one that sends thousands.
_MAX_UNKNOWN = 16
_MAX_UNKNOWN_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds on what is decoded; `stream.settings` has the reason of each."""

    max_event_bytes: int
    max_json_depth: int
    max_future_s: float
    max_image_pixels: int
    max_image_frames: int


class _Time(msgspec.Struct):
    """What the second reader keeps; see `Decoder._read`."""

    created_at: str


class Decoder:
    """Decodes records of our own shape, or of a foreign one through a mapping.

    Raises:
        MappingError: the mapping is one for decisions.
    """

    def __init__(self, limits: DecodeLimits, mapping: Mapping | None = None) -> None:
        if mapping is not None and mapping.kind != "event":
            raise MappingError(f"{mapping.name}: maps decisions; events need a mapping with `kind: event`")
        self.mapping_digest = mapping.digest if mapping else None
        self._limits = limits
        self._image_limits = ImageLimits(limits.max_event_bytes, limits.max_image_pixels, limits.max_image_frames)
        self._mapping = mapping
        validator = TypeAdapter(ContentEvent).validator
        self._validate = validator.validate_json
        self._validate_fields = validator.validate_python
        self._time = msgspec.json.Decoder(_Time).decode

    def decode(self, records: Sequence[SourceRecord], *, now: float) -> tuple[EventBatch, tuple[Rejected, ...]]:
        """Decode n records: m events as columns and n - m rejections, both in order.

        `now` is seconds since the epoch. Nothing in a record raises.
        """
        latest = now + self._limits.max_future_s
        positions: list[int] = []
        seconds: list[float] = []
        events: list[ContentEvent] = []
        rejected: list[Rejected] = []
        for position, record in enumerate(records):
            outcome = self._event(record, latest)
            if isinstance(outcome, Refusal):
                rejected.append(Rejected(position, outcome.reason, outcome.error))
                continue
            positions.append(position)
            events.append(outcome[0])
            seconds.append(outcome[1])
        batch = EventBatch(
            positions=np.array(positions, np.int64),
            offsets=np.array([records[position].offset for position in positions], np.int64),
            created_at=np.array(seconds, np.float64),
            events=events,
            texts=[event.text if event.image is None else _text_beside_image(event) for event in events],
            input_digests=["sha256:" + sha256(records[position].value or b"").hexdigest() for position in positions],
        )
        return batch, tuple(rejected)

    def _event(self, record: SourceRecord, latest: float) -> tuple[ContentEvent, float] | Refusal:
        """One record's event and its time in seconds, or why there is none."""
        raw = record.value
        if raw is None:
            return Refusal(RejectReason.TOMBSTONE, "the record has no value; content is not deleted through this topic")
        if len(raw) > self._limits.max_event_bytes:
            error = f"{len(raw)} bytes; {self._limits.max_event_bytes} are read (max_event_bytes)"
            return Refusal(RejectReason.TOO_LARGE, error)
        if self._mapping is None:
            return self._read(raw, latest)
        return self._map(raw, record, self._mapping, latest)

    def _read(self, raw: bytes, latest: float) -> tuple[ContentEvent, float] | Refusal:
        """The event in JSON of our own shape, and its time in seconds.

        Two readers must agree on the bytes: pydantic takes NaN for JSON and digits in quotes for a time. The second
        costs nothing, because a time from text is cheaper in seconds than pydantic's.
        """
        try:
            event: ContentEvent = self._validate(raw, strict=True)
            time = self._time(raw).created_at
            seconds = datetime.fromisoformat(time).timestamp()
        except (ValueError, msgspec.DecodeError) as error:
            return self._explain(raw, error)
        if not _has_one_reading(raw, event, time):
            document = read(raw, max_depth=self._limits.max_json_depth)
            if isinstance(document, Refusal):
                return document
        if ":" not in time:
            return _not_a_time()
        return self._problem(event, seconds, latest) or (event, seconds)

    def _map(
        self, raw: bytes, record: SourceRecord, mapping: Mapping, latest: float
    ) -> tuple[ContentEvent, float] | Refusal:
        """The event in JSON of a foreign shape, and its time in seconds."""
        document = read(raw, max_depth=self._limits.max_json_depth)
        if isinstance(document, Refusal):
            return document
        fields = mapping.apply(document, record)
        if isinstance(fields, Unmapped):
            return Refusal(RejectReason.MAPPING_ERROR, fields.error)
        try:
            event: ContentEvent = self._validate_fields(fields)
        except ValidationError as error:
            return Refusal(RejectReason.SCHEMA_ERROR, _schema_error(error))
        seconds = fields["created_at"].timestamp()
        return self._problem(event, seconds, latest) or (event, seconds)

    def _problem(self, event: ContentEvent, seconds: float, latest: float) -> Refusal | None:
        """What is wrong with an event that has the right shape."""
        if event.schema_version > SCHEMA_VERSION:
            return _too_new()
        if not _EARLIEST <= seconds <= latest:
            error = f"created_at: should be between 2000 and {self._limits.max_future_s:g} s from now (max_future_s)"
            return Refusal(RejectReason.TIMESTAMP, error)
        if event.image is not None:
            problem = image_problem(event.image, self._image_limits)
            return Refusal(RejectReason.IMAGE, problem) if problem else None
        if not event.text or event.text.isspace():
            return Refusal(RejectReason.EMPTY_CONTENT, "neither text nor an image")
        return None

    def _explain(self, raw: bytes, error: ValueError | msgspec.DecodeError) -> Refusal:
        """Why a reader refused; no single reading comes first, then a later version."""
        document = read(raw, max_depth=self._limits.max_json_depth)
        if isinstance(document, Refusal):
            return document
        if _says_newer(document):
            return _too_new()
        if isinstance(error, ValidationError):
            return Refusal(RejectReason.SCHEMA_ERROR, _schema_error(error))
        return _not_a_time()


def unknown_fields(event: ContentEvent) -> list[str]:
    """Names of the fields that this version does not know, dotted where nested, sorted; at most 16 of 64 characters."""
    names = list(event.model_extra or ())
    if event.generator is not None:
        names += [f"generator.{name}" for name in event.generator.model_extra or ()]
    if event.image is not None:
        names += [f"image.{name}" for name in event.image.model_extra or ()]
    return sorted(name[:_MAX_UNKNOWN_CHARACTERS] for name in names)[:_MAX_UNKNOWN] if names else names


def _has_one_reading(raw: bytes, event: ContentEvent, time: str) -> bool:
    """True only where there is no need to look closer: no repeated key, and no unknown field of any depth."""
    if event.__pydantic_extra__:
        return False
    colons = time.count(":") + len(event.__pydantic_fields_set__)
    if event.text is not None:
        colons += event.text.count(":")
    if event.prompt is not None:
        colons += event.prompt.count(":")
    if event.groups is not None:
        colons += len(event.groups)
    for part in (event.generator, event.image):
        if part is not None:
            if part.__pydantic_extra__:
                return False
            colons += len(part.__pydantic_fields_set__)
    return is_free_of_repeats(raw, colons=colons)


def _text_beside_image(event: ContentEvent) -> str | None:
    return None if not event.text or event.text.isspace() else event.text


def _not_a_time() -> Refusal:
    return Refusal(RejectReason.SCHEMA_ERROR, "created_at: should be RFC 3339 text with an offset")


def _too_new() -> Refusal:
    return Refusal(RejectReason.SCHEMA_VERSION, f"schema_version: newer than {SCHEMA_VERSION}, the newest known here")


def _says_newer(document: Any) -> bool:
    """Whether an event that does not fit our schema says that it is of a later one."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    return type(version) is int and version > SCHEMA_VERSION


def _schema_error(error: ValidationError) -> str:
    """The first few problems, each as `path: rule`."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{_path(problem['loc'])}: {_rule(problem['msg'])}" for problem in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(lines)


def _path(location: tuple[str | int, ...]) -> str:
    """A field's place. Names under `groups` are the producer's, and group attributes: they become `*`."""
    if location[:1] == ("groups",):
        location = ("groups", *("*" if isinstance(step, str) else step for step in location[1:]))
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return steps.removeprefix(".") or "the event"


def _rule(message: str) -> str:
    return message.replace("Input should", "should").replace("Field required", "is missing")
