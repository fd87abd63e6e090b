"""Mapping is total: whatever JSON a record is, it maps or says which path does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decode import Decoder
from stream.events import Rejected
from stream.mapping import Unmapped, load_mapping
from tests.records import Record, default_limits, outcomes

EXAMPLES = Path(__file__).parents[2] / "ops" / "mappings"
MARK = "Zq9mark"

NAMES = (
    *("id", "text", "role", "lang", "prompt", "model", "groups", "request", "response", "messages", "choices", "user"),
    *(
        "content",
        "message",
        "created",
        "metadata",
        "language",
        "surface",
        "verdict",
        "at",
        "scores",
        "TOXICITY",
        "flagged",
    ),
)
texts = st.sampled_from(["", "post", "gender:women", "2026-01-01T00:00:00Z", "REMOVE"]) | st.text(max_size=5)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=40,
)


@pytest.mark.parametrize("example", ["labelled-text.yaml", "chat-completions.yaml", "foreign-decisions.yaml"])
@given(document=documents, timestamp=st.none() | st.integers(-(2**63), 2**63 - 1), key=st.none() | st.binary())
def test_any_document_maps_or_says_where_not(
    example: str, document: Any, timestamp: int | None, key: bytes | None
) -> None:
    """Nothing in a record raises: it is a dict of fields, or an error."""
    found = load_mapping(EXAMPLES / example).apply(document, Record(b"{}", timestamp=timestamp, key=key))
    assert isinstance(found, dict | Unmapped)


@pytest.mark.parametrize("example", ["labelled-text.yaml", "chat-completions.yaml"])
@given(values=st.lists(documents.map(json.dumps).map(str.encode) | st.binary(max_size=50), max_size=4))
def test_any_foreign_record_has_one_outcome(example: str, values: list[bytes]) -> None:
    """Through a mapping too every record is one event or one rejection."""
    assert len(outcomes(Decoder(default_limits(), load_mapping(EXAMPLES / example)), values)) == len(values)


def marked(value: Any) -> Any:
    """The same document with the mark in every text."""
    if isinstance(value, str):
        return MARK + value
    if isinstance(value, list):
        return [marked(item) for item in value]
    return {name: marked(item) for name, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("example", ["labelled-text.yaml", "chat-completions.yaml"])
@given(document=documents)
def test_an_error_tells_nothing_of_a_foreign_record(example: str, document: Any) -> None:
    """No text of a foreign record is in the error that rejects it."""
    decoder = Decoder(default_limits(), load_mapping(EXAMPLES / example))
    for outcome in outcomes(decoder, [json.dumps(marked(document)).encode()]):
        assert not isinstance(outcome, Rejected) or MARK not in outcome.error
