"""Records into events: what each reason is given for, and which of two comes first."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from stream.decode import Decoder
from stream.errors import MappingError
from stream.events import Rejected, RejectReason
from stream.mapping import load_mapping
from stream.strictjson import Refusal, read
from tests.hostile.images import SOUND
from tests.records import NOW, Decoded, Record, default_limits, outcomes

EVENT = {"id": "e-1", "created_at": "2026-01-01T12:00:00Z", "role": "output", "text": "hello"}
LIMITS = default_limits()


def event(**fields: Any) -> bytes:
    return json.dumps(EVENT | fields).encode()


def rejection(value: bytes | None, decoder: Decoder | None = None) -> Rejected:
    (outcome,) = outcomes(decoder or Decoder(LIMITS), [value])
    assert isinstance(outcome, Rejected)
    return outcome


def accepted(value: bytes, decoder: Decoder | None = None) -> Decoded:
    (outcome,) = outcomes(decoder or Decoder(LIMITS), [value])
    assert isinstance(outcome, Decoded)
    return outcome


def test_a_batch_has_the_digest_of_each_value() -> None:
    """The input digest is the SHA-256 of the record's bytes as received, whitespace and all."""
    value = b" " + event() + b"\n"
    batch, rejected = Decoder(LIMITS).decode([Record(value)], now=NOW)
    assert batch.input_digests == [f"sha256:{hashlib.sha256(value).hexdigest()}"]
    assert rejected == ()


def test_an_empty_slice_is_an_empty_batch() -> None:
    """No records are no events, with columns of the right types."""
    batch, rejected = Decoder(LIMITS).decode([], now=NOW)
    assert (len(batch), rejected) == (0, ())
    columns = (batch.positions, batch.offsets, batch.created_at)
    assert [str(column.dtype) for column in columns] == ["int64", "int64", "float64"]


def test_size_is_bounded_inclusively() -> None:
    """A record of exactly max_event_bytes is read, one byte more is not, and the error has both numbers."""
    decoder = Decoder(replace(LIMITS, max_event_bytes=len(event())))
    accepted(event(), decoder)
    found = rejection(event() + b" ", decoder)
    assert found.reason is RejectReason.TOO_LARGE
    assert str(len(event())) in found.error
    assert str(len(event()) + 1) in found.error


def test_time_is_bounded_inclusively() -> None:
    """Events from the first second of 2000 to max_future_s from now are read."""
    decoder = Decoder(replace(LIMITS, max_future_s=60.0))
    batch, _ = decoder.decode([Record(event(created_at="2026-09-21T14:14:20Z"))], now=NOW)
    assert batch.created_at.tolist() == [NOW + 60]
    accepted(event(created_at="2000-01-01T00:00:00Z"), decoder)
    for time in ("2026-09-21T14:14:20.001Z", "1999-12-31T23:59:59.999Z"):
        assert rejection(event(created_at=time), decoder).reason is RejectReason.TIMESTAMP


@pytest.mark.parametrize("time", ["1767268800", "1767268800000", "20260101", 1767268800, 1767268800.5, "2026-01-01"])
def test_a_time_is_text_with_an_offset(time: object) -> None:
    """Numbers are refused, in quotes or not: they could be seconds or milliseconds; so is a time without an offset."""
    found = rejection(event(created_at=time))
    assert found.reason is RejectReason.SCHEMA_ERROR
    assert found.error.startswith("created_at: ")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"id": 1}, "id: should be a valid string"),
        ({"schema_version": True}, "schema_version: should be a valid integer"),
        ({"role": "Post"}, "role: should be 'prompt', 'output' or 'post'"),
        ({"generator": {}}, "generator.name: is missing"),
        ({"groups": {"age": [1]}}, "groups.*[0]: should be a valid string"),
        ({"groups": {"": []}}, "groups.*.*: String should have at least 1 character"),
        (
            {"id": "", "role": "", "text": 1, "prompt": 1, "author": 1},
            (
                "id: String should have at least 1 character; role: should be 'prompt', 'output' or 'post'; "
                "text: should be a valid string; and 2 more"
            ),
        ),
    ],
)
def test_a_schema_error_names_path_and_rule(fields: dict[str, Any], error: str) -> None:
    """What is wrong is said by place and rule, for the first three; names of group axes are the content's."""
    assert rejection(event(**fields)) == Rejected(0, RejectReason.SCHEMA_ERROR, error)


