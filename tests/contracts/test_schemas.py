"""The published schemas: committed as they are made, complete, and true of real records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types

from stream.commands.schema import schema
from stream.decode import Decoder
from stream.errors import ConfigError
from stream.events import Decision, Rejected, RejectReason
from stream.fairness import CountSettings, FairnessMerger, ReportSettings
from stream.kafka import deadletter
from stream.kafka.ledger import Partition
from stream.schemas import KINDS, file_name, render
from tests.decisions import counted_by, decision, streams, tell
from tests.hostile.corpus import hostile_records
from tests.hostile.samples import WRONG
from tests.records import Decoded, Record, default_limits, outcomes
from tests.spine import event, records, spine

COMMITTED = Path(__file__).parents[2] / "ops" / "schemas"
SOURCE = Partition("content.events", 3)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(render(name)))


@pytest.mark.parametrize("name", KINDS)
def test_the_committed_schema_is_the_one_of_the_types(name: str) -> None:
    """A change of a record changes its committed schema: `fairway schema --write ops/schemas` does that."""
    assert (COMMITTED / file_name(name)).read_text(encoding="utf-8") == render(name)


def test_nothing_else_is_committed_as_a_schema() -> None:
    """A schema of a kind that is gone does not stay behind."""
    assert {path.name for path in COMMITTED.iterdir()} == {file_name(name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_a_schema_is_one_and_says_what_becomes_of_unknown_fields(name: str) -> None:
    """Every schema is valid JSON Schema, and allows fields that it does not list and says what they come to."""
    made = json.loads(render(name))
    Draft202012Validator.check_schema(made)
    assert "fields" in made["description"]
    assert made.get("additionalProperties", True) is True
    assert made["$id"] == f"urn:fairway:schema:{name}:1"


@pytest.mark.parametrize("name", ["content-event", "decision", "review-record", "dead-letter"])
def test_every_field_is_described(name: str) -> None:
    """Each field of a record that people write or read has a sentence on what it means."""
    made = json.loads(render(name))
    for part in (made, *made.get("$defs", {}).values()):
        undescribed = [field for field, about in part["properties"].items() if not about.get("description")]
        assert undescribed == []


# --- Events ----------------------------------------------------------------------------------------------------------


def test_what_is_decoded_fits_the_schema_and_what_does_not_fit_is_not_decoded() -> None:
    """Of hostile records no event departs from the schema: a producer that keeps to it can be told by it."""
    fits = validator("content-event").is_valid
    values = [record.value for record in hostile_records(1500, seed=3) if len(record.value or b"") < 5000]
    events = [
        value
        for value, outcome in zip(values, outcomes(Decoder(default_limits()), values), strict=True)
        if isinstance(outcome, Decoded) and value is not None
    ]
    assert len(events) > 100
    assert [value for value in events if not fits(json.loads(value))] == []


@pytest.mark.parametrize("field", sorted(WRONG.keys() - {"created_at"}))
def test_the_schema_refuses_what_is_refused_for_its_schema(field: str) -> None:
    """Every wrong value of a field is wrong by the schema too, except that to JSON Schema 1.0 is an integer."""
    sound = {"id": "a", "created_at": "2026-01-01T00:00:00Z", "role": "post", "text": "x"}
    values = [value for value in WRONG[field] if not isinstance(value, float) or not value.is_integer()]
    found = outcomes(Decoder(default_limits()), [json.dumps(sound | {field: value}).encode() for value in values])
    assert {outcome.reason for outcome in found if isinstance(outcome, Rejected)} == {RejectReason.SCHEMA_ERROR}
    checks = validator("content-event")
    assert [value for value in values if checks.is_valid(sound | {field: value})] == []


# --- What we write ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["-9,-9", "9,9", "-1,-9", "not a number", None])
@pytest.mark.parametrize("more", [{}, {"groups": {"age": ["old"]}, "locale": "de", "generator": {"name": "m"}, "x": 1}])
def test_decisions_and_review_records_fit(text: str | None, more: dict[str, Any]) -> None:
    """Decisions of every kind fit their schema, and so do the review records about them, with the event and without."""
    image = {"media_type": "image/png", "url": "https://example.org/a.png"}
    values = records([event(text=text, image=image, **more)])
    for built in (spine(), spine(review_event=False), spine(review_event_max_bytes=10)):
        for line in built.decisions(values):
            validator("decision").validate(json.loads(line))
        for line in built.reviews(values):
            validator("review-record").validate(json.loads(line))


def test_a_decision_schema_lists_every_field() -> None:
    """A field that is written is a field that is listed."""
    listed = json.loads(render("decision"))["properties"].keys()
    assert listed == {field.encode_name for field in msgspec.structs.fields(Decision)}


@pytest.mark.parametrize("timestamp", [None, 0, 1767268800000])
def test_headers_of_dead_letters_fit(timestamp: int | None) -> None:
    """Dead letters of every reason fit, with and without their value, and have no header of ours that is not listed."""
    listed = json.loads(render("dead-letter"))["properties"].keys()
    record = Record(b"x", offset=5, timestamp=timestamp, headers=(("traceparent", b"00"),))
    letters = [deadletter.without_value(record, source=SOURCE, worker="w")] + [
        deadletter.encode(record, Rejected(0, reason, "text: is missing"), source=SOURCE, worker="w")
        for reason in RejectReason
    ]
    for _, _, headers in letters:
        found = {name: value.decode() for name, value in headers}
        validator("dead-letter").validate(found)
        assert {name for name in found if name.startswith("fairway.")} <= listed


@given(streams(seconds=300))
def test_fairness_records_fit(stream: list[bytes | None]) -> None:
    """What is kept of any stream of decisions, every report from it, and what is kept of these, fit their schemas."""
    counting = CountSettings(pane_s=60, lateness_s=60)
    mine = decision(decision_id="content.events:0:7")
    *closed, (_, state) = kept = counted_by("t:0", counting, [mine, *stream])
    validator("fairness-state").validate(json.loads(state or b""))
    for _, pane in closed:
        validator("fairness-pane").validate(json.loads(pane or b""))
    merger = FairnessMerger(counting, ReportSettings(min_group_n=2))
    tell(merger, kept)
    for _, report in merger.finish():
        validator("fairness-report").validate(json.loads(report))
    (_, progress), *_ = merger.acknowledged()
    validator("fairness-progress").validate(json.loads(progress or b""))


# --- The command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_one_schema_or_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    """With a name the schema is printed as it is committed, without one every kind is listed."""
    schema("decision")
    assert capsys.readouterr().out == render("decision")
    schema()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(KINDS)


def test_the_command_says_what_was_meant() -> None:
    """A name that is none is answered with those there are."""
    with pytest.raises(ConfigError, match="did you mean `decision`"):
        schema("decisions")


def test_the_command_writes_all_schemas(tmp_path: Path) -> None:
    """All schemas are written to a folder, which is made; where that fails, the reason is said."""
    schema(write=tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {file_name(name) for name in KINDS}
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write schemas"):
        schema(write=tmp_path / "file")
