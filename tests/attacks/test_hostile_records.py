"""Every hostile record gets the answer it must."""

from __future__ import annotations

import pytest

from stream.decode import Decoder
from stream.events import Rejected
from tests.hostile.corpus import hostile_records
from tests.records import default_limits, outcomes


@pytest.mark.parametrize("seed", [0, 1])
def test_every_hostile_record_gets_its_answer(seed: int) -> None:
    """Of ten thousand hostile records each is an event, or rejected for the reason it was made for."""
    records = hostile_records(10_000, seed=seed)
    found = outcomes(Decoder(default_limits()), [record.value for record in records])
    wrong = [
        (record.name, record.expected, outcome)
        for record, outcome in zip(records, found, strict=True)
        if (outcome.reason if isinstance(outcome, Rejected) else None) != record.expected
    ]
    assert wrong == []


def test_the_corpus_has_every_reason_that_a_value_can_give() -> None:
    """Each reason to reject a value is in the corpus, and so are events; the other reasons come from elsewhere."""
    reasons = {record.expected for record in hostile_records(10_000, seed=0)}
    assert {str(reason) for reason in reasons} == {
        *("None", "tombstone", "too_large", "decode_error", "duplicate_key", "schema_error", "schema_version"),
        *("empty_content", "timestamp", "image"),
    }


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    """A failure is found again with its seed."""
    assert hostile_records(1_000, seed=7) == hostile_records(1_000, seed=7)
    assert hostile_records(1_000, seed=7) != hostile_records(1_000, seed=8)
