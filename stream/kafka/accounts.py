"""The book-keeping of an audit: what became of every event of one partition.

An event's output is the first decision or dead letter with its coordinates in the partition of its number. Per event
this keeps 13 bytes, so ten million events of a partition take 130 MB; partitions are audited one after the other.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events import RejectReason
from stream.kafka import deadletter
from stream.kafka.reading import Bounds

__all__ = ["FAILURES", "PartitionAccount", "PartitionAudit"]

# Enough to start looking by hand, few enough to read.
MAX_EXAMPLES = 5

FAILURES = ("missing", "conflicting", "both", "out_of_order", "nonexistent", "wrong_partition", "unreadable")
"""The counts of an audit that must be zero. The others are facts: duplicates, say, are what at-least-once means."""

REASONS = {reason.value: number for number, reason in enumerate(RejectReason, start=1)}
UNKNOWN_REASON = 255
"""Stands for every reason code of a newer version."""


@dataclass(slots=True)
class PartitionAudit:
    """What became of the events of one partition."""

    partition: int
    events: int = 0
    """Events the audit looked for: those in the log when it began."""
    decided: int = 0
    dead_lettered: int = 0
    missing: int = 0
    """Events with no output in the partition of their number."""
    duplicated: int = 0
    """Outputs beyond the first of an event, that say the same."""
    redecided: int = 0
    """Decisions beyond the first, by another bundle, policy, calibration, mapping or provider: a deliberate replay, or
    one of a change while events were in hand."""
    conflicting: int = 0
    """Decisions beyond the first that say something else although the same bundle, policy and so on made them, or
    that were made of other bytes; dead letters beyond the first with another reason."""
    both: int = 0
    """Events with a decision and a dead letter."""
    out_of_order: int = 0
    """First outputs of an event that come after the first output of a later one."""
    nonexistent: int = 0
    """Outputs for an offset past the end of the events."""
    wrong_partition: int = 0
    """Outputs in another partition than their event's."""
    unreadable: int = 0
    """Records that are no decision or dead letter of ours."""
    expired: int = 0
    """Outputs for events that Kafka has deleted since, by its retention."""
    foreign: int = 0
    """Outputs for events of another topic."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Up to five coordinates per kind of failure."""

    @property
    def is_sound(self) -> bool:
        """Whether every event has its one output."""
        return not any(getattr(self, name) for name in FAILURES)

    def count(self, what: str, where: str) -> None:
        """Add one to a count and keep an example of it."""
        setattr(self, what, getattr(self, what) + 1)
        if what in FAILURES:
            examples = self.examples.setdefault(what, [])
            if len(examples) < MAX_EXAMPLES:
                examples.append(where)

    def __add__(self, other: PartitionAudit) -> PartitionAudit:
        """Sum of two; the partition number is the first one's."""
        counts = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name not in {"partition", "examples"}
        }
        examples = {
            name: (self.examples.get(name, []) + other.examples.get(name, []))[:MAX_EXAMPLES]
            for name in self.examples | other.examples
        }
        return PartitionAudit(self.partition, examples=examples, **counts)


class _Verdict(msgspec.Struct):
    """What of a decision is compared: what it says, what it was made of and what made it."""

    decision_id: str
    content_id: str
    action: str
    reasons: msgspec.Raw
    harms: msgspec.Raw
    moderated: bool
    input_digest: str
    bundle: str
    policy: str
    calibration: str
    mapping: str | None = None
    provider: str | None = None

    def maker(self) -> tuple[str | None, ...]:
        """What made it."""
        return self.bundle, self.policy, self.calibration, self.mapping, self.provider

    def fingerprint(self) -> int:
        """64 bits that differ where two decisions say something else; never 0."""
        said = self.content_id, self.action, bytes(self.reasons), bytes(self.harms), self.moderated, self.input_digest
        return hash(said) or 1