def test_json_that_is_no_object_is_a_schema_error() -> None:
    """Sound JSON of another kind says that it is not an object."""
    assert rejection(b"[1]") == Rejected(0, RejectReason.SCHEMA_ERROR, "the event: should be an object")


def test_an_event_of_a_later_version_is_told_by_its_version() -> None:
    """A later version is the reason also where the event fits none of our rules, but only where it says so."""
    assert rejection(event(schema_version=2)).reason is RejectReason.SCHEMA_VERSION
    assert rejection(b'{"schema_version":2,"events":[]}').reason is RejectReason.SCHEMA_VERSION
    assert rejection(b'{"schema_version":"2"}').reason is RejectReason.SCHEMA_ERROR


@pytest.mark.parametrize("text", [None, "", " \n\t", "\u3000\u2003"])
def test_blank_text_is_no_content(text: str | None) -> None:
    """Text of nothing but whitespace is nothing to moderate, unless there is an image; then there is no text."""
    assert rejection(event(text=text)).reason is RejectReason.EMPTY_CONTENT
    image = {"media_type": "image/png", "url": "https://example.org/a.png"}
    batch, _ = Decoder(LIMITS).decode([Record(event(text=text, image=image))], now=NOW)
    assert batch.texts == (None,)


def test_text_beside_an_image_is_scored() -> None:
    """An event with both has both."""
    image = {"media_type": "image/png", "url": "https://example.org/a.png"}
    batch, _ = Decoder(LIMITS).decode([Record(event(image=image))], now=NOW)
    assert batch.texts == ("hello",)


def test_a_broken_image_rejects_the_event() -> None:
    """An image that cannot be looked at is a reason of its own, whatever text is beside it."""
    found = rejection(event(image={"media_type": "image/png", "data": "AAAA"}))
    assert found.reason is RejectReason.IMAGE
    assert found.error.startswith("image.data: ")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff" * 2_000_000, RejectReason.TOO_LARGE),
        (b'{"id":1,"id":NaN}', RejectReason.DECODE_ERROR),
        (b'{"id":1,"id":2,"schema_version":9}', RejectReason.DUPLICATE_KEY),
        (event(schema_version=9, id=1), RejectReason.SCHEMA_VERSION),
        (event(id=1, created_at="1970-01-01T00:00:00Z"), RejectReason.SCHEMA_ERROR),
        (event(text="", created_at="1970-01-01T00:00:00Z"), RejectReason.TIMESTAMP),
        (event(text="", image={"media_type": "image/png"}), RejectReason.IMAGE),
    ],
)
def test_the_first_reason_in_order_is_given(value: bytes, reason: RejectReason) -> None:
    """Of several things wrong the first is given: size, JSON, keys, version, schema, time, image, content."""
    assert rejection(value).reason is reason


def test_numbers_that_not_every_reader_has_are_refused_where_nobody_reads_them() -> None:
    """NaN, infinities and decimals beyond a double are refused in unknown fields too."""
    for number in ("NaN", "Infinity", "1e999"):
        value = event()[:-1] + f',"x":{number}}}'.encode()
        assert rejection(value).reason is RejectReason.DECODE_ERROR


def test_unknown_fields_are_accepted_and_named() -> None:
    """Unknown fields, also of generator and image, are named by their path in order."""
    image = {"media_type": "image/png", "data": base64.b64encode(SOUND["png"][1]).decode(), "alt": "a picture"}
    found = accepted(event(zeta=1, alpha={"b": [1]}, generator={"name": "m", "temperature": 0.5}, image=image))
    assert found.unknown_fields == ["alpha", "generator.temperature", "image.alt", "zeta"]
    assert accepted(event()).unknown_fields == ()


