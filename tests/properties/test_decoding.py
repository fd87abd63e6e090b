"""Decoding is total: whatever a record holds, it is one event or one reason, and the reason tells nothing of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from stream.decode import Decoder, row_of
from stream.events import ContentEvent, Rejected, RejectReason
from stream.plain import read_plain
from stream.strictjson import Refusal, is_free_of_repeats, read
from tests.hostile.corpus import sound_event
from tests.records import NOW, Decoded, Record, default_limits, outcomes, rows_of

DECODER = Decoder(default_limits())
MARK = "Zq9mark"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
events = st.builds(lambda seed: sound_event(Random(seed)), st.integers(0, 2**32))


@given(st.lists(st.binary(max_size=200) | st.none(), max_size=8))
def test_any_bytes_have_one_outcome(values: list[bytes | None]) -> None:
    """No bytes raise: every record is an event or a rejection, never both and never neither."""
    assert len(outcomes(DECODER, values)) == len(values)


@given(events, st.data())
def test_any_edit_of_an_event_has_one_outcome(event: dict[str, Any], data: st.DataObject) -> None:
    """An event with a few bytes replaced, put in or taken out is still an event or a rejection."""
    value = bytearray(json.dumps(event).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value)))
        value[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(PIECES))
    assert len(outcomes(DECODER, [bytes(value)])) == 1


PIECES = (
    *(b"", b'"', b":", b",", b"{", b"}", b"[", b"]", b"\\", b"\\u0000", b"\\u003a", b'"id":', b"null", b"NaN", b"0"),
    *(b"\xff", b"\x00", b"\xc3", b" ", b"\n", b"1e999", b'"text":', b"-", b"e", b'{"name":"a"}', b'{"a":["b"]}'),
)


@given(st.dictionaries(st.sampled_from(sorted(ContentEvent.model_fields)), documents) | documents)
def test_any_document_has_one_outcome(document: Any) -> None:
    """Any JSON, also with our own field names and anything in them, is an event or a rejection."""
    assert len(outcomes(DECODER, [json.dumps(document).encode()])) == 1


def marked(value: Any) -> Any:
    """The same document with the mark in every text, names of fields of objects within included."""
    if isinstance(value, str):
        return MARK + value
    if isinstance(value, list):
        return [marked(item) for item in value]
    if isinstance(value, dict):
        return {MARK + name: marked(item) for name, item in value.items()}
    return value


@given(events, st.dictionaries(st.sampled_from(sorted(ContentEvent.model_fields)), documents, min_size=1), st.data())
def test_an_error_tells_nothing_of_the_content(
    event: dict[str, Any], replaced: dict[str, Any], data: st.DataObject
) -> None:
    """No text that is in a record, as a value or as a name, is in the error that rejects it."""
    fields = {name: marked(value) for name, value in (event | replaced).items()} | {MARK: MARK}
    fields["created_at"] = data.draw(st.sampled_from([event["created_at"], MARK, f"2024-01-01T00:00:00{MARK}"]))
    value = json.dumps(fields).encode()
    values = [value, value[: data.draw(st.integers(0, len(value)))], value.replace(b'"', MARK.encode(), 1)]
    for outcome in outcomes(DECODER, values):
        assert not isinstance(outcome, Rejected) or MARK not in outcome.error


# --- One reading -----------------------------------------------------------------------------------------------------

# JSON text that may repeat keys, from pairs and not from dicts, in all the ways it can be written.
spaces = st.sampled_from(["", "", " ", "\t", "\n \r"])
characters = st.sampled_from([*'":a\\ \u003a', "é", ":", '"', "\n"])


@st.composite
def json_strings(draw: st.DrawFn) -> str:
    """A JSON string in which any character may be written as an escape."""
    written = ""
    for character in draw(st.lists(characters, max_size=4)):
        plain = json.dumps(character, ensure_ascii=False)[1:-1]
        written += draw(st.sampled_from([plain, f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"]))
    return f'"{written}"'


@st.composite
def json_texts(draw: st.DrawFn, depth: int = 3) -> str:
    """A JSON text; objects may have a key more than once."""
    kind = draw(st.integers(0, 3 if depth else 1))
    if kind == 0:
        return draw(st.sampled_from(["1", "null", "true", "-1.5e3", "{}", "[]"]))
    if kind == 1:
        return draw(json_strings())
    inner = draw(st.lists(json_texts(depth=depth - 1), max_size=3))
    if kind == 2:
        return "[" + ",".join(draw(spaces) + item + draw(spaces) for item in inner) + "]"
    keys = [draw(json_strings()) for _ in inner]
    pairs = [f"{draw(spaces)}{key}{draw(spaces)}:{draw(spaces)}{item}" for key, item in zip(keys, inner, strict=True)]
    return "{" + ",".join(pairs) + "}"


def repeats(text: str) -> bool:
    """Whether any object has a key twice, by looking at each."""
    found = []
    json.loads(text, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) < len(pairs)))
    return any(found)


@given(json_texts())
def test_a_repeated_key_is_refused_and_nothing_else_is(text: str) -> None:
    """JSON is refused exactly where an object has a key twice, however keys, spaces and escapes are written."""
    outcome = read(text.encode(), max_depth=32)
    if repeats(text):
        assert isinstance(outcome, Refusal)
        assert outcome.reason is RejectReason.DUPLICATE_KEY
    else:
        assert outcome == json.loads(text)


def keys_and_colons(document: Any) -> tuple[int, int]:
    """How many keys a document has, and how many colons in its strings, keys included."""
    if isinstance(document, str):
        return 0, document.count(":")
    if isinstance(document, dict):
        parts = [keys_and_colons(part) for pair in document.items() for part in pair]
        return len(document) + sum(keys for keys, _ in parts), sum(colons for _, colons in parts)
    parts = [keys_and_colons(item) for item in document] if isinstance(document, list) else []
    return sum(keys for keys, _ in parts), sum(colons for _, colons in parts)


@given(json_texts(), st.data())
def test_text_that_passes_the_cheap_test_repeats_no_key(text: str, data: st.DataObject) -> None:
    """Counting colons is sound: with any part of the strings' colons accounted for, it passes no repeated key."""
    keys, colons = keys_and_colons(json.loads(text))
    accounted = data.draw(st.integers(0, colons))
    if is_free_of_repeats(text.encode(), colons=keys + accounted):
        assert not repeats(text)


