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
from stream.telemetry import ModerateMetrics, Telemetry
from tests.records import NOW, Record
from tests.spine import HARMS, TOPIC, event, policy, spine

SOURCE = Partition(TOPIC, 3)
DECISIONS, REVIEW, DEAD = (Partition(name, 3) for name in ("decisions", "review", "dead"))
TRACE = [("traceparent", b"00-1-2-01"), ("tracestate", b"a=b")]
HEADERS = (*TRACE, ("x-tenant", b"acme"))


def stage(document: bytes | None = None) -> ModerateStage:
    made, metrics = spine(document), ModerateMetrics(Telemetry(), harms=HARMS)
    return ModerateStage(
        made.pipeline, made.encoder, OutputTopics("decisions", "review", "dead"), metrics, worker="w-1"
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
    made, given = stage(), record(event(), 5)
    decision = made.run(SOURCE, [given])[DECISIONS].records[0]
    destination, (_, value, headers) = made.refused(given, decision, source=SOURCE, destination=DECISIONS)
    letter = deadletter.decode(headers)
    assert isinstance(letter, deadletter.DeadLetter)
    assert (destination, value, letter.reason, letter.offset) == (DEAD, event(), "output_refused", 5)


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
    made, given = stage(document), record(event(text=text), 5)
    before = made.run(SOURCE, [given])[REVIEW].records[0]
    destination, (key, value, headers) = made.refused(given, before, source=SOURCE, destination=REVIEW)
    assert (destination, key, headers) == (REVIEW, b"key-5", TRACE)
    assert json.loads(value or b"") == json.loads(before[1] or b"") | {"event": None, "event_omitted": "too_large"}
    assert json.loads(value or b"")["why"] == why


def test_a_refused_review_record_keeps_the_decision_that_was_published() -> None:
    """Whatever policy came into force since, a person sees the very bytes of the decision that everybody else sees."""
    made, given = stage(), record(event(text="-1,-9", groups={"event": ["null"]}), 5)
    loads = made.run(SOURCE, [given])
    made.replace(spine(policy(version="2")).pipeline)
    after = made.run(SOURCE, [given])
    refused = loads[REVIEW].records[0]
    _, (_, value, _) = made.refused(given, refused, source=SOURCE, destination=REVIEW)
    decision = loads[DECISIONS].records[0][1]
    assert decision != after[DECISIONS].records[0][1]
    assert decision is not None
    assert value is not None
    assert b'"decision":' + decision + b',"event":null' in value


def test_a_review_record_shrinks_until_nothing_is_left_to_leave_out() -> None:
    """Behind its event go its key and headers, which anybody may make large; after that the topic is not set up."""
    made, given = stage(), record(event(text="-1,-9"), 5)
    without_event = made.refused(given, made.run(SOURCE, [given])[REVIEW].records[0], source=SOURCE, destination=REVIEW)
    bare = made.refused(given, without_event[1], source=SOURCE, destination=REVIEW)
    assert bare == (REVIEW, (None, without_event[1][1], []))
    with pytest.raises(BrokerError, match=r"review .*offset 5.*max\.message\.bytes"):
        made.refused(given, bare[1], source=SOURCE, destination=REVIEW)


def test_a_refused_dead_letter_is_sent_without_its_value() -> None:
    """What no topic takes is at least written down: where it was and how large."""
    made, given = stage(), record(b"x" * 1000, 5)
    refused = made.run(SOURCE, [given])[DEAD].records[0]
    destination, (_, value, headers) = made.refused(given, refused, source=SOURCE, destination=DEAD)
    letter = deadletter.decode(headers)
    assert isinstance(letter, deadletter.DeadLetter)
    assert (destination, value, letter.value_omitted, letter.offset) == (DEAD, None, True, 5)
    assert "1000 bytes" in letter.error


def test_a_tombstone_whose_key_is_refused_is_written_down_without_it() -> None:
    """A record that has no value to leave out may still be too large, and stops nobody."""
    made, given = stage(), Record(None, 5, key=b"k" * 100_000)
    refused = made.run(SOURCE, [given])[DEAD].records[0]
    destination, (key, _, headers) = made.refused(given, refused, source=SOURCE, destination=DEAD)
    letter = deadletter.decode(headers)
    assert isinstance(letter, deadletter.DeadLetter)
    assert (destination, key, letter.offset) == (DEAD, None, 5)


def test_a_topic_that_refuses_everything_stops_the_worker() -> None:
    """Where even the smallest dead letter is refused there is nothing left to send; the error says what to raise."""
    made, given = stage(), record(None)
    refused = made.run(SOURCE, [given])[DEAD].records[0]
    smallest = made.refused(given, refused, source=SOURCE, destination=DEAD)[1]
    with pytest.raises(BrokerError, match=r"max\.message\.bytes"):
        made.refused(given, smallest, source=SOURCE, destination=DEAD)
