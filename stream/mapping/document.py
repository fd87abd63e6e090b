"""The shape of a mapping file: for each of our fields, where in a foreign record its value comes from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from stream.mapping.path import Path, parse_path
from stream.yamlfile import Section

__all__ = [
    "ANY_AXIS",
    "DecisionFields",
    "DecisionMapping",
    "EventFields",
    "EventMapping",
    "GeneratorFields",
    "ImageFields",
    "LabelSource",
    "TextSource",
    "TimeSource",
]

SCHEMA_VERSION = 1

ANY_AXIS = "*"
"""In place of an axis: the labels name their axis themselves, as in `gender:women`."""

# The bounds that decisions and their fairness counts have.
_MAX_HARMS = 64
_MAX_AXES = 16
_MAX_VALUES = 1024


def _as_path(value: object) -> object:
    """A source written as a word is the path of one."""
    return {"path": value} if isinstance(value, str) else value


def _parsed(text: object) -> Path:
    if not isinstance(text, str):
        raise ValueError("must be a path; quote it")  # noqa: TRY004 - pydantic wants ValueError
    return parse_path(text)


Word = Annotated[str, Field(strict=True, min_length=1, max_length=256)]
PathText = Annotated[Path, BeforeValidator(_parsed), WithJsonSchema({"type": "string"})]
Table = Annotated[dict[Word, Word], Field(min_length=1, max_length=_MAX_VALUES)]
HarmName = Annotated[str, Field(min_length=1, max_length=128, pattern=r'^[^"\\\x00-\x1f]+$')]


class _Section(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True)


class TextSource(_Section):
    """A text: one of `path`, `constant` and `record`."""

    path: PathText | None = None
    """Where in the record. Text is taken as it is, an integer in decimal."""
    values: Table | None = None
    """What each value becomes; of a number, `true` or `false`, the key is how JSON writes it."""
    other: Word | None = None
    """What a value becomes that is not among `values`."""
    default: Word | None = None
    """Taken where there is nothing at `path`, or null."""
    constant: Word | None = None
    """The same for every record."""
    record: Literal["key", "offset", "digest"] | None = None
    """Of the Kafka record: its key as UTF-8, its offset, or `sha256:` and the hex digest of its value."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if len({"path", "constant", "record"} & self.model_fields_set) != 1:
            raise ValueError("needs one of `path`, `constant` and `record`")
        if self.path is None and {"values", "other", "default"} & self.model_fields_set:
            raise ValueError("`values`, `other` and `default` go with `path`")
        if self.other is not None and self.values is None:
            raise ValueError("`other` goes with `values`")
        return self


class TimeSource(_Section):
    """A time: text or a number in the record, or the Kafka record's timestamp."""

    path: PathText | None = None
    time: Literal["rfc3339", "epoch_s", "epoch_ms"] = "rfc3339"
    """How it is written: RFC 3339 text, or a number of seconds or milliseconds since 1970."""
    record: Literal["timestamp"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if len({"path", "record"} & self.model_fields_set) != 1:
            raise ValueError("needs one of `path` and `record`")
        if self.path is None and "time" in self.model_fields_set:
            raise ValueError("`time` goes with `path`")
        return self


class LabelSource(_Section):
    """Names of groups: one or a list of them."""

    path: PathText
    values: Table | None = None
    """What each value becomes; one that is not here is left out."""
    split: Annotated[str, Field(strict=True, min_length=1, max_length=8)] | None = None
    """What stands between axis and group, where the labels name both."""


Text = Annotated[TextSource, BeforeValidator(_as_path)]
Time = Annotated[TimeSource, BeforeValidator(_as_path)]
Labels = Annotated[LabelSource, BeforeValidator(_as_path)]
Axis = Annotated[str, Field(min_length=1, max_length=128)]


class ImageFields(_Section):
    """The fields of `stream.events.Image`."""

    media_type: Text
    data: Text | None = None
    url: Text | None = None


class GeneratorFields(_Section):
    """The fields of `stream.events.Generator`."""

    name: Text
    version: Text | None = None


class _Fields(_Section):
    created_at: Time
    groups: Annotated[dict[Axis, Labels], Field(max_length=_MAX_AXES)] | None = None


class EventFields(_Fields):
    """The fields of `stream.events.ContentEvent`."""

    id: Text
    role: Text
    text: Text | None = None
    prompt: Text | None = None
    image: ImageFields | None = None
    generator: GeneratorFields | None = None
    surface: Text | None = None
    locale: Text | None = None
    author: Text | None = None
    tenant: Text | None = None

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if not {"text", "image"} & self.model_fields_set:
            raise ValueError("needs `text`, `image` or both: what is moderated")
        return self


class DecisionFields(_Fields):
    """What of a decision the fairness stage counts, and the names it can be found by."""

    action: Text
    decision_id: Text | None = None
    content_id: Text | None = None
    harms: Annotated[dict[HarmName, Text], Field(max_length=_MAX_HARMS)] | None = None
    """For each harm, where its selection comes from: harmless, abstain or harmful."""
    bundle: Text | None = None
    policy: Text | None = None


class _Mapping(_Section):
    schema_version: Annotated[int, Field(strict=True)]
    name: Word

    @field_validator("schema_version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version != SCHEMA_VERSION:
            raise ValueError(f"this release reads schema version {SCHEMA_VERSION}, not {version}")
        return version


class EventMapping(_Mapping):
    """A mapping to content events."""

    kind: Literal["event"]
    fields: EventFields


class DecisionMapping(_Mapping):
    """A mapping to decisions, for monitoring the fairness of a system that is not this one."""

    kind: Literal["decision"]
    fields: DecisionFields
