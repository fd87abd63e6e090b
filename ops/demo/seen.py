"""What has come out so far, read from the topics: decisions, questions to people, rejections and group tables."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

import msgspec

from ops.demo.content import Item
from ops.demo.why import Told, Why, asked_because, because
from stream.fairness.report import FairnessReport
from stream.kafka import deadletter
from stream.kafka.following import TopicRecord
from stream.settings import Settings

__all__ = ["Asked", "Decided", "Rejected", "Seen"]

SPEED_OVER_S = 3.0
"""The speed shown is that of so many seconds."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision as it is shown."""

    meant: str
    """What its author meant it to be: benign, borderline or harmful. The service never knew."""
    action: str
    where: str
    shown: str
    why: Why


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to a person as it is shown."""

    is_abstained: bool
    shown: str
    why: Why


@dataclass(frozen=True, slots=True)
class Rejected:
    """One rejection as it is shown."""

    reason: str
    coordinates: str
    """Partition and offset of the record in the events topic."""
    shown: str
    error: str


class _Review(msgspec.Struct):
    why: str
    decision: Told


@dataclass(slots=True)
class Seen:
    """Everything that has come out, each event once; a duplicate, which Kafka may bring, changes nothing."""

    settings: Settings
    items: Mapping[bytes, Item]
    actions: Mapping[str, str]
    """What the policy does with harmful content, by harm."""
    stage: str = ""
    sent: int = 0
    decided: list[Decided] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    tables: dict[str, FairnessReport] = field(default_factory=dict)
    """By axis: which share of each group's content was allowed."""
    _known: set[tuple[str, str]] = field(default_factory=set)
    _delays_ms: list[float] = field(default_factory=list)
    _arrivals: deque[float] = field(default_factory=deque)

    @property
    def total(self) -> int:
        """Records that are played."""
        return len(self.items)

    @property
    def is_answered(self) -> bool:
        """Whether everything sent so far has its decision or rejection, and every question has been asked."""
        is_decided = len(self.decided) + len(self.rejected) >= self.sent
        return is_decided and len(self.asked) >= self.by_action()["review"]

    @property
    def is_reported(self) -> bool:
        """Whether the group tables are of all decisions so far."""
        return bool(self.tables) and all(table.pane_n >= len(self.decided) for table in self.tables.values())

    @property
    def delay_ms(self) -> float:
        """Median time from when an event was made to when it was decided."""
        return median(self._delays_ms) if self._delays_ms else 0.0

    def per_s(self) -> float:
        """Decisions a second, over the last few."""
        now = time.monotonic()
        while self._arrivals and self._arrivals[0] < now - SPEED_OVER_S:
            self._arrivals.popleft()
        return len(self._arrivals) / SPEED_OVER_S

    def by_action(self) -> Counter[str]:
        """How many decisions of each action."""
        return Counter(decided.action for decided in self.decided)

    def take(self, topic: str, records: Iterable[TopicRecord]) -> None:
        """Take records of one topic."""
        take = {
            self.settings.decisions_topic: self._decision,
            self.settings.review_topic: self._review,
            self.settings.dead_letter_topic: self._dead_letter,
            self.settings.reports_topic: self._report,
        }[topic]
        for record in records:
            take(record)

    def _decision(self, record: TopicRecord) -> None:
        told = msgspec.json.decode(record.value or b"", type=Told)
        if not self._is_new("decision", told.decision_id):
            return
        meant = told.content_id.partition("-")[0]
        where = f"{told.surface} {told.locale or ''}".strip()
        self.decided.append(Decided(meant, told.action, where, self._shown(record), because(told, self.actions)))
        self._arrivals.append(time.monotonic())
        self._delays_ms.append((told.decided_at - told.created_at).total_seconds() * 1000)

    def _review(self, record: TopicRecord) -> None:
        review = msgspec.json.decode(record.value or b"", type=_Review)
        if self._is_new("review", review.decision.decision_id):
            why = asked_because(review.decision, review.why, self.actions)
            self.asked.append(Asked(review.why == "abstained", self._shown(record), why))

    def _dead_letter(self, record: TopicRecord) -> None:
        letter = deadletter.decode(record.headers)
        if isinstance(letter, deadletter.DeadLetter) and self._is_new("dead letter", letter.source_id):
            coordinates = f"{letter.source.partition}:{letter.offset}"
            self.rejected.append(Rejected(letter.reason, coordinates, self._shown(record), letter.error))

    def _report(self, record: TopicRecord) -> None:
        """Keep the fullest table of each axis: a play across midnight has two panes, and later revisions say more."""
        report = msgspec.json.decode(record.value or b"", type=FairnessReport)
        known = self.tables.get(report.axis)
        if report.action == "allow" and (known is None or report.pane_n >= known.pane_n):
            self.tables[report.axis] = report

    def _is_new(self, kind: str, name: str) -> bool:
        is_new = (kind, name) not in self._known
        self._known.add((kind, name))
        return is_new

    def _shown(self, record: TopicRecord) -> str:
        item = self.items.get(record.key or b"")
        return item.shown if item else "?"
