"""The fields of a mapping file in, a function for each out, or every problem there is, by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from pydantic import BaseModel

from stream.events import Action, ContentEvent, Image
from stream.mapping.document import ANY_AXIS, DecisionMapping, EventMapping, TextSource, TimeSource
from stream.mapping.getters import (
    Getter,
    groups_getter,
    nested_getter,
    selection_getter,
    text_getter,
    time_getter,
)
from stream.yamlfile import Document, FieldPath, Problem, did_you_mean

__all__ = ["compile_fields", "parse"]

_KINDS: Mapping[str, type[EventMapping | DecisionMapping]] = {"event": EventMapping, "decision": DecisionMapping}

# Fields that are one of a few words.
_CHOICES: Mapping[FieldPath, tuple[str, ...]] = {
    ("role",): get_args(ContentEvent.model_fields["role"].annotation),
    ("image", "media_type"): get_args(Image.model_fields["media_type"].annotation),
    ("action",): tuple(Action),
}
_SELECTIONS = ("harmless", "abstain", "harmful")


def parse(document: Document) -> EventMapping | DecisionMapping:
    """Check a mapping file; raises `MappingError` with a line for every problem."""
    kind = str(document.data.get("kind"))
    if kind not in _KINDS:
        choices = f"must be one of {', '.join(_KINDS)}{did_you_mean(kind, _KINDS)}"
        raise document.refusal([Problem(("kind",), choices)])
    mapping = document.validate(_KINDS[kind])
    if problems := list(_problems(mapping)):
        raise document.refusal(problems)
    return mapping


def compile_fields(fields: BaseModel) -> list[tuple[str, Getter]]:
    """A getter for each field that the file gives a source, by the field's name."""
    return [(name, _getter((name,), source)) for name, source in fields if source is not None]


def _getter(path: FieldPath, source: object) -> Getter:
    if isinstance(source, TextSource):
        # What a record says is held against the choices later, with everything else; an action only here.
        return text_getter(source, _CHOICES[path] if path == ("action",) else ())
    if isinstance(source, TimeSource):
        return time_getter(source)
    if path == ("groups",) and isinstance(source, dict):
        return groups_getter(source)
    if path == ("harms",) and isinstance(source, dict):
        return nested_getter([(harm, selection_getter(text, _SELECTIONS)) for harm, text in source.items()])
    parts: BaseModel = source  # type: ignore[assignment]  # what is left: `image` and `generator`
    return nested_getter([(name, _getter((*path, name), part)) for name, part in parts if part is not None])


def _problems(mapping: EventMapping | DecisionMapping) -> Iterator[Problem]:
    """What is wrong with values that are each possible in themselves."""
    for path, source in _sources((), mapping.fields):
        choices = _SELECTIONS if path[0] == "harms" else _CHOICES.get(path)
        if isinstance(source, TextSource) and choices is not None:
            for where, word in _written(source):
                if word not in choices:
                    must = f"must be one of {', '.join(choices)}{did_you_mean(word, choices)}"
                    yield Problem(("fields", *path, *where), must)
        if isinstance(mapping, DecisionMapping) and source.record not in {None, "digest"}:
            yield Problem(("fields", *path, "record"), "must be `digest` here: decisions are read by their value alone")
    for axis, labels in (mapping.fields.groups or {}).items():
        if (axis == ANY_AXIS) != (labels.split is not None):
            yield Problem(("fields", "groups", axis), f'needs `split` where, and only where, the axis is "{ANY_AXIS}"')


def _sources(path: FieldPath, fields: object) -> Iterator[tuple[FieldPath, TextSource | TimeSource]]:
    """Every source of a text or a time, and where the file has it."""
    if isinstance(fields, TextSource | TimeSource):
        yield path, fields
    elif isinstance(fields, BaseModel | dict):
        for name, part in fields.items() if isinstance(fields, dict) else fields:
            yield from _sources((*path, name), part)


def _written(source: TextSource) -> Iterator[tuple[FieldPath, str]]:
    """Each word that the file itself gives as a value."""
    for name in ("constant", "other", "default"):
        if (word := getattr(source, name)) is not None:
            yield (name,), word
    for value, word in (source.values or {}).items():
        yield ("values", value), word
