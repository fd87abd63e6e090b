"""The bytes of a decision into the few fields that fairness is counted from, ours or of any system that writes these.

Only what is counted is decoded; every other field is skipped, so fields this version does not know cost nothing and
break nothing. A decision needs an `action` and a `created_at`; one without `harms` counts by its action alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, cast

import msgspec

from stream.events import SCHEMA_VERSION

__all__ = [
    "UNREADABLE",
    "Converter",
    "DecisionReader",
    "Groups",
    "Harms",
    "ObservedDecision",
    "RefusedError",
    "Uncounted",
]

# The bounds of `stream.events.ContentEvent`; foreign decisions are held to them too, or their names could fill the
# state record.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Digest = Annotated[str, msgspec.Meta(max_length=128)]
# msgspec takes no field whose name would need escaping in JSON.
HarmName = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r'^[^"\\\x00-\x1f]+$')]
Groups = Annotated[dict[Name, Annotated[list[Name], msgspec.Meta(max_length=32)]], msgspec.Meta(max_length=16)] | None

MAX_HARMS = 64
"""Harms in one decision, and harms a reader knows by name: ten times our own. A reader that met more starts over."""

Converter = Callable[[bytes], bytes | None]
"""Turns a decision of a foreign shape into one of ours; None where it cannot."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes that are not what was asked for; the last is its guard against deep nesting."""


class Uncounted(StrEnum):
    """Why a record of the decisions topic is in no pane: the closed list of reason codes."""

    TOMBSTONE = "tombstone"
    MAPPING_ERROR = "mapping_error"
    DECODE_ERROR = "decode_error"
    SCHEMA_ERROR = "schema_error"
    SCHEMA_VERSION = "schema_version"
    TIMESTAMP = "timestamp"
    REPEATED = "repeated"
    TOO_MANY_NAMES = "too_many_names"
    PANE_DROPPED = "pane_dropped"


class RefusedError(Exception):
    """A record that cannot be counted, and why. It never leaves the stage: it is counted as uncounted."""

    def __init__(self, reason: Uncounted) -> None:
        super().__init__(reason)
        self.reason = reason


class HarmSelection(msgspec.Struct, frozen=True, gc=False):
    """What was selected for one harm."""

    selection: Literal["harmless", "abstain", "harmful"]


class Harms(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What was selected for each harm. A `DecisionReader` derives types with an optional field for each harm."""

    def selections(self) -> Iterator[tuple[str, str]]:
        """Each harm the decision speaks of, and what was selected."""
        found: tuple[HarmSelection | None, ...] = msgspec.structs.astuple(self)
        for harm, selected in zip(self.__struct_encode_fields__, found, strict=True):
            if selected is not None:
                yield harm, selected.selection


class ObservedDecision(msgspec.Struct, gc=False):
    """The fields of a decision that are counted.

    `groups` stays bytes: few values are distinct, each is read once. So does `decision_id`, which may be anything where
    others decide.
    """

    action: Name
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]
    harms: Harms | None = None
    groups: msgspec.Raw = msgspec.Raw(b"{}")
    moderated: bool = True
    decision_id: msgspec.Raw = msgspec.Raw(b"")
    bundle: Digest | None = None
    policy: Digest | None = None
    schema_version: int = SCHEMA_VERSION


class DecisionReader:
    """Reads decisions, learning the names of their harms as they come.

    Six harms decoded into a dictionary are a third of the time it takes to count a decision. Decoded into a struct type
    with a field for each, they are half of that and hashable as they are. The names are not known beforehand, so a
    decision with a new one is read twice, and the type derived anew.

    `mapping`, where there is one, turns each value into one of our decisions first.
    """

    def __init__(self, mapping: Converter | None = None) -> None:
        self._mapping = mapping
        self._known: tuple[str, ...] = ()
        self._decode = _decoder(self._known)

    def read(self, value: bytes | None) -> ObservedDecision:
        """Read the value of one record; raises `RefusedError` where it is no decision that can be counted."""
        if value is None:
            raise RefusedError(Uncounted.TOMBSTONE)
        if self._mapping is not None:
            value = self._mapping(value)
            if value is None:
                raise RefusedError(Uncounted.MAPPING_ERROR)
        try:
            decision = self._decode(value)
        except UNREADABLE as error:
            decision = self._read_again(value, error)
        if decision.schema_version > SCHEMA_VERSION:
            raise RefusedError(Uncounted.SCHEMA_VERSION)
        return decision

    def _read_again(self, value: bytes, error: Exception) -> ObservedDecision:
        """Read a decision that may have harms not known yet."""
        try:
            if isinstance(error, msgspec.ValidationError) and self._learn(value):
                return self._decode(value)
        except UNREADABLE as second:
            error = second
        malformed = not isinstance(error, msgspec.ValidationError)
        raise RefusedError(Uncounted.DECODE_ERROR if malformed else Uncounted.SCHEMA_ERROR) from None

    def _learn(self, value: bytes) -> bool:
        """Learn the harms of a decision; say whether there was a new one. Raises one of `UNREADABLE`."""
        harms = msgspec.json.decode(value, type=_WithHarms).harms or {}
        known = tuple(dict.fromkeys((*self._known, *harms)))
        if known == self._known:
            return False
        self._known = known if len(known) <= MAX_HARMS else tuple(harms)
        self._decode = _decoder(self._known)
        return True


class _WithHarms(msgspec.Struct):
    harms: Annotated[dict[HarmName, HarmSelection | None], msgspec.Meta(max_length=MAX_HARMS)] | None = None


def _decoder(harms: Sequence[str]) -> Callable[[bytes], ObservedDecision]:
    fields = [
        (f"harm_{i}", HarmSelection | None, msgspec.field(default=None, name=harm)) for i, harm in enumerate(harms)
    ]
    named = msgspec.defstruct("NamedHarms", fields, bases=(Harms,), frozen=True, gc=False)
    decision = msgspec.defstruct("Decision", [("harms", named | None, None)], bases=(ObservedDecision,), gc=False)
    return msgspec.json.Decoder(cast("type[ObservedDecision]", decision)).decode