@given(events, st.sampled_from(sorted(ContentEvent.model_fields)), json_strings(), spaces)
def test_an_event_with_a_field_again_is_refused(event: dict[str, Any], name: str, value: str, space: str) -> None:
    """A field that is there twice makes the event a duplicate, whatever the two values are."""
    body = json.dumps({name: None} | event)[1:]
    (outcome,) = outcomes(DECODER, [f'{{"{name}"{space}:{value},{body}'.encode()])
    assert isinstance(outcome, Rejected)
    assert outcome.reason is RejectReason.DUPLICATE_KEY


@given(st.integers(1, 128), st.integers(1, 140), st.sampled_from(["[]", "{}"]))
def test_depth_is_bounded_exactly(max_depth: int, depth: int, brackets: str) -> None:
    """JSON of as many levels as are allowed is read, and of one more is not."""
    opening = "[" if brackets == "[]" else '{"a":'
    text = opening * (depth - 1) + brackets + brackets[1] * (depth - 1)
    assert isinstance(read(text.encode(), max_depth=max_depth), Refusal) == (depth > max_depth)


# --- What comes out --------------------------------------------------------------------------------------------------


@given(st.lists(events | st.none(), max_size=6))
def test_columns_are_of_the_records_they_say(batch: list[dict[str, Any] | None]) -> None:
    """Row i of every column is of the record at positions[i], in order."""
    records = [
        Record(None if event is None else json.dumps(event).encode(), offset=100 + 2 * position)
        for position, event in enumerate(batch)
    ]
    found, _ = DECODER.decode(records, now=NOW)
    sound = [position for position, event in enumerate(batch) if event is not None]
    assert found.positions.tolist() == sound
    assert found.offsets.tolist() == [100 + 2 * position for position in sound]
    assert [event.id for event in rows_of(found)] == [batch[position]["id"] for position in sound]  # type: ignore[index]
    assert list(found.texts) == [batch[position]["text"] for position in sound]  # type: ignore[index]
    assert found.created_at.tolist() == [time.timestamp() for time in found.times]


@given(
    st.datetimes(
        datetime(2000, 1, 3),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(2026, 1, 1),  # noqa: DTZ001
        timezones=st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-1439, 1439)),
    )
)
def test_times_are_read_to_the_microsecond(time: datetime) -> None:
    """Any time with any offset is the same moment in the column as it was."""
    value = json.dumps({"id": "a", "created_at": time.isoformat(), "role": "post", "text": "x"}).encode()
    batch, _ = DECODER.decode([Record(value)], now=NOW)
    assert batch.created_at.tolist() == [time.astimezone(UTC).timestamp()]


