from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.commands.tail import line
from stream.kafka.redaction import describer
from stream.settings import Settings

SETTINGS = Settings()
TOPICS = [
    SETTINGS.events_topic,
    SETTINGS.decisions_topic,
    SETTINGS.review_topic,
    SETTINGS.dead_letter_topic,
    SETTINGS.reports_topic,
    "somebody.elses",
]
WRITTEN = "nobody may read this"


@dataclass(frozen=True)
class Record:
    value: bytes | None
    key: bytes | None = b"user-17"
    partition: int = 2
    offset: int = 9
    timestamp: int | None = 1_700_000_000_000
    headers: Sequence[tuple[str, bytes]] = ()


@pytest.mark.parametrize("topic", [t for t in TOPICS if t != SETTINGS.reports_topic])
@pytest.mark.parametrize("disguise", ["decision", "decision_id", "value", "why", "event"])
def test_an_event_cannot_show_itself_by_its_shape(topic: str, disguise: str) -> None:
    """What may be shown follows from the topic: an event with a decision's fields stays hidden."""
    fields = {"text": WRITTEN, "event": {"text": WRITTEN}, "groups": {"g": [WRITTEN]}, disguise: {"groups": WRITTEN}}
    if topic == SETTINGS.decisions_topic:
        fields = {"decision_id": "t:0:1", "groups": {"g": [WRITTEN]}}

    document = describer(SETTINGS, topic, content=False)(Record(json.dumps(fields).encode()))

    assert WRITTEN not in json.dumps(document)
    assert "user-17" not in json.dumps(document)


@given(st.sampled_from(TOPICS), st.none() | st.binary(max_size=40), st.booleans())
def test_any_bytes_can_be_shown(topic: str, value: bytes | None, content: bool) -> None:
    """Whatever is in a topic becomes a JSON object and one printable line, and never an exception."""
    document = describer(SETTINGS, topic, content=content)(Record(value))

    assert (document["partition"], document["offset"], document["bytes"]) == (2, 9, len(value or b""))
    assert json.loads(json.dumps(document)) == document
    assert line(document).isprintable()


@given(st.none() | st.integers(-(2**63), 2**63 - 1))
def test_any_time_can_be_shown(timestamp: int | None) -> None:
    """A record is shown whatever its time is, though no calendar may have it."""
    document = describer(SETTINGS, SETTINGS.events_topic, content=False)(Record(b"v", timestamp=timestamp))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", document["at"])


def test_deep_json_is_no_stack_overflow() -> None:
    """A record nested deeper than the parser goes is shown as text."""
    value = b"[" * 100_000

    document = describer(SETTINGS, SETTINGS.events_topic, content=True)(Record(value))

    assert document["value"] == value.decode()


def test_bytes_that_are_no_text_are_base64() -> None:
    """Content that is not UTF-8 is shown in base64."""
    document = describer(SETTINGS, SETTINGS.events_topic, content=True)(Record(b"\xff\x00"))

    assert document["value_base64"] == "/wA="


def test_terminal_control_characters_are_escaped() -> None:
    """An id with escape sequences is printed as its escapes: a topic must not move somebody's cursor."""
    decision = {"decision_id": "t:0:1", "content_id": "\x1b[2Jgone", "action": "allow"}

    text = line({"at": "2026-01-01T00:00:00.000", "partition": 0, "offset": 0, "bytes": 1, "decision": decision})

    assert r"\x1b[2Jgone" in text
    assert "\x1b" not in text
