"""What the demo plays: events that are events, and malformed records that are each rejected for the reason stated."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from ops.demo.content import CONTENT, items
from ops.demo.malformed import malformed
from stream.decode import DecodeLimits, Decoder
from stream.events import EventBatch, LineRecord, Rejected, RejectReason
from stream.settings import Settings
from tests.records import rows_of

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    batch: EventBatch
    rejected: tuple[Rejected, ...]


def decode(values: list[bytes | None]) -> Outcome:
    settings = Settings.model_validate({})
    limits = DecodeLimits(**{name: getattr(settings, name) for name in DecodeLimits.__slots__})
    records = [LineRecord(offset, value) for offset, value in enumerate(values)]
    return Outcome(*Decoder(limits).decode(records, now=NOW.timestamp()))


def test_every_line_is_an_event_as_it_stands() -> None:
    """Each line of the content file is an event, so that the file can be fed to the service without the demo."""
    lines = CONTENT.read_bytes().splitlines()
    outcome = decode([*lines])
    assert outcome.rejected == ()
    assert len(outcome.batch) == len(lines) > 250


def test_content_says_what_was_meant_and_nothing_unknown() -> None:
    """Ids are unique and begin with what the author meant, and no field is one that the service does not know."""
    events = rows_of(decode([*CONTENT.read_bytes().splitlines()]).batch)
    assert len({event.id for event in events}) == len(events)
    assert Counter(event.id.partition("-")[0] for event in events).keys() == {"benign", "borderline", "harmful"}
    assert [event.id for event in events if event.unknown_fields] == []


def test_malformed_records_are_rejected_as_stated() -> None:
    """Each malformed record is rejected for the reason beside it, and every reason a record can give occurs."""
    records = malformed(NOW)
    rejected = decode([record.value for record in records]).rejected
    assert [(records[r.position].name, r.reason) for r in rejected] == [(r.name, r.reason) for r in records]
    not_of_a_record = {RejectReason.MAPPING_ERROR, RejectReason.OUTPUT_REFUSED}
    assert {record.reason for record in records} == set(RejectReason) - not_of_a_record


def test_items_are_made_when_they_are_sent() -> None:
    """What is played carries the time it is sent at, and comes in the same order each time."""
    played = items()
    assert [item.key for item in played] == [item.key for item in items()]
    created = {
        json.loads(item.value(NOW) or b"")["created_at"] for item in played if not item.key.startswith(b"malformed")
    }
    assert created == {NOW.isoformat()}