def test_unknown_fields_hide_nothing_that_is_refused() -> None:
    """A repeated key or too deep a value is refused inside of an unknown field of the generator or the image too."""
    deep = "[" * 40 + "]" * 40
    for name, known in (("generator", '"name":"m"'), ("image", '"media_type":"image/png","url":"https://a/b"')):
        repeated = event()[:-1] + f',"{name}":{{{known},"x":{{"a":1,"a":2}}}}}}'.encode()
        assert rejection(repeated).reason is RejectReason.DUPLICATE_KEY
        nested = event()[:-1] + f',"{name}":{{{known},"x":{deep}}}}}'.encode()
        assert rejection(nested).reason is RejectReason.DECODE_ERROR


def test_a_dropped_value_of_any_depth_is_a_value_of_a_repeated_key() -> None:
    """Where a repeated key's first value is deeper than Python's stack, the record is refused and nothing raises."""
    limit = sys.getrecursionlimit()
    for depth in (*range(0, limit - 200, 100), *range(limit - 200, limit + 10)):
        found = read(b'{"a":' + b"[" * depth + b"]" * depth + b',"a":1}', max_depth=32)
        assert isinstance(found, Refusal)
        assert found.reason in {RejectReason.DUPLICATE_KEY, RejectReason.DECODE_ERROR}


# --- Through a mapping -----------------------------------------------------------------------------------------------

MAPPING = load_mapping(
    b"""
schema_version: 1
name: test
kind: event
fields:
  id: uuid
  created_at: {path: at, time: epoch_ms}
  role: kind
  text: body.text
  author: user
"""
)
FOREIGN = {"uuid": "e-1", "at": 1767268800123, "kind": "post", "body": {"text": "hello"}, "more": [{"a": 1}, {"a": 2}]}


def foreign(**fields: Any) -> bytes:
    return json.dumps(FOREIGN | fields).encode()


def test_a_mapped_record_is_an_event() -> None:
    """A foreign record becomes the event that the mapping says, with the digest of the foreign bytes."""
    decoder = Decoder(LIMITS, MAPPING)
    batch, _ = decoder.decode([Record(foreign())], now=NOW)
    assert batch.texts == ("hello",)
    assert batch.created_at.tolist() == [1767268800.123]
    assert batch.input_digests == [f"sha256:{hashlib.sha256(foreign()).hexdigest()}"]
    assert batch.unknown_fields == ((),)
    assert (decoder.mapping_digest, Decoder(LIMITS).mapping_digest) == (MAPPING.digest, None)


@pytest.mark.parametrize(
    ("value", "reason", "error"),
    [
        (None, RejectReason.TOMBSTONE, "no value"),
        (b"{", RejectReason.DECODE_ERROR, "truncated"),
        (foreign()[:-1] + b',"x":NaN}', RejectReason.DECODE_ERROR, "malformed"),
        (foreign(x=[[[[]]]]).replace(b"[[[[]]]]", b"[" * 40 + b"]" * 40), RejectReason.DECODE_ERROR, "32 deep"),
        (foreign().replace(b'"a": 1', b'"a": 1, "a": 2'), RejectReason.DUPLICATE_KEY, "key twice"),
        (foreign(body={"text": ["hello"]}), RejectReason.MAPPING_ERROR, "`body.text`: should be text"),
        (foreign(uuid=None), RejectReason.MAPPING_ERROR, "`id`"),
        (foreign(kind="comment"), RejectReason.SCHEMA_ERROR, "role: should be 'prompt', 'output' or 'post'"),
        (foreign(at=0), RejectReason.TIMESTAMP, "2000"),
        (foreign(body={}), RejectReason.EMPTY_CONTENT, "neither text nor an image"),
    ],
)
def test_a_foreign_record_has_the_same_reasons(value: bytes | None, reason: RejectReason, error: str) -> None:
    """A foreign record is held to every rule, also in the parts that the mapping does not read."""
    found = rejection(value, Decoder(LIMITS, MAPPING))
    assert found.reason is reason
    assert error in found.error


def test_a_mapping_of_decisions_decodes_no_events() -> None:
    """A worker with a mapping of the wrong kind does not start."""
    mapping = load_mapping(
        b"{schema_version: 1, name: a, kind: decision, fields: {created_at: at, action: verdict}}", name="d.yaml"
    )
    with pytest.raises(MappingError, match=r"d\.yaml: maps decisions"):
        Decoder(LIMITS, mapping)
