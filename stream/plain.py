"""The events that most are: JSON of our own shape, plainly written, read by msgspec straight into a row of the columns.

Pydantic's model is the contract, and `stream.decode` reads by it whatever is refused here. What is accepted here, it
accepts too and reads the same, which a property test holds; so this reader need not explain itself, and must only be
sure. It takes a third of the time, and what it makes takes a third of the memory and so stays in the processor's cache
until the decision is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stream.events import MAX_GROUP_VALUES, MAX_GROUPS, SCHEMA_VERSION, Image, label
from stream.strictjson import is_free_of_repeats

__all__ = ["NO_GROUPS", "NO_NAMES", "Row", "read_plain"]

Row = tuple[
    float,  # created_at in seconds since the epoch
    datetime,
    str,  # id
    str,  # role
    str | None,  # text, None where it is empty or blank
    str | None,  # what the content answers
    Image | None,
    str,  # surface
    str | None,  # locale
    str | None,  # tenant
    str | None,  # generator
    Mapping[str, Sequence[str]],  # groups
    Sequence[str],  # unknown fields
]
"""One event, in the order of the columns of `EventBatch`. A tuple: a named one costs ten times as much to make."""

NO_GROUPS: Mapping[str, Sequence[str]] = {}
NO_NAMES: Sequence[str] = ()

_Identifier = Annotated[str, Meta(min_length=1, max_length=256)]
_Name = Annotated[str, Meta(min_length=1, max_length=128)]
_Groups = Annotated[
    dict[_Name, Annotated[list[_Name], Meta(max_length=MAX_GROUP_VALUES)]],
    Meta(max_length=MAX_GROUPS),
]


class _Generator(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: _Name
    version: Annotated[str, Meta(max_length=128)] | UnsetType | None = UNSET


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`ContentEvent` without images and unknown fields. What is not there stays unset, and is not written again."""

    id: _Identifier
    created_at: str
    role: Literal["prompt", "output", "post"]
    text: str | UnsetType | None = UNSET
    image: UnsetType | None = UNSET
    prompt: str | UnsetType | None = UNSET
    generator: _Generator | UnsetType | None = UNSET
    surface: _Name | UnsetType = UNSET
    locale: Annotated[str, Meta(max_length=35)] | UnsetType | None = UNSET
    author: Annotated[str, Meta(max_length=256)] | UnsetType | None = UNSET
    groups: _Groups | UnsetType | None = UNSET
    tenant: _Name | UnsetType | None = UNSET
    schema_version: Annotated[int, Meta(ge=1, le=SCHEMA_VERSION)] | UnsetType = UNSET


_Times = list[Annotated[datetime, Meta(tz=True)]]

_decode = msgspec.json.Decoder(_Plain).decode
_encode = msgspec.json.Encoder().encode


def read_plain(raws: Sequence[bytes | None]) -> list[Row | None]:
    """Read n events, each whole and with one reading only; None where the careful reader has to look."""
    positions: list[int] = []
    events: list[_Plain] = []
    for position, raw in enumerate(raws):
        try:
            event = _decode(raw)  # type: ignore[arg-type]  # None is a TypeError, and nothing else is
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            continue
        positions.append(position)
        events.append(event)
    rows: list[Row | None] = [None] * len(raws)
    for position, row in zip(positions, _rows([raws[position] or b"" for position in positions], events), strict=True):
        rows[position] = row
    return rows


def _rows(raws: Sequence[bytes], events: Sequence[_Plain]) -> Sequence[Row | None]:
    """The rows of k events; those in doubt, found by halving, are None, and cost the others little."""
    times = _times(events) if _have_one_reading(raws, events) else None
    if times is not None:
        return _certain_rows(events, times)
    if len(events) == 1:
        return [None]
    half = len(events) // 2
    return [*_rows(raws[:half], events[:half]), *_rows(raws[half:], events[half:])]


def _have_one_reading(raws: Sequence[bytes], events: Sequence[_Plain]) -> bool:
    """True only where none of the texts repeats a key.

    An event written again has the colons of the keys that were kept and of the strings, and none more than its text.
    So the sums over all are equal only where every event's two numbers are.
    """
    return is_free_of_repeats(b"".join(raws), colons=_encode(events).count(b":"))


def _times(events: Sequence[_Plain]) -> list[datetime] | None:
    try:
        return msgspec.convert([event.created_at for event in events], _Times)
    except msgspec.ValidationError:
        return None


def _certain_rows(events: Sequence[_Plain], times: Sequence[datetime]) -> list[Row]:
    return [
        (
            created_at.timestamp(),
            created_at,
            event.id,
            event.role,
            None if not (text := event.text) or text.isspace() else text,
            event.prompt or None,
            None,
            event.surface or "default",
            event.locale or None,
            event.tenant or None,
            label(generator.name, generator.version or None) if (generator := event.generator) else None,
            event.groups or NO_GROUPS,
            NO_NAMES,
        )
        for event, created_at in zip(events, times, strict=True)
    ]
