"""Records' bytes into content events, or into the reason why there is none: one or the other for every record.

What a record says decides which, never an exception. Reasons are looked for in this order, so that a record has one
answer whatever way it took: tombstone, size, JSON, repeated keys, mapping, version, schema, time, image, content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from stream.errors import MappingError
from stream.events import SCHEMA_VERSION, ContentEvent, EventBatch, Rejected, RejectReason, SourceRecord
from stream.images import ImageLimits, image_problem
from stream.mapping import Mapping, Unmapped
from stream.plain import NO_GROUPS, NO_NAMES, Row, read_plain
from stream.strictjson import Refusal, read

__all__ = ["DecodeLimits", "Decoder", "row_of"]

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


class Decoder:
    """Decodes records of our own shape, or of a foreign one through a mapping.

    Raises:
        MappingError: the mapping is one for decisions.
    """

    def __init__(self, limits: DecodeLimits, mapping: Mapping | None = None) -> None:
        if mapping is not None and mapping.kind != "event":
            raise MappingError(f"{mapping.name}: maps decisions; events need a mapping with `kind: event`")
        self.mapping_digest = mapping.digest if mapping else None
        self.limits = limits
        self._image_limits = ImageLimits(limits.max_event_bytes, limits.max_image_pixels, limits.max_image_frames)
        self._mapping = mapping
        validator = TypeAdapter(ContentEvent).validator
        self._validate = validator.validate_json
        self._validate_fields = validator.validate_python

    def decode(self, records: Sequence[SourceRecord], *, now: float) -> tuple[EventBatch, tuple[Rejected, ...]]:
        """Decode n records: m events as columns and n - m rejections, both in order.

        `now` is seconds since the epoch. Nothing in a record raises.
        """
        latest = now + self.limits.max_future_s
        plain = [None] * len(records) if self._mapping else read_plain([self._readable(record) for record in records])
        positions: list[int] = []
        rows: list[Row] = []
        rejected: list[Rejected] = []
        for position, (record, found) in enumerate(zip(records, plain, strict=True)):
            row = found or self._row(record)
            if not isinstance(row, Refusal):
                row = self._problem(row, latest) or row
            if isinstance(row, Refusal):
                rejected.append(Rejected(position, row.reason, row.error))
            else:
                positions.append(position)
                rows.append(row)
        return _batch([records[position] for position in positions], positions, rows), tuple(rejected)

    def _readable(self, record: SourceRecord) -> bytes | None:
        raw = record.value
        return None if raw is None or len(raw) > self.limits.max_event_bytes else raw

    def _row(self, record: SourceRecord) -> Row | Refusal:
        """One record's event by the careful reader, or why there is none."""
        raw = record.value
        if raw is None:
            return Refusal(RejectReason.TOMBSTONE, "the record has no value; content is not deleted through this topic")
        if len(raw) > self.limits.max_event_bytes:
            error = f"{len(raw)} bytes; {self.limits.max_event_bytes} are read (max_event_bytes)"
            return Refusal(RejectReason.TOO_LARGE, error)
        event = self._read(raw, record)
        return event if isinstance(event, Refusal) else row_of(event)

    def _read(self, raw: bytes, record: SourceRecord) -> ContentEvent | Refusal:
        """The event in JSON of our own shape or of a foreign one; slow, and says what is wrong."""
        document = read(raw, max_depth=self.limits.max_json_depth)
        if isinstance(document, Refusal):
            return document
        try:
            if self._mapping is None:
                if _says_newer(document):
                    return _too_new()
                event: ContentEvent = self._validate(raw, strict=True)
            else:
                fields = self._mapping.apply(document, record)
                if isinstance(fields, Unmapped):
                    return Refusal(RejectReason.MAPPING_ERROR, fields.error)
                event = self._validate_fields(fields)
        except ValidationError as error:
            return Refusal(RejectReason.SCHEMA_ERROR, _schema_error(error))
        return _too_new() if event.schema_version > SCHEMA_VERSION else event

    def _problem(self, row: Row, latest: float) -> Refusal | None:
        """What is wrong with an event that has the right shape."""
        seconds, text, image = row[0], row[4], row[6]
        if not _EARLIEST <= seconds <= latest:
            error = f"created_at: should be between 2000 and {self.limits.max_future_s:g} s from now (max_future_s)"
            return Refusal(RejectReason.TIMESTAMP, error)
        if image is not None:
            problem = image_problem(image, self._image_limits)
            return Refusal(RejectReason.IMAGE, problem) if problem else None
        if text is None:
            return Refusal(RejectReason.EMPTY_CONTENT, "neither text nor an image")
        return None


def _batch(records: Sequence[SourceRecord], positions: Sequence[int], rows: Sequence[Row]) -> EventBatch:
    """The columns of m rows, each of the record beside it."""
    columns = list(zip(*rows, strict=True)) or [()] * _WIDTH
    seconds, times, ids, roles, texts, prompts, images, surfaces, locales, tenants, generators, groups, unknown = (
        columns
    )
    return EventBatch(
        positions=np.array(positions, np.int64),
        offsets=np.array([record.offset for record in records], np.int64),
        input_digests=["sha256:" + sha256(record.value or b"").hexdigest() for record in records],
        created_at=np.array(seconds, np.float64),
        times=times,
        ids=ids,
        roles=roles,
        texts=texts,
        prompts=prompts,
        images=images,
        surfaces=surfaces,
        locales=locales,
        tenants=tenants,
        generators=generators,
        groups=groups,
        unknown_fields=unknown,
    )


_WIDTH = len(get_args(Row))


def row_of(event: ContentEvent) -> Row:
    """An event of the contract as a row."""
    return (
        event.created_at.timestamp(),
        event.created_at,
        event.id,
        event.role,
        None if not event.text or event.text.isspace() else event.text,
        event.prompt or None,
        event.image,
        event.surface,
        event.locale or None,
        event.tenant,
        event.generator.label if event.generator else None,
        event.groups or NO_GROUPS,
        _unknown_fields(event) or NO_NAMES,
    )


def _unknown_fields(event: ContentEvent) -> list[str]:
    """Names of the fields that this version does not know, dotted where nested, sorted; at most 16 of 64 characters."""
    names = list(event.model_extra or ())
    if event.generator is not None:
        names += [f"generator.{name}" for name in event.generator.model_extra or ()]
    if event.image is not None:
        names += [f"image.{name}" for name in event.image.model_extra or ()]
    return sorted(name[:_MAX_UNKNOWN_CHARACTERS] for name in names)[:_MAX_UNKNOWN]


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
    return (
        message.replace("Input should", "should").replace("Field required", "is missing").removeprefix("Value error, ")
    )
