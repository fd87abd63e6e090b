"""Recorded events and what became of them: no release changes a byte of it unnoticed."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from stream.events import Action, ReviewWhy, Selection
from tests.golden.recording import FOLDER, outputs


@pytest.mark.parametrize("name", ["decisions.jsonl", "review.jsonl", "rejected.jsonl"])
def test_the_same_events_give_the_same_bytes(name: str) -> None:
    """Every output about the recorded events is what it was when it was recorded, byte for byte."""
    assert outputs()[name] == (FOLDER / name).read_bytes().splitlines()


def test_the_recording_has_everything_in_it() -> None:
    """Every action, selection and reason for review comes up in the recording, so that a change to any is noticed."""
    decisions = [json.loads(line) for line in (FOLDER / "decisions.jsonl").read_bytes().splitlines()]
    reviews = [json.loads(line) for line in (FOLDER / "review.jsonl").read_bytes().splitlines()]
    selections = Counter(harm["selection"] for decision in decisions for harm in decision["harms"].values())
    assert {decision["action"] for decision in decisions} == {str(action) for action in Action}
    assert set(selections) == {selection.name.lower() for selection in Selection}
    assert {review["why"] for review in reviews} == {str(why) for why in ReviewWhy}