class PartitionAccount:
    """Takes the outputs found in one partition, in order, and tells what became of its events.

    `events` are the bounds of the partition when the audit began, `latest` its end when reading of the outputs began:
    an output for an offset between the two is for an event that came later, and not counted.
    """

    def __init__(self, topic: str, partition: int, events: Bounds, *, latest: int) -> None:
        self.audit = PartitionAudit(partition)
        self._topic, self._events, self._latest = topic, events, latest
        size = max(0, events.end - events.start)
        self._said = array("q", bytes(8 * size))
        self._maker = array("I", bytes(4 * size))
        self._rejected = array("B", bytes(size))
        self._makers: dict[tuple[str | None, ...], int] = {}
        self._newest_decision = self._newest_dead_letter = -1
        self._decode = msgspec.json.Decoder(_Verdict).decode

    def add_decision(self, value: bytes | None, *, where: str) -> None:
        """Enter a record of the decisions topic; `where` are its own coordinates."""
        try:
            verdict = self._decode(value or b"")
            topic, partition, offset = verdict.decision_id.rsplit(":", 2)
            index = self._index(topic, int(partition), int(offset), where=where)
        except (msgspec.DecodeError, ValueError):
            self.audit.count("unreadable", where)
            return
        if index is None:
            return
        said, maker = verdict.fingerprint(), self._makers.setdefault(verdict.maker(), len(self._makers))
        if not self._said[index]:
            self._said[index], self._maker[index] = said, maker
            self._newest_decision = self._in_order(index, self._newest_decision)
        elif self._maker[index] != maker:
            self.audit.redecided += 1
        elif self._said[index] != said:
            self.audit.count("conflicting", verdict.decision_id)
        else:
            self.audit.duplicated += 1

    def add_dead_letter(self, headers: deadletter.Headers, *, where: str) -> None:
        """Enter a record of the dead-letter topic."""
        letter = deadletter.decode(headers)
        if isinstance(letter, deadletter.Foreign):
            self.audit.count("unreadable", where)
            return
        index = self._index(*letter.source, letter.offset, where=where)
        if index is None:
            return
        reason = REASONS.get(letter.reason, UNKNOWN_REASON)
        if not self._rejected[index]:
            self._rejected[index] = reason
            self._newest_dead_letter = self._in_order(index, self._newest_dead_letter)
        elif self._rejected[index] != reason:
            self.audit.count("conflicting", letter.source_id)
        else:
            self.audit.duplicated += 1

    def unanswered(self) -> NDArray[np.int64]:
        """Offsets without an output, ascending. There may be no event at some of them."""
        decided, rejected = self._flags()
        return np.flatnonzero(~(decided | rejected)) + self._events.start

    def close(self, missing: NDArray[np.int64]) -> PartitionAudit:
        """Finish, given the unanswered offsets at which there is an event."""
        for offset in missing.tolist():
            self.audit.count("missing", self._id(offset))
        decided, rejected = self._flags()
        for index in np.flatnonzero(decided & rejected).tolist():
            self.audit.count("both", self._id(index + self._events.start))
        self.audit.decided = int(decided.sum())
        self.audit.dead_lettered = int(rejected.sum())
        self.audit.events = int((decided | rejected).sum()) + self.audit.missing
        return self.audit

    def _index(self, topic: str, partition: int, offset: int, *, where: str) -> int | None:
        """Where an output belongs in the arrays, or None where it is not counted there."""
        if topic != self._topic:
            self.audit.foreign += 1
        elif partition != self.audit.partition:
            self.audit.count("wrong_partition", where)
        elif offset >= self._latest:
            self.audit.count("nonexistent", where)
        elif offset < self._events.start:
            self.audit.expired += 1
        elif offset < self._events.end:
            return offset - self._events.start
        return None

    def _in_order(self, index: int, newest: int) -> int:
        """Note a first output that follows the first output of a later event; return the newest event so far."""
        if index < newest:
            self.audit.count("out_of_order", self._id(index + self._events.start))
        return max(index, newest)

    def _flags(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which events have a decision, and which a dead letter; both `(end - start,)` bool."""
        return np.frombuffer(self._said, np.int64) != 0, np.frombuffer(self._rejected, np.uint8) != 0

    def _id(self, offset: int) -> str:
        return f"{self._topic}:{self.audit.partition}:{offset}"
