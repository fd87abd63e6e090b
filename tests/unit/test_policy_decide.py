"""The action of an event: the most severe that anything calls for, and nothing else."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.bundle import HarmCalibration
from stream.events import FailCondition, Selection
from stream.policy import CompiledPolicy, Verdicts, compile_policy, decide

HARMS = ("hate", "violence", "sexual")
ACTIONS = ("allow", "label", "review", "restrict", "block")
ALLOW, LABEL, REVIEW, RESTRICT, BLOCK = range(5)
NO_CALIBRATION = HarmCalibration(a=1, b=0, n_harmful=0, n_harmless=0, ece=0, ece_null=0, harmful=(), harmless=())

POLICY = """\
schema_version: 1
name: test
version: "1"
severity: [allow, label, review, restrict, block]
harms:
  hate: {action: block, act_at: 0.8, allow_below: 0.2}
  violence: {action: label, abstain: restrict, act_at: 0.8, allow_below: 0.2}
  sexual: {action: allow, abstain: allow, act_at: 0.8, allow_below: 0.2}
fail: {scorer_error: open, unsupported: review, truncated: closed, expired: open}
audit: {rate: 0.25}
overlays:
  - surface: strict
    harms: {hate: {abstain: block}, violence: {action: block}}
    fail: {scorer_error: closed}
"""


def compiled() -> CompiledPolicy:
    """Two rule sets of three harms, one of which leads to nothing."""
    return compile_policy(POLICY.encode(), dict.fromkeys(HARMS, NO_CALIBRATION))


def decided(
    *selections: Selection, conditions: tuple[FailCondition, ...] = (), scored: bool = True, sampling: float = 0.9
) -> tuple[str, bool]:
    """The action for one event under the default rules, and whether it counts as moderated."""
    policy = compiled()
    verdicts = decide(
        np.array([selections], np.int8),
        np.array([sum(1 << condition for condition in conditions)], np.uint8),
        np.zeros(1, np.int64),
        np.array([sampling]),
        policy,
        scored=np.array([scored]),
    )
    return policy.actions[verdicts.actions[0]], bool(verdicts.moderated[0])


OK, DOUBT, BAD = Selection.HARMLESS, Selection.ABSTAIN, Selection.HARMFUL
FAILED, UNSEEN, CUT, OLD = FailCondition


@pytest.mark.parametrize(
    ("selections", "action"),
    [
        ((OK, OK, OK), "allow"),
        ((OK, BAD, OK), "label"),
        ((DOUBT, OK, OK), "review"),
        ((DOUBT, BAD, OK), "review"),
        ((DOUBT, DOUBT, OK), "restrict"),
        ((BAD, DOUBT, OK), "block"),
        ((OK, OK, BAD), "allow"),
        ((OK, OK, DOUBT), "allow"),
    ],
)
def test_the_most_severe_action_is_taken(selections: tuple[Selection, ...], action: str) -> None:
    """Each harm calls for its action or its abstain action, and the most severe of them is taken."""
    assert decided(*selections) == (action, True)


@pytest.mark.parametrize(
    ("selections", "conditions", "expected"),
    [
        ((OK, OK, OK), (OLD,), ("allow", False)),
        ((OK, OK, OK), (UNSEEN,), ("review", False)),
        ((OK, BAD, OK), (UNSEEN,), ("review", False)),
        ((OK, DOUBT, OK), (UNSEEN,), ("restrict", True)),
        ((DOUBT, OK, OK), (UNSEEN,), ("review", False)),
        ((DOUBT, OK, OK), (OLD,), ("review", True)),
        ((BAD, OK, OK), (CUT,), ("block", True)),
        ((OK, BAD, OK), (CUT,), ("block", False)),
        ((OK, OK, BAD), (OLD,), ("allow", False)),
        ((OK, OK, OK), (OLD, UNSEEN, CUT), ("block", False)),
    ],
)
def test_a_fail_rule_decides_where_no_harm_is_more_severe(
    selections: tuple[Selection, ...], conditions: tuple[FailCondition, ...], expected: tuple[str, bool]
) -> None:
    """An event is unmoderated where a fail rule's action is taken, unless a harm that was found calls for the same."""
    assert decided(*selections, conditions=conditions) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((FAILED,), ("allow", False)),
        ((UNSEEN,), ("review", False)),
        ((FAILED, CUT), ("block", False)),
        ((), ("restrict", True)),
    ],
)
def test_what_was_not_scored_is_left_to_the_fail_rules(
    conditions: tuple[FailCondition, ...], expected: tuple[str, bool]
) -> None:
    """Abstaining for lack of a score calls for nothing where a condition says why, so failing open lets it pass."""
    assert decided(DOUBT, DOUBT, DOUBT, conditions=conditions, scored=False) == expected


