"""The mapping files that ship, each on a record of the shape it is for; and decisions of other systems."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.decode import Decoder
from stream.errors import MappingError
from stream.events import ContentEvent
from stream.fairness.observation import DecisionReader
from stream.mapping import load_mapping
from stream.mapping.decisions import decision_converter
from tests.records import NOW, Record, default_limits

EXAMPLES = Path(__file__).parents[2] / "ops" / "mappings"
EVENTS = "{schema_version: 1, name: m, kind: event, fields: {id: a, created_at: b, role: c, text: d}}"


def decoded(example: str, record: dict[str, Any], timestamp: int | None = None) -> dict[str, Any]:
    """The event that an example mapping makes of a record, without the fields it leaves at their defaults."""
    found = Record(json.dumps(record).encode(), timestamp=timestamp)
    mapping = load_mapping(EXAMPLES / example)
    batch, rejected = Decoder(default_limits(), mapping).decode([found], now=NOW)
    assert (len(batch), rejected) == (1, ())
    return ContentEvent.model_validate(mapping.apply(record, found)).model_dump(exclude_unset=True)


def test_labelled_texts_map() -> None:
    """A labelled text is an event as old as its Kafka record, with its groups by axis; its labels stay behind."""
    labels = {"sexual": None, "hate": 1, "harassment": 0}
    record = {"id": "a-1", "text": "hello", "role": "post", "source": "s", "labels": labels, "unsafe": 1, "lang": "en"}
    record |= {"groups": ["gender:women", "age:old", "gender:trans"], "target_groups": [], "split": "test"}
    record |= {"prompt": "say hello", "model": "m-7b", "groups_src": "annotated"}
    assert decoded("labelled-text.yaml", record, timestamp=1767268800000) == {
        "id": "a-1",
        "created_at": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "role": "post",
        "text": "hello",
        "prompt": "say hello",
        "locale": "en",
        "generator": {"name": "m-7b"},
        "groups": {"gender": ["women", "trans"], "age": ["old"]},
    }


def test_labelled_texts_need_little() -> None:
    """An id and a text are enough."""
    found = decoded("labelled-text.yaml", {"id": 17, "text": "hello", "groups": None}, timestamp=1767268800000)
    assert (found["id"], found["role"]) == ("17", "post")
    assert not found.keys() & {"groups", "generator", "prompt"}


def test_a_log_of_chat_completions_maps() -> None:
    """An answer is an event whose prompt is the last message before it."""
    record = {
        "request": {
            "user": "u-1",
            "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "say hello"}],
            "metadata": {"surface": "support", "language": "de", "age_band": "18-24"},
        },
        "response": {
            "id": "chatcmpl-1",
            "created": 1767268800,
            "model": "m-7b",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
            "usage": {"total_tokens": 12},
        },
    }
    assert decoded("chat-completions.yaml", record) == {
        "id": "chatcmpl-1",
        "created_at": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "role": "output",
        "text": "hello",
        "prompt": "say hello",
        "author": "u-1",
        "surface": "support",
        "locale": "de",
        "generator": {"name": "m-7b"},
        "groups": {"age": ["18-24"]},
    }


FOREIGN_DECISION = {
    "eventId": "e-1",
    "contentId": "c-1",
    "at": 1767268800123,
    "verdict": "REMOVE",
    "ruleSet": "2026-03",
    "scores": {"TOXICITY": {"flagged": True}},
    "user": {"gender": "f", "languages": ["de", "tr"]},
}


def test_foreign_decisions_map() -> None:
    """A decision of another system is one of ours with its action, selections and groups in our words."""
    convert = decision_converter(EXAMPLES / "foreign-decisions.yaml", max_depth=32)
    value = convert(json.dumps(FOREIGN_DECISION).encode())
    assert value is not None
    assert msgspec.json.decode(value) == {
        "decision_id": "e-1",
        "content_id": "c-1",
        "created_at": "2026-01-01T12:00:00.123000Z",
        "action": "block",
        "policy": "2026-03",
        "harms": {"harassment": {"selection": "harmful"}, "self_harm": {"selection": "abstain"}},
        "groups": {"gender": ["women"], "language": ["de", "tr"]},
    }


def test_foreign_decisions_can_be_counted() -> None:
    """What the example makes is read by the fairness stage."""
    reader = DecisionReader(decision_converter(EXAMPLES / "foreign-decisions.yaml", max_depth=32))
    observed = reader.read(json.dumps(FOREIGN_DECISION | {"verdict": "ESCALATE"}).encode())
    assert observed.action == "review"
    assert observed.created_at == datetime(2026, 1, 1, 12, 0, 0, 123000, UTC)
    assert observed.harms is not None
    assert dict(observed.harms.selections()) == {"harassment": "harmful", "self_harm": "abstain"}
    assert observed.policy == "2026-03"


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b'{"at":1,"at":2}',
        b"[" * 40 + b"]" * 40,
        json.dumps(FOREIGN_DECISION | {"at": "now"}).encode(),
        json.dumps(FOREIGN_DECISION | {"scores": {"TOXICITY": {"flagged": "maybe"}}}).encode(),
        b"{}",
    ],
)
def test_foreign_decisions_that_do_not_map_are_none(value: bytes) -> None:
    """What has no single reading or lacks a field is no decision, and nothing raises."""
    assert decision_converter(EXAMPLES / "foreign-decisions.yaml", max_depth=32)(value) is None


def test_actions_and_selections_are_ours() -> None:
    """Without a table, a foreign decision must already use our words."""
    fields = "created_at: {path: at, time: epoch_ms}, action: verdict, harms: {hate: hate}"
    found = load_mapping(f"{{schema_version: 1, name: d, kind: decision, fields: {{{fields}}}}}".encode())
    assert found.convert(b'{"at":0,"verdict":"block","hate":"harmful"}', max_depth=9) is not None
    assert found.convert(b'{"at":0,"verdict":"block"}', max_depth=9) is not None
    assert found.convert(b'{"at":0,"verdict":"REMOVE","hate":"harmful"}', max_depth=9) is None
    assert found.convert(b'{"at":0,"verdict":"block","hate":"very"}', max_depth=9) is None


def test_a_mapping_of_events_counts_no_decisions(tmp_path: Path) -> None:
    """The fairness stage does not start with a mapping of the wrong kind."""
    file = tmp_path / "m.yaml"
    file.write_text(EVENTS)
    with pytest.raises(MappingError, match="maps events"):
        decision_converter(file, max_depth=32)
