"""Every hostile record gets the answer it must."""

from __future__ import annotations

import gc
import time
from functools import cache

import pytest

from stream.decode import Decoder
from stream.events import Rejected
from tests.hostile.corpus import HostileRecord, hostile_records
from tests.records import default_limits, outcomes


@cache
def corpus(seed: int) -> list[HostileRecord]:
    """Ten thousand hostile records, made once."""
    return hostile_records(10_000, seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_hostile_record_gets_its_answer(seed: int) -> None:
    """Of ten thousand hostile records each is an event, or rejected for the reason it was made for."""
    records = corpus(seed)
    found = outcomes(Decoder(default_limits()), [record.value for record in records])
    wrong = [
        (record.name, record.expected, outcome)
        for record, outcome in zip(records, found, strict=True)
        if (outcome.reason if isinstance(outcome, Rejected) else None) != record.expected
    ]
    assert wrong == []


def test_the_corpus_has_every_reason_that_a_value_can_give() -> None:
    """Each reason to reject a value is in the corpus, and so are events; the other reasons come from elsewhere."""
    reasons = {record.expected for record in corpus(0)}
    assert {str(reason) for reason in reasons} == {
        *("None", "tombstone", "too_large", "decode_error", "duplicate_key", "schema_error", "schema_version"),
        *("empty_content", "timestamp", "image"),
    }


def test_the_corpus_is_the_same_for_the_same_seed() -> None:
    """A failure is found again with its seed."""
    assert hostile_records(1_000, seed=7) == hostile_records(1_000, seed=7)
    assert hostile_records(1_000, seed=7) != hostile_records(1_000, seed=8)


def cpu_seconds(value: bytes) -> float:
    """How long the decoder works on one record, the garbage collector left out."""
    decoder = Decoder(default_limits())
    gc.disable()
    try:
        start = time.process_time()
        outcomes(decoder, [value])
        return time.process_time() - start
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("piece", "closing"),
    [
        (b"1e300,", b""),
        (b"1.5e-300,", b""),
        (b"9" * 4000 + b",", b""),
        (b"{},", b""),
        (b'{"a":1},', b""),
        (b'{"a":1},', b'{"b":1,"b":2},'),
        (b"[" * 29 + b"]" * 29 + b",", b""),
        (b'"\\u003a\\u0022",', b""),
        (b'":",', b""),
    ],
)
def test_no_megabyte_takes_out_of_proportion(piece: bytes, closing: bytes) -> None:
    """A record of the largest size costs less than 50 times what one of plain numbers costs, whatever it is made of."""
    head = b'{"id":"a","created_at":"2026-01-01T00:00:00Z","role":"post","text":"x","x":['
    plain, hostile = (
        head + part * ((990_000 - len(head)) // len(part)) + end + b"1]}"
        for part, end in ((b"12345,", b""), (piece, closing))
    )
    assert cpu_seconds(hostile) < 50 * cpu_seconds(plain)