@given(
    st.from_regex(r"20[0-2][0-9]-[01][0-9]-[0-3][0-9][Tt _][0-2][0-9]:[0-5][0-9](:[0-6][0-9])?.{0,12}", fullmatch=True)
)
def test_two_readers_take_a_time_for_the_same_moment(time: str) -> None:
    """Whatever looks like a time is refused, or is the same moment to the reader of events and to that of times."""
    value = json.dumps({"id": "a", "created_at": time, "role": "post", "text": "x"}).encode()
    batch, rejected = DECODER.decode([Record(value)], now=NOW)
    assert {rejection.reason for rejection in rejected} <= {RejectReason.SCHEMA_ERROR, RejectReason.TIMESTAMP}
    assert batch.created_at.tolist() == [time.timestamp() for time in batch.times]


names = st.text(max_size=100).filter(lambda name: name not in ContentEvent.model_fields)


@given(st.dictionaries(names, st.none() | st.booleans() | st.text(max_size=20), max_size=40))
def test_unknown_fields_are_named_within_bounds(fields: dict[str, Any]) -> None:
    """Of fields that are there and unknown, 16 are named at most, by 64 characters at most."""
    event = fields | {"id": "a", "created_at": "2024-01-01T00:00:00Z", "role": "post", "text": "x"}
    (found,) = outcomes(DECODER, [json.dumps(event).encode()])
    assert isinstance(found, Decoded)
    assert list(found.unknown_fields) == sorted(name[:64] for name in fields)[:16]


# --- Two readers -----------------------------------------------------------------------------------------------------

explicit_nulls = st.sets(st.sampled_from(["image", "prompt", "generator", "locale", "author", "groups", "tenant"]))


@st.composite
def written_events(draw: st.DrawFn) -> bytes:
    """An event as some producer may write it: any field, any order, nulls said or left out, escapes, odd times."""
    event = dict.fromkeys(draw(explicit_nulls)) | draw(events)
    if draw(st.booleans()):
        event[draw(st.sampled_from(sorted(ContentEvent.model_fields)))] = draw(documents | NEARLY)
    event["created_at"] = draw(st.sampled_from([event["created_at"], *TIMES]))
    ordered = {name: event[name] for name in draw(st.permutations(sorted(event)))}
    value = json.dumps(ordered, ensure_ascii=draw(st.booleans())).encode()
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(st.sampled_from([b"", *PIECES])) + value[at:]


NEARLY = st.sampled_from(
    [
        {"name": "m", "version": "1:2"},
        {"name": "m"},
        {"name": ""},
        {"a:b": ["c:d"]},
        {"a": []},
        {},
        "a:b",
        "",
        " ",
        1,
        1.0,
    ]
)
TIMES = (
    *("2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00", "2024-01-01T00:00:00.1234567Z", "2024-01-01t00:00:00z"),
    *("2024-01-01 00:00:00-0130", "2024-01-01T00:00Z", "2024-01-01T00:00:00", "2024-W01-1T00:00:00Z", "1704067200"),
)


@settings(max_examples=400)
@given(written_events())
def test_the_plain_reader_reads_as_the_careful_one(value: bytes) -> None:
    """What the plain reader accepts, the careful one accepts, and every column has the same value."""
    row = read_plain([value])[0]
    event(f"plain: {row is not None}")
    if row is not None:
        careful = DECODER._read(value, Record(value))
        assert isinstance(careful, ContentEvent)
        assert row == row_of(careful)


@given(events, explicit_nulls)
def test_the_plain_reader_takes_what_is_plain(sound: dict[str, Any], nulls: set[str]) -> None:
    """An event with any of our fields but an image, nulls said or left out, needs no second look, escapes apart."""
    value = json.dumps(dict.fromkeys(nulls) | sound).encode()
    assert (read_plain([value])[0] is None) == (bool(sound.get("image")) or rb"\u003a" in value.lower())


@given(st.lists(written_events(), max_size=20))
def test_the_plain_reader_reads_each_event_for_itself(values: list[bytes]) -> None:
    """Events read together give what each gives alone, whatever is wrong with the others."""
    assert read_plain(values) == [read_plain([value])[0] for value in values]
