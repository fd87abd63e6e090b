"""The moderate stage: content events in; decisions, review records and dead letters out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream.encode import DecisionEncoder, without_event
from stream.errors import BrokerError
from stream.events import FailCondition, Rejected, RejectReason, Selection, SourceRecord
from stream.kafka import deadletter
from stream.kafka.ledger import Partition
from stream.kafka.publisher import Load, OutRecord
from stream.pipeline import Moderated, Pipeline
from stream.telemetry import Telemetry

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
    """Runs the pipeline in force on each unit. `pipeline` may be replaced at any time; a unit sees one of them."""

    def __init__(
        self, pipeline: Pipeline, encoder: DecisionEncoder, topics: OutputTopics, telemetry: Telemetry, *, worker: str
    ) -> None:
        self.pipeline = pipeline
        self._encoder, self._topics, self._telemetry, self._worker = encoder, topics, telemetry, worker

    def run(self, partition: Partition, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        """Moderate records of one partition; outputs keep its number, its keys and its order."""
        now = time.time()
        topic, number = partition
        moderated = self.pipeline.run(records, topic=topic, partition=number, now=now)
        decisions = self._encoder.decisions(moderated, topic=topic, partition=number, now=now)
        rows, reviews = self._encoder.reviews(moderated, decisions, records)
        positions: list[int] = moderated.events.positions.tolist()
        reviewed = [positions[row] for row in rows]
        self._count(moderated)
        return {
            Partition(self._topics.decisions, number): _load(records, positions, decisions),
            Partition(self._topics.review, number): _load(records, reviewed, reviews),
            Partition(self._topics.dead_letter, number): self._dead_letters(partition, records, moderated.rejected),
        }

    def refused(
        self, record: SourceRecord, output: OutRecord, *, source: Partition, destination: Partition
    ) -> tuple[Partition, OutRecord]:
        """Replace an output the broker refuses: a decision by a dead letter, anything else by something smaller.

        Raises `BrokerError` where nothing smaller is left to send: then the topic refuses even what must fit.
        """
        if destination.topic == self._topics.decisions:
            self._telemetry.dead_letters.labels(RejectReason.OUTPUT_REFUSED.value).inc()
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

    def _count(self, moderated: Moderated) -> None:
        telemetry, verdicts = self._telemetry, moderated.verdicts
        for action, count in zip(
            moderated.policy.actions,
            np.bincount(verdicts.actions, minlength=len(moderated.policy.actions)),
            strict=True,
        ):
            if count:
                telemetry.decisions.labels(action).inc(int(count))
        # What was not scored was not abstained on: its fail rule is counted below.
        abstained = (moderated.selections[moderated.scores.scored] == Selection.ABSTAIN).sum(axis=0)
        for harm, count in zip(moderated.policy.harms, abstained, strict=True):
            if count:
                telemetry.abstentions.labels(harm).inc(int(count))
        unmoderated = moderated.conditions[~verdicts.moderated]
        for condition in FailCondition if len(unmoderated) else ():
            telemetry.unmoderated.labels(condition.name.lower()).inc(int((unmoderated >> condition & 1).sum()))
        for rejection in moderated.rejected:
            telemetry.dead_letters.labels(rejection.reason.value).inc()


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