@pytest.mark.parametrize(
    ("selections", "sampling", "audited", "propensity"),
    [((OK, OK, OK), 0.2, True, 0.25), ((OK, OK, OK), 0.25, False, 0.25), ((DOUBT, OK, OK), 0.2, False, 1.0)],
)
def test_what_is_not_reviewed_may_be_audited(
    selections: tuple[Selection, ...], sampling: float, audited: bool, propensity: float
) -> None:
    """Review is certain to be seen by a person; anything else is with the audit rate, where the draw is below it."""
    verdicts = decide(
        np.array([selections], np.int8), np.zeros(1, np.uint8), np.zeros(1, np.int64), np.array([sampling]), compiled(),
        scored=np.ones(1, np.bool_),
    )  # fmt: skip
    assert (verdicts.audited.tolist(), verdicts.review_propensity.tolist()) == ([audited], [propensity])


def test_audits_are_drawn_at_their_rate() -> None:
    """Over many uniform draws, the share audited is the policy's rate."""
    m = 20_000
    verdicts = decide(
        np.zeros((m, 3), np.int8), np.zeros(m, np.uint8), np.zeros(m, np.int64),
        np.random.default_rng(1).random(m), compiled(), scored=np.ones(m, np.bool_),
    )  # fmt: skip
    assert verdicts.audited.mean() == pytest.approx(0.25, abs=0.01)


event = st.tuples(
    st.lists(st.sampled_from(Selection), min_size=3, max_size=3),
    st.integers(0, 255),
    st.integers(0, 1),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
)
Event = tuple[list[Selection], int, int, float, bool]


def all_at_once(events: list[Event], policy: CompiledPolicy) -> Verdicts:
    """Decide a batch."""
    selections, conditions, rulesets, sampling, scored = zip(*events, strict=True) if events else ([],) * 5
    return decide(
        np.array(selections, np.int8).reshape(-1, 3), np.array(conditions, np.uint8), np.array(rulesets, np.int64),
        np.array(sampling, np.float64), policy, scored=np.array(scored, np.bool_),
    )  # fmt: skip


def one_by_one(event: Event, policy: CompiledPolicy) -> tuple[int, bool, bool, float]:
    """The contract in words: action, moderated, audited, propensity."""
    selections, conditions, ruleset, draw, scored = event
    failed = [condition for condition in FailCondition if conditions >> condition & 1]
    found = [policy.harm_action[ruleset, i] for i, s in enumerate(selections) if s == Selection.HARMFUL]
    undecided = [policy.abstain_action[ruleset, i] for i, s in enumerate(selections) if s == Selection.ABSTAIN]
    by_harms = max([0, *found, *([] if failed and not scored else undecided)])
    by_fail = max([0, *(policy.fail_action[ruleset, condition] for condition in failed)])
    action = max(by_harms, by_fail)
    tie = by_fail > 0 and max([0, *found]) == by_fail
    moderated = not (failed and by_fail >= by_harms and not tie)
    reviewed = policy.actions[action] == "review"
    return action, moderated, not reviewed and draw < policy.audit_rate, 1.0 if reviewed else policy.audit_rate


@given(st.lists(event, max_size=20))
def test_a_batch_is_decided_like_each_event_alone(events: list[Event]) -> None:
    """For any selections, conditions and rule sets, the arrays are what the contract says of every event."""
    policy = compiled()
    verdicts = all_at_once(events, policy)
    columns = (verdicts.actions, verdicts.moderated, verdicts.audited, verdicts.review_propensity)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == [one_by_one(e, policy) for e in events]
    assert [column.dtype.name for column in columns] == ["int8", "bool", "bool", "float64"]


@given(event, st.integers(0, 2))
def test_more_doubt_or_harm_is_never_treated_more_mildly(event: Event, harm: int) -> None:
    """Turning one harm from harmless to harmful never makes the action milder."""
    selections, conditions, ruleset, draw, scored = event
    mild, severe = list(selections), list(selections)
    mild[harm], severe[harm] = Selection.HARMLESS, Selection.HARMFUL
    events = [(either, conditions, ruleset, draw, scored) for either in (mild, severe)]
    actions = all_at_once(events, compiled()).actions
    assert actions[0] <= actions[1]


def test_deciding_cannot_see_a_group() -> None:
    """The arguments are selections, conditions, rule sets and a draw: nothing that says who or what it is about."""
    assert set(inspect.signature(decide).parameters) == {
        "selections", "conditions", "rulesets", "sampling", "policy", "scored",
    }  # fmt: skip
    assert inspect.signature(decide).parameters["selections"].annotation == "NDArray[np.int8]"
