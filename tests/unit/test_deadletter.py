from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events import Rejected, RejectReason
from stream.kafka import deadletter
from stream.kafka.deadletter import DeadLetter, Foreign, Headers
from stream.kafka.ledger import Partition

SOURCE = Partition("content.events", 3)
REJECTED = Rejected(0, RejectReason.DECODE_ERROR, "not JSON at byte 7")


@dataclass(frozen=True)
class Record:
    offset: int = 42
    timestamp: int | None = 1_700_000_000_000
    key: bytes | None = b"k"
    value: bytes | None = b"\xff not json"
    headers: Headers = field(default_factory=list)


def decoded(headers: Headers) -> DeadLetter:
    letter = deadletter.decode(headers)
    assert isinstance(letter, DeadLetter)
    return letter


header_names = st.text(max_size=20)
header_values = st.binary(max_size=20)


@given(
    st.lists(st.tuples(header_names, header_values), max_size=5),
    st.none() | st.binary(max_size=20),
    st.none() | st.binary(max_size=20),
    st.sampled_from(RejectReason),
    st.text(max_size=50),
)
def test_a_dead_letter_says_what_happened_and_keeps_the_input(
    headers: Headers, key: bytes | None, value: bytes | None, reason: RejectReason, error: str
) -> None:
    """Key, value and headers are the input's own, and the rest reads back as it was written."""
    record = Record(key=key, value=value, headers=headers)

    out_key, out_value, out_headers = deadletter.encode(record, Rejected(0, reason, error), source=SOURCE, worker="w-1")

    letter = decoded(out_headers)
    assert (out_key, out_value) == (key, value)
    assert letter.original == [(name, v) for name, v in headers if not name.startswith("fairway.dlq.")]
    assert (letter.reason, letter.source, letter.offset) == (reason.value, SOURCE, 42)
    assert letter.error == error.encode("utf-8", "replace").decode()
    assert (letter.timestamp_ms, letter.worker, letter.value_omitted) == (record.timestamp, "w-1", False)


def test_attempts_count_up_over_redrives() -> None:
    """Each round of dead letter and redrive raises the attempts by one and leaves one set of redrive headers."""
    headers: Headers = [("trace", b"t")]
    for attempt in (1, 2, 3):
        _, _, written = deadletter.encode(Record(headers=headers), REJECTED, source=SOURCE, worker="w")
        letter = decoded(written)
        assert letter.attempts == attempt
        headers = deadletter.redriven(letter)
        assert headers == [
            ("trace", b"t"),
            ("fairway.redrive.attempts", b"%d" % attempt),
            ("fairway.redrive.of", b"content.events:3:42"),
        ]


def test_an_input_cannot_say_where_it_came_from() -> None:
    """Headers of the dead-letter prefix on an input are dropped, so they never choose where a redrive writes."""
    forged = [
        ("fairway.dlq.topic", b"payments"),
        ("fairway.dlq.partition", b"0"),
        ("fairway.dlq.value_omitted", b"true"),
    ]

    _, _, headers = deadletter.encode(Record(headers=forged), REJECTED, source=SOURCE, worker="w")

    assert [name for name, _ in headers].count("fairway.dlq.topic") == 1
    assert decoded(headers).source == SOURCE
    assert not decoded(headers).value_omitted


@pytest.mark.parametrize(
    ("header", "attempts"), [(b"", 1), (b"-5", 1), (b"many", 1), (b"\xff", 1), (b"9" * 400, 1), (b"9" * 19, 1_000_001)]
)
def test_a_forged_count_of_attempts_is_harmless(header: bytes, attempts: int) -> None:
    """A redrive header that is no number counts as none, and a huge number is cut off."""
    record = Record(headers=[("fairway.redrive.attempts", header)])

    _, _, headers = deadletter.encode(record, REJECTED, source=SOURCE, worker="w")

    assert decoded(headers).attempts == attempts


def test_a_long_error_is_cut() -> None:
    """The error in a header is at most 1000 characters long."""
    rejected = Rejected(0, RejectReason.SCHEMA_ERROR, "x" * 5000)

    _, _, headers = deadletter.encode(Record(), rejected, source=SOURCE, worker="w")

    assert len(decoded(headers).error) == 1000


def test_a_refused_value_is_left_out_and_its_size_said() -> None:
    """The dead letter of an input whose own was refused has no value, says so, and keeps key and headers."""
    record = Record(value=b"x" * 2_000_000, headers=[("trace", b"t")])

    key, value, headers = deadletter.without_value(record, source=SOURCE, worker="w")

    letter = decoded(headers)
    assert (key, value, letter.value_omitted, letter.reason) == (b"k", None, True, "output_refused")
    assert "2000000" in letter.error
    assert letter.original == [("trace", b"t")]


@pytest.mark.parametrize("record", [Record(key=b"k" * 900_000), Record(headers=[("h", b"v" * 900_000)])])
def test_a_dead_letter_without_value_is_always_small(record: Record) -> None:
    """Key and headers that may be what was too large are left out too."""
    key, value, headers = deadletter.without_value(record, source=SOURCE, worker="w")

    assert (key, value) == (None, None)
    assert sum(len(name) + len(v) for name, v in headers) < 2000


@given(st.lists(st.tuples(header_names.map("fairway.dlq.".__add__) | header_names, header_values), max_size=8))
def test_any_headers_can_be_read(headers: Headers) -> None:
    """Headers somebody else wrote are a dead letter or not one, and never an exception."""
    assert isinstance(deadletter.decode(headers), DeadLetter | Foreign)


@pytest.mark.parametrize("missing", ["reason", "topic", "partition", "offset"])
def test_a_record_without_coordinates_is_foreign(missing: str) -> None:
    """A record that lacks its reason or coordinates is not a dead letter, and it is said which is missing."""
    _, _, headers = deadletter.encode(Record(), REJECTED, source=SOURCE, worker="w")

    letter = deadletter.decode([h for h in headers if h[0] != f"fairway.dlq.{missing}"])

    assert letter == Foreign(f"no header fairway.dlq.{missing}")
