"""One field of a mapping, compiled: a function from a foreign record to the field's value, None where there is none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from stream.events import SourceRecord
from stream.mapping.document import ANY_AXIS, LabelSource, TextSource, TimeSource
from stream.mapping.path import Path

__all__ = [
    "Getter",
    "UnmappedError",
    "groups_getter",
    "nested_getter",
    "selection_getter",
    "text_getter",
    "time_getter",
]

# From the JSON value that a record is, and the record, to a field's value: any of them may be of any shape.
Getter = Callable[[Any, SourceRecord], Any]

# No id is a longer number, and Python refuses to write out numbers of thousands of digits.
_MAX_INTEGER = 2**64


class UnmappedError(Exception):
    """A record has no usable value for a field. Never leaves `Mapping.apply`; the text names paths and no values."""


def text_getter(source: TextSource, choices: Collection[str] = ()) -> Getter:
    """A text; where there are `choices`, one of them."""
    if source.path is not None:
        is_plain = source.values is None and not choices
        return _plain_text(source.path, source.default) if is_plain else _known_text(source.path, source, choices)
    if source.record is not None:
        return {"key": _record_key, "offset": _record_offset, "digest": _record_digest}[source.record]
    return lambda _document, _record: source.constant


def time_getter(source: TimeSource) -> Getter:
    """An aware datetime."""
    if source.path is None:
        return lambda _document, record: _moment(record.timestamp, 1000, "the record's timestamp")
    find, where = source.path.finder(), source.path.text
    if source.time == "rfc3339":
        return lambda document, _record: _parsed(find(document), where)
    per_second = {"epoch_s": 1, "epoch_ms": 1000}[source.time]
    return lambda document, _record: _moment(find(document), per_second, where)


def groups_getter(sources: Mapping[str, LabelSource]) -> Getter:
    """Axis to the names of its groups; None where the record has no group at all."""
    by_axis = [(axis, _labels(source)) for axis, source in sources.items() if axis != ANY_AXIS]
    mixed = sources.get(ANY_AXIS)
    if mixed is None:
        return lambda document, _record: {axis: names for axis, get in by_axis if (names := get(document))} or None
    labels, separator, where = _labels(mixed), mixed.split or "", mixed.path.text

    def get(document: Any, _record: SourceRecord) -> dict[str, list[str]] | None:
        groups = {axis: names for axis, of_axis in by_axis if (names := of_axis(document))}
        for label in labels(document):
            axis, found, group = label.partition(separator)
            if not found:
                raise UnmappedError(f"`{where}`: should be labels of the form axis{separator}group")
            groups.setdefault(axis, []).append(group)
        return groups or None

    return get


def nested_getter(getters: Sequence[tuple[str, Getter]]) -> Getter:
    """An object of fields, without those that have no value; None where none has."""

    def get(document: Any, record: SourceRecord) -> dict[str, Any] | None:
        return {name: value for name, of in getters if (value := of(document, record)) is not None} or None

    return get


def selection_getter(source: TextSource, choices: Collection[str]) -> Getter:
    """What was selected for one harm, as a decision has it."""
    word = text_getter(source, choices)

    def get(document: Any, record: SourceRecord) -> dict[str, str] | None:
        selection = word(document, record)
        return None if selection is None else {"selection": selection}

    return get


def _plain_text(path: Path, default: str | None) -> Getter:
    find, where = path.finder(), path.text

    def get(document: Any, _record: SourceRecord) -> str | None:
        value = find(document)
        if type(value) is str:
            return value
        return default if value is None else _number(value, where)

    return get


def _known_text(path: Path, source: TextSource, choices: Collection[str]) -> Getter:
    find, where, values = path.finder(), path.text, source.values

    def get(document: Any, _record: SourceRecord) -> str | None:
        value = find(document)
        if value is None:
            return source.default
        word = _word(value, where) if values is None else values.get(_word(value, where), source.other)
        if word is None:
            raise UnmappedError(f"`{where}`: its value is not among `values`, and there is no `other`")
        if choices and word not in choices:
            raise UnmappedError(f"`{where}`: should be one of {', '.join(choices)}")
        return word

    return get


def _labels(source: LabelSource) -> Callable[[Any], list[str]]:
    find, where, values = source.path.finder(), source.path.text, source.values

    def labels(document: Any) -> list[str]:
        value = find(document)
        if value is None:
            return []
        items = value if type(value) is list else [value]
        words = [item if type(item) is str else _word(item, where) for item in items]
        return words if values is None else [values[word] for word in words if word in values]

    return labels


def _word(value: Any, where: str) -> str:
    """A scalar as text: text as it is, the rest as JSON writes it."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    return _number(value, where)


def _number(value: Any, where: str) -> str:
    if type(value) is int and abs(value) < _MAX_INTEGER:
        return str(value)
    raise UnmappedError(f"`{where}`: should be text")


def _parsed(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise UnmappedError(f"`{where}`: should be RFC 3339 text with an offset")
    return time


def _moment(value: Any, per_second: int, where: str) -> datetime | None:
    if value is None:
        return None
    if type(value) is not int and type(value) is not float:
        raise UnmappedError(f"`{where}`: should be a number")
    try:
        return datetime.fromtimestamp(value / per_second, UTC)
    except (OverflowError, ValueError, OSError):
        raise UnmappedError(f"`{where}`: is no time that a calendar has") from None


def _record_key(_document: Any, record: SourceRecord) -> str | None:
    try:
        return None if record.key is None else record.key.decode()
    except UnicodeDecodeError:
        raise UnmappedError("the record's key: should be UTF-8") from None


def _record_offset(_document: Any, record: SourceRecord) -> str:
    return str(record.offset)


def _record_digest(_document: Any, record: SourceRecord) -> str:
    return f"sha256:{sha256(record.value or b'').hexdigest()}"
