"""Encoding: a decision says why, where and when, and a review record carries the event as it came."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.events import ReviewRecord
from tests.records import NOW, Record
from tests.spine import event, policy, records, spine

PICTURE = {"media_type": "image/png", "url": "https://images.example/1"}
MAPPINGS = Path(__file__).parents[2] / "ops" / "mappings"
REVIEW_ALL = policy(audit={"rate": 1.0})


def review_of(*values: bytes, document: bytes = REVIEW_ALL, **settings: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in spine(document, **settings).reviews(records(values))]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("-9,-9", []),
        ("3,-9", ["hate:harmful"]),
        ("-1,3", ["hate:abstain", "violence:harmful"]),
        ("words", ["fail:scorer_error"]),
    ],
)
def test_reasons_are_what_spoke_against_allowing(text: str, reasons: list[str]) -> None:
    """Each harm that is not harmless is a reason, in the order of the harms, and so is each failure."""
    (decision,) = spine().decide(event(text=text))
    assert decision.reasons == reasons


def test_all_that_failed_is_said() -> None:
    """Several failures of one event are each a reason, after what the model found."""
    made = spine(policy(max_age_s=60.0))
    (decision,) = made.decide(event(text="3,-9", created_at="2020-01-01T00:00:00Z", image=PICTURE))
    assert decision.reasons == ["hate:harmful", "fail:expired"]
    (unread,) = made.decide(event(text=None, created_at="2020-01-01T00:00:00Z", image=PICTURE))
    assert unread.reasons == ["fail:unsupported", "fail:expired"]


def test_a_decision_names_its_event() -> None:
    """The id is the place of the event, and the digest is of the bytes as they came."""
    value = b" " + event(id="é:1") + b"\n"
    slice_ = records([b"no event", value], start=41)
    (line,) = spine().decisions(slice_, partition=3)
    decision = json.loads(line)
    assert decision["decision_id"] == "content.events:3:42"
    assert decision["content_id"] == "é:1"
    assert decision["input_digest"] == "sha256:" + sha256(value).hexdigest()


def test_a_decision_says_what_made_it() -> None:
    """Bundle, calibration, policy and provider are in every decision, and the mapping where there is one."""
    made = spine()
    (decision,) = made.decide(event())
    assert (decision.bundle, decision.calibration, decision.provider) == ("sha256:bundle", "sha256:calibration", "stub")
    assert (decision.policy, decision.mapping) == (made.pipeline.policy.digest, None)


def test_a_mapped_event_names_its_mapping() -> None:
    """A decision about an event of a foreign shape has the digest of the mapping file."""
    mapping = MAPPINGS / "labelled-text.yaml"
    record = Record(b'{"id": "a", "text": "-9,-9"}', timestamp=round(NOW * 1000))
    (line,) = spine(mapping=mapping).decisions([record])
    assert json.loads(line)["mapping"] == "sha256:" + sha256(mapping.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("now", "written"),
    [
        (NOW, "2026-09-21T14:13:20.000Z"),
        (NOW + 0.0126, "2026-09-21T14:13:20.012Z"),
        (NOW + 0.9999, "2026-09-21T14:13:20.999Z"),
    ],
)
def test_the_time_of_a_decision_is_in_milliseconds_of_utc(now: float, written: str) -> None:
    """`decided_at` is RFC 3339 in UTC with three digits, cut and not rounded up into the future."""
    (line,) = spine().decisions(records([event()]), now=now)
    assert json.loads(line)["decided_at"] == written


@pytest.mark.parametrize("created", ["2026-09-21T14:00:00+02:00", "2026-09-21T12:00:00Z", "2026-09-21T12:00:00.000Z"])
def test_the_time_of_an_event_keeps_its_instant(created: str) -> None:
    """`created_at` is the instant the event gave, however it was written."""
    (decision,) = spine().decide(event(created_at=created))
    assert decision.created_at.timestamp() == NOW - 8000


def test_what_the_event_said_of_itself_is_passed_on() -> None:
    """Groups, locale, tenant, generator and the names of unknown fields travel; their values and the text do not."""
    told = {"groups": {"gender": ["women"], "age": []}, "locale": "de-AT", "tenant": "acme", "author": "u-1"}
    (line,) = spine().decisions(
        records([event(**told, generator={"name": "m", "version": "7"}, prompt="ask", later={"secret": "kept"})])
    )
    decision = json.loads(line)
    assert (decision["groups"], decision["locale"], decision["tenant"]) == (told["groups"], "de-AT", "acme")
    assert (decision["generator"], decision["unknown_fields"]) == ("m@7", ["later"])
    assert not any(word in line for word in (b"kept", b"u-1", b"ask", b"-9,-9"))


def test_what_was_not_scored_has_no_harms() -> None:
    """An event without scores has no harms rather than made-up ones, and was read in no window."""
    (decision,) = spine().decide(event(text="words"))
    assert (decision.harms, decision.windows) == ({}, 0)


def test_a_batch_without_events_has_no_decisions() -> None:
    """Records that are all rejected give no decision."""
    assert spine().decide(b"no JSON", None) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [("-1,-9", "abstained"), ("words", "fail_rule"), ("-9,-9", "audit_sample"), ("3,-9", "audit_sample")],
)
def test_a_review_record_says_why_a_person_is_asked(text: str, why: str) -> None:
    """Abstention, a fail rule and the audit sample are told apart."""
    assert [record["why"] for record in review_of(event(text=text))] == [why]


def test_a_policy_that_reviews_what_is_harmful_says_so() -> None:
    """Harmful content that the policy wants a person to see was not abstained on."""
    rule = {"action": "review", "act_at": 0.5, "allow_below": 0.1}
    document = policy(harms={"hate": rule, "violence": rule})
    found = review_of(event(text="3,-9"), event(text="3,-1"), event(text="-9,-9"), document=document)
    assert [record["why"] for record in found] == ["policy", "abstained"]


def test_only_what_a_person_should_see_is_a_review_record() -> None:
    """Without an audit there is one record for each event under review, in order, and none for the others."""
    values = [event(id=str(n), text=text) for n, text in enumerate(["-1,-9", "-9,-9", "words", "3,-9"])]
    found = review_of(*values, document=policy())
    assert [record["decision"]["content_id"] for record in found] == ["0", "2"]


def test_a_review_record_carries_the_event_as_received() -> None:
    """The event in a review record is the bytes that came, spaces, order and unknown fields included."""
    value = b' {"later": {"b":1, "a":[1.50]},\r\n' + event(text="-1,-9").lstrip(b"{")
    made = spine()
    (line,) = made.reviews(records([value]))
    assert b'"event":' + value in line
    record = msgspec.json.decode(line, type=ReviewRecord)
    assert record.event_omitted is None
    (decision,) = made.decisions(records([value]))
    assert b'"decision":' + decision in line


@pytest.mark.parametrize(("room", "omitted"), [(0, None), (-1, "too_large")])
def test_a_large_event_is_left_out(room: int, omitted: str | None) -> None:
    """An event up to `review_event_max_bytes` is carried; one byte more, and the record says that it was too large."""
    value = event(text="-1,-9")
    (record,) = review_of(value, document=policy(), review_event_max_bytes=len(value) + room)
    assert record.get("event_omitted") == omitted
    assert (record["event"] is None) == bool(omitted)


def test_events_can_be_kept_out_of_review_records() -> None:
    """With `review_event` off no event is carried, however small, and the record says so."""
    (record,) = review_of(event(text="-1,-9"), document=policy(), review_event=False)
    assert (record["event"], record["event_omitted"]) == (None, "switched_off")


def test_a_decision_shows_the_number_that_was_compared() -> None:
    """Just below a threshold is below it also as written: what is shown explains what was selected."""
    near_half = [f"{logit},-9" for logit in (-4e-7, -1e-6, -2.1e-6, -4e-6, 0.0, 4e-7, 4e-6)]
    thresholds = {"action": "block", "act_at": 0.5, "allow_below": 0.5}
    document = policy(harms={"hate": thresholds, "violence": thresholds})
    for decision in spine(document).decide(*(event(text=text) for text in near_half)):
        assert isinstance(decision.harms, dict)
        found = decision.harms["hate"]
        assert (found.selection == "harmful") == (found.probability >= found.act_at)
