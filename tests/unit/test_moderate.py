"""The moderate stage: where each output goes, with what, and what takes the place of one that is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream.errors import BrokerError
from stream.events import SourceRecord
from stream.kafka import deadletter
from stream.kafka.ledger import Partition
from stream.kafka.moderate import ModerateStage, OutputTopics
from stream.telemetry import Telemetry
from tests.records import NOW, Record
from tests.spine import TOPIC, event, policy, spine

SOURCE = Partition(TOPIC, 3)
DECISIONS, REVIEW, DEAD = (Partition(name, 3) for name in ("decisions", "review", "dead"))
TRACE = [("traceparent", b"00-1-2-01"), ("tracestate", b"a=b")]
HEADERS = (*TRACE, ("x-tenant", b"acme"))


def stage(document: bytes | None = None) -> ModerateStage:
    made = spine(document)
    return ModerateStage(
        made.pipeline, made.encoder, OutputTopics("decisions", "review", "dead"), Telemetry(), worker="w-1"
    )


def record(value: bytes | None, offset: int = 0, **fields: Any) -> SourceRecord:
    return Record(value, offset, round(NOW * 1000), b"key-%d" % offset, HEADERS, **fields)


def test_every_output_keeps_its_events_partition_key_and_trace() -> None:
    """Decisions, review records and dead letters go to their event's partition number, under its key, traced."""
    values = [event(text="-9,-9"), b"{", event(text="-1,-9"), event(text="3,-9")]
    loads = stage().run(SOURCE, [record(value, offset) for offset, value in enumerate(values)])
    assert {partition: list(load.sources) for partition, load in loads.items()} == {
        DECISIONS: [0, 2, 3],
        REVIEW: [2],
        DEAD: [1],
    }
    for load in loads.values():
        assert [key for key, _, _ in load.records] == [b"key-%d" % source for source in load.sources]
        assert all(headers[:2] == TRACE for _, _, headers in load.records)
    assert all(headers == TRACE for _, _, headers in loads[DECISIONS].records)


def test_a_dead_letter_is_the_record_itself() -> None:
    """Its value and all its headers are as they came, and what was added says why, where from and by whom."""
    loads = stage().run(SOURCE, [record(b"{\xff", 7)])
    ((key, value, headers),) = loads[DEAD].records
    assert (key, value) == (b"key-7", b"{\xff")
    letter = deadletter.decode(headers)
    assert isinstance(letter, deadletter.DeadLetter)
    assert (letter.reason, letter.source_id, letter.worker) == ("decode_error", "content.events:3:7", "w-1")
    assert letter.original == list(HEADERS)


def test_a_refused_decision_becomes_a_dead_letter() -> None:
    """The event of a decision that no topic takes is kept, with the reason that there is none."""
    loads = stage().refused(record(event(), 5), source=SOURCE, destination=DECISIONS)
    ((_, value, headers),) = loads[DEAD].records
    letter = deadletter.decode(headers)
    assert isinstance(letter, deadletter.DeadLetter)
    assert (value, letter.reason, letter.offset) == (event(), "output_refused", 5)


@pytest.mark.parametrize(
    ("text", "document", "why"),
    [
        ("-1,-9", None, "abstained"),
        ("words", None, "fail_rule"),
        ("-9,-9", policy(audit={"rate": 1.0}), "audit_sample"),
    ],
)
def test_a_refused_review_record_is_sent_without_its_event(text: str, document: bytes | None, why: str) -> None:
    """A person is still asked, for the same reason as before, and told that the event was too large."""
    made = stage(document)
    before = made.run(SOURCE, [record(event(text=text), 5)])[REVIEW].records[0]
    ((key, value, headers),) = made.refused(record(event(text=text), 5), source=SOURCE, destination=REVIEW)[
        REVIEW
    ].records
    kept, sent = json.loads(before[1] or b""), json.loads(value or b"")
    assert (key, headers) == (b"key-5", TRACE)
    assert (sent["why"], sent["event"], sent["event_omitted"]) == (why, None, "too_large")
    for decision in (kept["decision"], sent["decision"]):
        del decision["decided_at"]
    assert sent["decision"] == kept["decision"]


def test_a_refused_dead_letter_is_sent_without_its_value() -> None:
    """What no topic takes is at least written down: where it was and how large."""
    loads = stage().refused(record(b"x" * 1000, 5), source=SOURCE, destination=DEAD)
    ((_, value, headers),) = loads[DEAD].records
    letter = deadletter.decode(headers)
    assert isinstance(letter, deadletter.DeadLetter)
    assert (value, letter.value_omitted, letter.offset) == (None, True, 5)
    assert "1000 bytes" in letter.error


def test_a_topic_that_refuses_everything_stops_the_worker() -> None:
    """Where even the smallest dead letter is refused there is nothing left to send; the error says what to raise."""
    with pytest.raises(BrokerError, match=r"max\.message\.bytes"):
        stage().refused(record(None), source=SOURCE, destination=DEAD)


def test_what_was_done_is_counted() -> None:
    """Decisions, abstentions of what was scored, fail rules and dead letters are counted, each by its kind."""
    made = spine()
    telemetry = Telemetry()
    counted = ModerateStage(made.pipeline, made.encoder, OutputTopics("d", "r", "x"), telemetry, worker="w")
    values = [event(), event(text="-1,-9"), event(text="3,-1"), event(text="words"), b"{", None]
    counted.run(SOURCE, [record(value, offset) for offset, value in enumerate(values)])
    found = set(telemetry.exposition().decode().splitlines())
    assert found >= {
        'fairway_decisions_total{action="allow"} 1.0',
        'fairway_decisions_total{action="block"} 1.0',
        'fairway_decisions_total{action="review"} 2.0',
        'fairway_abstentions_total{harm="hate"} 1.0',
        'fairway_abstentions_total{harm="violence"} 1.0',
        'fairway_unmoderated_total{condition="scorer_error"} 1.0',
        'fairway_dead_letters_total{reason="decode_error"} 1.0',
        'fairway_dead_letters_total{reason="tombstone"} 1.0',
    }
