"""The spine: every record has its one outcome, which depends on nothing but the record, its place and the clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events import Action, FailCondition, RejectReason
from stream.scoring import StubScorer
from tests.records import NOW
from tests.spine import HARMS, event, policy, records, spine

CREATED = datetime(2026, 9, 21, 12, tzinfo=UTC)

LOGITS = st.sampled_from([-9.0, -1.0, 0.0, 3.0])
TEXTS = st.tuples(LOGITS, LOGITS).map(lambda pair: ",".join(map(str, pair))) | st.sampled_from(["words", " "])
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.builds(event, text=TEXTS, surface=st.sampled_from(["chat", "forum"]), locale=st.sampled_from([None, "de"])),
)
EVERYTHING = {"action": "label", "act_at": 0.0, "allow_below": 0.0}
OVERLAID = policy(
    audit={"rate": 0.5},
    overlays=[{"surface": "forum", "harms": {"hate": {"action": "label", "abstain": "restrict"}}}],
)


@given(st.lists(VALUES, max_size=12))
def test_every_record_has_one_outcome(values: list[bytes | None]) -> None:
    """Each record is an event with a verdict or a rejection, never both or neither, in the order of the records."""
    moderated = spine().run(records(values, start=7))
    positions, rejected = moderated.events.positions.tolist(), [r.position for r in moderated.rejected]
    assert positions == sorted(positions)
    assert rejected == sorted(rejected)
    assert sorted(positions + rejected) == list(range(len(values)))
    assert moderated.events.offsets.tolist() == [position + 7 for position in positions]
    columns = (moderated.verdicts.actions, moderated.rulesets, moderated.conditions, moderated.selections)
    assert {len(column) for column in columns} == {len(positions)}


@given(st.lists(VALUES, max_size=12), st.integers(0, 12))
def test_slicing_changes_nothing(values: list[bytes | None], cut: int) -> None:
    """Wherever a run of records is cut, the decisions are the same bytes."""
    whole, made = records(values), spine(OVERLAID)
    assert made.decisions(whole[:cut]) + made.decisions(whole[cut:]) == made.decisions(whole)


def test_the_stub_decides_alike_however_it_is_sliced() -> None:
    """A replay in other slices gives the same decisions, also with a scorer that ships."""
    scorer = StubScorer()
    made = spine(policy(harms=dict.fromkeys(scorer.harms, EVERYTHING)), scorer=scorer)
    whole = records(event(text=f"text {number}") for number in range(200))
    assert made.decisions(whole) == [line for record in whole for line in made.decisions([record])]


def test_nothing_in_is_nothing_out() -> None:
    """An empty slice has no outcome and is no error."""
    moderated = spine().run([])
    assert (len(moderated.events), list(moderated.rejected)) == (0, [])


@pytest.mark.parametrize(
    ("text", "action"),
    [("-9,-9", Action.ALLOW), ("-1,-9", Action.REVIEW), ("-9,3", Action.BLOCK), ("-1,3", Action.BLOCK)],
)
def test_what_the_model_says_decides(text: str, action: Action) -> None:
    """Harmless is allowed, undecided is reviewed, harmful gets its action, and the most severe harm counts."""
    (decision,) = spine().decide(event(text=text))
    assert (decision.action, decision.moderated) == (action, True)


def test_a_surface_has_its_own_rules() -> None:
    """Two events of one slice are decided by the rules of their own surface."""
    chat, forum = spine(OVERLAID).decide(event(text="3,-9"), event(text="3,-9", surface="forum"))
    assert (chat.action, forum.action) == (Action.BLOCK, Action.LABEL)


def test_a_role_has_its_own_rules() -> None:
    """Of two events of one slice that differ in their role alone, each is decided by the rules of its own."""
    rules = policy(overlays=[{"role": "prompt", "harms": {"hate": {"action": "label"}}}])
    post, prompt = spine(rules).decide(event(text="3,-9"), event(text="3,-9", role="prompt"))
    assert (post.action, prompt.action) == (Action.BLOCK, Action.LABEL)


def test_a_failure_is_one_events_alone() -> None:
    """An event that the model fails on goes by its fail rule; its neighbours are decided as without it."""
    made = spine(policy(fail={"scorer_error": "closed"}))
    before, failed, after = made.decide(event(text="-9,3"), event(text="no numbers"), event(text="-9,-9"))
    assert (failed.action, failed.moderated, failed.harms) == (Action.BLOCK, False, {})
    assert failed.reasons == ["fail:scorer_error"]
    assert [d.action for d in (before, after)] == [Action.BLOCK, Action.ALLOW]


@pytest.mark.parametrize(("age_s", "expired"), [(59.0, False), (60.0, False), (60.001, True), (-299.0, False)])
def test_an_event_expires_after_its_age(age_s: float, expired: bool) -> None:
    """An event is expired when it is older than `max_age_s`, and not at that age."""
    created = datetime.fromtimestamp(NOW - age_s, UTC).isoformat()
    moderated = spine(policy(max_age_s=60.0)).run(records([event(created_at=created)]))
    assert bool(moderated.conditions[0] >> FailCondition.EXPIRED & 1) == expired


def test_without_an_age_nothing_expires() -> None:
    """Where the policy has no `max_age_s`, a replay of old content is moderated like anything else."""
    (decision,) = spine().decide(event(created_at="2001-01-01T00:00:00Z"))
    assert (decision.action, decision.moderated) == (Action.ALLOW, True)


def test_the_model_counts_beside_a_fail_rule() -> None:
    """An expired event that is found harmful is blocked by what was found, and says it was moderated."""
    old = (CREATED - timedelta(days=1)).isoformat()
    rules = policy(max_age_s=3600.0, fail={"expired": "review"})
    harmful, harmless = spine(rules).decide(event(created_at=old, text="3,-9"), event(created_at=old))
    assert (harmful.action, harmful.moderated) == (Action.BLOCK, True)
    assert (harmless.action, harmless.moderated) == (Action.REVIEW, False)


def test_a_picture_alone_is_unsupported() -> None:
    """Content that a text-only model cannot look at is decided by the fail rule, not by silence."""
    picture = {"media_type": "image/png", "url": "https://images.example/1"}
    (decision,) = spine(policy(fail={"unsupported": "closed"})).decide(event(text=None, image=picture))
    assert (decision.action, decision.moderated, decision.reasons) == (Action.BLOCK, False, ["fail:unsupported"])


def test_who_is_audited_depends_on_the_place_alone() -> None:
    """A replay audits the same events, and about the share that the policy asks for."""
    made = spine(policy(audit={"rate": 0.25}))
    slice_ = records(event() for _ in range(2000))
    first, again = made.run(slice_), made.run(slice_, now=NOW + 5)
    assert first.verdicts.audited.tolist() == again.verdicts.audited.tolist()
    assert 0.2 < first.verdicts.audited.mean() < 0.3
    assert made.run(slice_, partition=1).verdicts.audited.tolist() != first.verdicts.audited.tolist()


def test_a_new_policy_is_a_new_pipeline() -> None:
    """Replacing the policy of a pipeline changes what is decided from then on, and the digest that is written."""
    made, strict = spine(), spine(policy(harms=dict.fromkeys(HARMS, EVERYTHING))).pipeline.policy
    changed = replace(made, pipeline=replace(made.pipeline, policy=strict))
    (before,), (after,) = made.decide(event()), changed.decide(event())
    assert (before.action, after.action) == (Action.ALLOW, Action.LABEL)
    assert (before.policy, after.policy) == (made.pipeline.policy.digest, strict.digest)


def test_probabilities_are_calibrated() -> None:
    """What is selected on and written is the calibrated probability, not the model's own."""
    moderated = spine().run(records([event(text="0,2")]))
    assert moderated.probabilities[0] == pytest.approx([0.5, 1 / (1 + np.exp(-2))])


def test_a_rejected_record_says_why() -> None:
    """A record that is no event keeps its position and a reason of the closed list."""
    moderated = spine().run(records([event(), b"{", None]))
    assert [(r.position, r.reason) for r in moderated.rejected] == [
        (1, RejectReason.DECODE_ERROR),
        (2, RejectReason.TOMBSTONE),
    ]
