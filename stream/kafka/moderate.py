"""The moderate stage: content events in; decisions, review records and dead letters out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stream.encode import NO_REVIEW, REVIEW_WHYS, DecisionEncoder, review_whys, without_event
from stream.errors import BrokerError
from stream.events import FailCondition, Rejected, RejectReason, Selection, SourceRecord
from stream.kafka import deadletter
from stream.kafka.ledger import Partition
from stream.kafka.publisher import Load, OutRecord
from stream.pipeline import Moderated, Pipeline
from stream.scoring.timed import TimedScorer
from stream.telemetry import ModerateMetrics, count_each

__all__ = ["TRACE_HEADERS", "ModerateStage", "OutputTopics"]

TRACE_HEADERS = frozenset({"traceparent", "tracestate", "baggage", "b3"})
"""Headers carried from the event to everything made from it, so that a trace does not end here (W3C, B3)."""

NO_HEADERS: list[tuple[str, bytes]] = []
"""Shared and never written to; aiokafka insists on a list."""


@dataclass(frozen=True, slots=True)
class OutputTopics:
    """Where the stage writes."""

    decisions: str
    review: str
    dead_letter: str


class ModerateStage:
    """Runs the pipeline in force on each unit. It may be replaced at any time; a unit sees one of them."""

    def __init__(
        self,
        pipeline: Pipeline,
        encoder: DecisionEncoder,
        topics: OutputTopics,
        metrics: ModerateMetrics,
        *,
        worker: str,
    ) -> None:
        self._in_force = (pipeline, encoder)
        self._topics, self._metrics, self._worker = topics, metrics, worker

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline in force."""
        return self._in_force[0]

    def replace(self, pipeline: Pipeline, encoder: DecisionEncoder | None = None) -> None:
        """Put a pipeline in force with the encoder that says where its decisions come from; with the same model, none.

        Both at once, or a unit would write one model's digest beside another's scores.
        """
        self._in_force = (pipeline, encoder or self._in_force[1])

    def run(self, partition: Partition, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        """Moderate records of one partition; outputs keep its number, its keys and its order."""
        now, started_at = time.time(), time.perf_counter()
        topic, number = partition
        pipeline, encoder = self._in_force
        timed = TimedScorer(pipeline.scorer)
        moderated = replace(pipeline, scorer=timed).run(records, topic=topic, partition=number, now=now)
        decisions = encoder.decisions(moderated, topic=topic, partition=number, now=now)
        rows, reviews = encoder.reviews(moderated, decisions, records)
        positions: list[int] = moderated.events.positions.tolist()
        reviewed = [positions[row] for row in rows]
        loads = {
            Partition(self._topics.decisions, number): _load(records, positions, decisions),
            Partition(self._topics.review, number): _load(records, reviewed, reviews),
            Partition(self._topics.dead_letter, number): self._dead_letters(partition, records, moderated.rejected),
        }
        self._count(moderated, now)
        decided_s = time.perf_counter() - timed.answered_at
        self._metrics.unit_moderated(timed.asked_at - started_at, timed.answered_at - timed.asked_at, decided_s)
        return loads

    def refused(
        self, record: SourceRecord, output: OutRecord, *, source: Partition, destination: Partition
    ) -> tuple[Partition, OutRecord]:
        """Replace an output the broker refuses: a decision by a dead letter, anything else by something smaller.

        Raises `BrokerError` where nothing smaller is left to send: then the topic refuses even what must fit.
        """
        if destination.topic == self._topics.decisions:
            self._metrics.dead_letters.labels(RejectReason.OUTPUT_REFUSED.value).inc()
            rejection = Rejected(
                0, RejectReason.OUTPUT_REFUSED, f"the broker refused the record for {destination.topic}"
            )
            letter = deadletter.encode(record, rejection, source=source, worker=self._worker)
            return Partition(self._topics.dead_letter, source.partition), letter
        if destination.topic == self._topics.review:
            smaller = _smaller_review(output)
        else:
            smaller = deadletter.without_value(record, source=source, worker=self._worker)
        if smaller == output:
            raise BrokerError(
                f"{destination.topic} refuses even the smallest record there is for {source.topic}-{source.partition} "
                f"offset {record.offset}; raise max.message.bytes there"
            )
        return destination, smaller

    def _dead_letters(self, source: Partition, records: Sequence[SourceRecord], rejected: Sequence[Rejected]) -> Load:
        return Load(
            [deadletter.encode(records[r.position], r, source=source, worker=self._worker) for r in rejected],
            [r.position for r in rejected],
        )

    def _count(self, moderated: Moderated, now: float) -> None:
        metrics, verdicts, policy = self._metrics, moderated.verdicts, moderated.policy
        count_each(metrics.decisions, policy.actions, verdicts.actions)
        # What was not scored was not abstained on: its fail rule is counted below.
        _, abstained = (moderated.selections[moderated.scores.scored] == Selection.ABSTAIN).nonzero()
        count_each(metrics.abstentions, policy.harms, abstained)
        unmoderated = np.flatnonzero(~verdicts.moderated)
        for condition in FailCondition if len(unmoderated) else ():
            failed = unmoderated[moderated.conditions[unmoderated] >> condition & 1 == 1]
            count_each(metrics.unmoderated, policy.actions, verdicts.actions[failed], condition.name.lower())
        whys = review_whys(moderated)
        count_each(metrics.reviews, REVIEW_WHYS, whys[whys != NO_REVIEW])
        for reason, count in Counter(rejection.reason for rejection in moderated.rejected).items():
            metrics.dead_letters.labels(reason).inc(count)
        metrics.decision_age.observe(now - moderated.events.created_at)


def _load(records: Sequence[SourceRecord], positions: Sequence[int], values: Sequence[bytes]) -> Load:
    """Pair each output with its event's key and trace headers."""
    out: list[OutRecord] = []
    for position, value in zip(positions, values, strict=True):
        record = records[position]
        headers = record.headers
        out.append((record.key, value, [h for h in headers if h[0] in TRACE_HEADERS] if headers else NO_HEADERS))
    return Load(out, positions)


def _smaller_review(output: OutRecord) -> OutRecord:
    """A review record without its event or, where that is gone already, without key and headers.

    It is made from the record itself: decided again, under a policy replaced since, it could say something else than
    the decision that was published.
    """
    key, value, headers = output
    smaller = without_event(value or b"")
    return (None, value, NO_HEADERS) if smaller == value else (key, smaller, headers)
