"""Decisions for the tests of fairness: records of our own shape, and streams of them for hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

from stream.events import Decision, HarmDecision, Selection
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, FairnessReport
from stream.fairness.state import StateRecord

__all__ = ["START", "Record", "counted_by", "decision", "essence", "read", "records", "state_of", "streams", "tell"]

START = 1_767_225_600
"""2026-01-01T00:00:00Z, the beginning of a pane of any width used here."""

DIGESTS = {"bundle": "sha256:" + "b" * 64, "policy": "sha256:" + "d" * 64, "calibration": "sha256:" + "c" * 64}


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the transport hands it over."""

    offset: int
    value: bytes | None
    timestamp: int | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def decision(
    at: float = START,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    harms: Mapping[str, str] | None = None,
    **fields: Any,  # any field of a decision
) -> bytes:
    """A decision created `at` seconds since the epoch, with the selection of each harm."""
    found = {harm: HarmDecision(0.5, selection, 0.9, 0.1) for harm, selection in (harms or {}).items()}  # type: ignore[arg-type]
    plain: dict[str, Any] = {
        "decision_id": "content.events:99:0",  # of a partition that no test counts, so that it repeats nothing
        "content_id": "c",
        "action": "allow",
        "reasons": [],
        "moderated": True,
        "input_digest": "sha256:" + "e" * 64,
        "decided_at": "2026-01-01T00:00:01Z",
        "review_propensity": 0.01,
        "role": "output",
        "surface": "chat",
        "provider": "stub",
    }
    return msgspec.json.encode(
        Decision(
            **(plain | DIGESTS | fields),
            created_at=datetime.fromtimestamp(at, UTC),
            groups={axis: list(names) for axis, names in (groups or {}).items()},
            harms=found,
        )
    )


def records(values: Sequence[bytes | None], *, start: int = 0) -> list[Record]:
    """Values as records with offsets from `start` on."""
    return [Record(start + i, value) for i, value in enumerate(values)]


def state_of(snapshot: Sequence[StateRecord]) -> bytes:
    """The partition's state, which is the last record of a snapshot."""
    value = snapshot[-1][1]
    assert value is not None
    return value


def counted_by(partition: str, settings: CountSettings, values: Sequence[bytes | None]) -> list[StateRecord]:
    """What one counter writes that counts all of these."""
    counter = FairnessCounter(partition, settings)
    counter.count(records(values))
    return counter.snapshot()


def tell(merger: FairnessMerger, snapshot: Iterable[StateRecord]) -> None:
    """Give records of the state topic to a merger."""
    for key, value in snapshot:
        merger.update(key, value)


def essence(reports: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The last report of each key, without its basis, which says how it came about."""
    return {
        key: msgspec.json.encode(
            {name: part for name, part in msgspec.json.decode(value).items() if name != "basis"}, order="sorted"
        )
        for key, value in reports
    }


def read(reports: Sequence[tuple[bytes, bytes]]) -> list[FairnessReport]:
    """The reports as they were published."""
    return [msgspec.json.decode(value, type=FairnessReport) for _, value in reports]


_GROUPS = st.dictionaries(
    st.sampled_from(["language", "gender"]), st.lists(st.sampled_from(["a", "b", "c"]), max_size=2), max_size=2
)
_HARMS = st.dictionaries(
    st.sampled_from(["hate", "violence"]), st.sampled_from([selection.name.lower() for selection in Selection])
)


def streams(*, seconds: int, max_size: int = 60) -> st.SearchStrategy[list[bytes | None]]:
    """Decisions created within `seconds`, in any order, some of them unreadable or tombstones."""
    created = st.integers(0, seconds * 10).map(lambda tenths: START + tenths / 10)
    decisions = st.builds(
        decision,
        created,
        groups=_GROUPS,
        harms=_HARMS,
        action=st.sampled_from(["allow", "block", "review"]),
        moderated=st.booleans(),
        policy=st.sampled_from(["sha256:" + digit * 64 for digit in "123"]),
    )
    broken = st.sampled_from([None, b"", b"{}", b"[1]", decision(schema_version=2)])
    return st.lists(decisions | broken, max_size=max_size)
