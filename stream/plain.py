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

from stream.events import MAX_GROUP_VALUES, MAX_GROUPS, SCHEMA_VERSION, Image, label, rfc3339
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
    """`ContentEvent` without images and unknown fields; what is not there stays unset, so that keys can be counted."""

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


_decode = msgspec.json.Decoder(_Plain).decode
_astuple = msgspec.structs.astuple
_FIELDS = len(_Plain.__struct_fields__)


def read_plain(raw: bytes) -> Row | None:
    """Read one event, whole and with one reading only; None where the careful reader has to look."""
    try:
        event = _decode(raw)
        created_at = rfc3339(event.created_at)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if created_at.tzinfo is None or not _has_one_reading(raw, event):
        return None
    text, generator = event.text, event.generator
    return (
        created_at.timestamp(),
        created_at,
        event.id,
        event.role,
        None if not text or text.isspace() else text,
        event.prompt or None,
        None,
        event.surface or "default",
        event.locale or None,
        event.tenant or None,
        label(generator.name, generator.version or None) if generator else None,
        event.groups or NO_GROUPS,
        NO_NAMES,
    )


def _has_one_reading(raw: bytes, event: _Plain) -> bool:
    """True only where no key is repeated; in two steps, because few names have a colon and most texts are short."""
    colons = _FIELDS - _astuple(event).count(UNSET) + event.created_at.count(":") + event.id.count(":")
    if event.text:
        colons += event.text.count(":")
    if event.groups:
        colons += len(event.groups)
    return is_free_of_repeats(raw, colons=colons) or is_free_of_repeats(raw, colons=colons + _other_colons(event))


def _other_colons(event: _Plain) -> int:
    """Colons that belong to what few events have: keys of the generator, and colons in the other strings."""
    strings = [text for text in (event.prompt, event.surface, event.locale, event.author, event.tenant) if text]
    keys = 0
    if event.generator:
        strings += [text for text in (event.generator.name, event.generator.version) if text]
        keys = len(event.generator.__struct_fields__) - _astuple(event.generator).count(UNSET)
    for group, values in (event.groups or NO_GROUPS).items():
        strings += [group, *values]
    return keys + sum(text.count(":") for text in strings)
