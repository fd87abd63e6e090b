"""The wire: what the encoder writes, in three pieces and from templates, is the structs of `stream.events` and no more.

`WireDecision` states the format a second time, independently, as consumers rely on it.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from stream.errors import PolicyError
from stream.events import Decision, HarmDecision, ReviewRecord
from stream.scoring import STUB_HARMS, StubScorer
from tests.spine import HARMS, ScriptedScorer, event, policy, records, spine

Digest = Annotated[str, Field(pattern=r"^sha256:[a-z0-9]+$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class StrictHarm(HarmDecision, frozen=True, forbid_unknown_fields=True):
    """A harm, where nothing else may stand."""


class StrictDecision(Decision, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision, where nothing else may stand."""

    harms: dict[str, StrictHarm]  # type: ignore[assignment]


class StrictReview(ReviewRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A review record, where nothing else may stand."""


class WireHarm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    probability: Probability
    selection: Literal["harmless", "abstain", "harmful"]
    act_at: Probability
    allow_below: Probability


class WireDecision(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    schema_version: Literal[1]
    decision_id: Annotated[str, Field(pattern=r"^[\w.-]+:\d+:\d+$")]
    content_id: Annotated[str, Field(min_length=1, max_length=256)]
    action: Literal["allow", "label", "restrict", "block", "review"]
    reasons: list[str]
    harms: dict[str, WireHarm]
    moderated: bool
    bundle: Digest
    policy: Digest
    calibration: Digest
    mapping: Digest | None
    input_digest: Digest
    created_at: AwareDatetime
    decided_at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")]
    review_propensity: Probability
    groups: dict[str, list[str]]
    role: Literal["prompt", "output", "post"]
    surface: Annotated[str, Field(min_length=1, max_length=128)]
    locale: str | None
    tenant: str | None
    generator: str | None
    provider: Literal["stub", "cpu", "cuda"]
    windows: Annotated[int, Field(ge=0)]
    unknown_fields: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=16)]


WORD = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
MAYBE = st.none() | WORD
NUMBERS = st.floats(-30, 30, width=32)
TEXTS = st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{pair[0]},{pair[1]}")
GROUPS = st.none() | st.dictionaries(WORD, st.lists(WORD, max_size=3), max_size=3)
EVENTS = st.fixed_dictionaries(
    {
        "id": WORD | st.sampled_from(["100%", "%b", "%(a)s", '"', "\\", "\u2028", "\x00"]),
        "created_at": st.datetimes(datetime(2001, 1, 1), datetime(2026, 9, 20)).map(  # noqa: DTZ001 - given an offset below
            lambda time: time.isoformat() + "-07:30"
        ),
        "role": st.sampled_from(["prompt", "output", "post"]),
        "text": TEXTS | st.just("not a number"),
        "surface": WORD,
        "groups": GROUPS,
    },
    optional={
        "locale": MAYBE,
        "tenant": MAYBE,
        "author": MAYBE,
        "prompt": MAYBE,
        "generator": st.fixed_dictionaries({"name": WORD}, optional={"version": MAYBE}),
        "%b": st.integers(),
        "später": WORD,
    },
)


def rule(act_at: float, allow_below: float) -> dict[str, Any]:
    return {"action": "block", "act_at": act_at, "allow_below": allow_below}


PLAIN = spine()
AUDITED = spine(policy(audit={"rate": 1.0}))
TWO_RULES = spine(policy(harms={"hate": rule(0.7, 0.2), "violence": rule(0.9, 0.9)}))
OVERLAID = spine(policy(audit={"rate": 0.5}, overlays=[{"surface": "forum", "harms": {"hate": {"action": "label"}}}]))
WITH_STUB = spine(policy(harms=dict.fromkeys(STUB_HARMS, rule(0.1, 0.02))), scorer=StubScorer())


@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_a_decision_is_the_struct_and_no_more(fields: list[dict[str, Any]]) -> None:
    """Whatever the events, the bytes decode strictly, have every field of the struct once, and no other."""
    for line in PLAIN.decisions(records(event(**each) for each in fields)):
        decision = msgspec.json.decode(line, type=StrictDecision)
        names = [name for name, _ in json.loads(line, object_pairs_hook=list)]
        assert sorted(names) == sorted(field.encode_name for field in msgspec.structs.fields(Decision))
        assert msgspec.json.decode(msgspec.json.encode(decision)) == msgspec.json.decode(line)


@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_a_decision_is_as_its_consumers_know_it(fields: list[dict[str, Any]]) -> None:
    """The bytes fit the format as it is stated here, in which nothing may be renamed, dropped or added unnoticed."""
    for line, said in zip(PLAIN.decisions(records(event(**each) for each in fields)), fields, strict=True):
        decision = WireDecision.model_validate_json(line)
        assert decision.content_id == said["id"]
        assert decision.groups == (said["groups"] or {})
        assert decision.created_at == datetime.fromisoformat(said["created_at"])
        assert (decision.locale, decision.tenant) == (said.get("locale"), said.get("tenant"))


@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_a_review_record_is_the_struct_and_no_more(fields: list[dict[str, Any]]) -> None:
    """A review record decodes strictly, with the decision and the event in it as they are elsewhere."""
    values = [event(**each) for each in fields]
    lines = AUDITED.reviews(records(values))
    for line, value, decision in zip(lines, values, AUDITED.decisions(records(values)), strict=True):
        record = msgspec.json.decode(line, type=StrictReview)
        assert bytes(record.event) == value
        assert record.decision == msgspec.json.decode(decision, type=Decision)
        assert set(json.loads(line)) == {field.encode_name for field in msgspec.structs.fields(ReviewRecord)}


@pytest.mark.parametrize(
    "name", ["100%", "%b", "%s%d%(x)r", "%%", 'said "so"', "back\\slash", "übel", "憎悪", "a:b", " ", "a\tb", "🙂"]
)
def test_a_harm_may_have_any_name(name: str) -> None:
    """The name of a harm is written as it is, whatever it means to a template."""
    harms = {name: {"action": "block", "act_at": 0.5, "allow_below": 0.1}}
    made = spine(policy(harms=harms), scorer=ScriptedScorer((name,)))
    scored, unscored = made.decide(event(text="0"), event(text="words"))
    assert scored.harms == {name: HarmDecision(0.5, "harmful", 0.5, 0.1)}
    assert (scored.reasons, unscored.harms) == ([f"{name}:harmful"], {})


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6))
def test_probabilities_are_written_to_a_millionth(logits: list[tuple[float, float]]) -> None:
    """Each probability is the calibrated one rounded to six decimals, under its own harm with its own thresholds."""
    slice_ = records(event(text=f"{first},{second}") for first, second in logits)
    moderated = TWO_RULES.run(slice_)
    for line, row in zip(TWO_RULES.decisions(slice_), moderated.probabilities.astype(np.float64), strict=True):
        harms = json.loads(line)["harms"]
        assert list(harms) == list(HARMS)
        assert [harm["probability"] for harm in harms.values()] == [round(p, 6) for p in row.tolist()]
        assert [(harm["act_at"], harm["allow_below"]) for harm in harms.values()] == [(0.7, 0.2), (0.9, 0.9)]


def test_what_was_selected_is_what_the_thresholds_say() -> None:
    """On each side of each threshold the decision names the selection, the upper one included in harmful."""
    made = spine(policy(harms=dict.fromkeys(HARMS, rule(0.75, 0.25))))
    decisions = made.decide(*(event(text=f"{logit},-9") for logit in (-1.1, -1.0986, 0, 1.0986, 1.1)))
    selections = [dict(decision.harms)["hate"].selection for decision in decisions]  # type: ignore[arg-type]
    assert selections == ["harmless", "abstain", "abstain", "abstain", "harmful"]


@given(EVENTS, GROUPS, st.booleans())
def test_groups_never_influence_a_decision(fields: dict[str, Any], other: Any, overlaid: bool) -> None:
    """The same event with other groups gets the same decision, byte for byte, but for the groups and the digest."""
    surface = "forum" if overlaid else "chat"
    (first,) = OVERLAID.decisions(records([event(**(fields | {"surface": surface}))]))
    (second,) = OVERLAID.decisions(records([event(**(fields | {"surface": surface, "groups": other}))]))
    assert _without_groups(first) == _without_groups(second)


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not text.isspace()), GROUPS, GROUPS)
def test_groups_never_influence_the_scorer_that_ships(text: str, first: Any, second: Any) -> None:
    """Nor do they where the score comes from the text itself."""
    lines = [WITH_STUB.decisions(records([event(text=text, groups=groups)]))[0] for groups in (first, second)]
    assert _without_groups(lines[0]) == _without_groups(lines[1])


def test_a_policy_cannot_name_a_group() -> None:
    """A policy with rules for a group is refused, and the message names the field."""
    overlay = {"groups": {"gender": ["women"]}, "fail": {"expired": "open"}}
    with pytest.raises(PolicyError, match="groups"):
        spine(policy(overlays=[overlay]))


def _without_groups(line: bytes) -> dict[str, Any]:
    decision: dict[str, Any] = json.loads(line)
    return {name: value for name, value in decision.items() if name not in {"groups", "input_digest"}}
