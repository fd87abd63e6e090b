"""Why one decision was made, in sentences that its record and its policy bear out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from stream.errors import PolicyError
from stream.events import Decision, HarmDecision
from stream.policy.explain import explain, explain_rules
from stream.yamlfile import Document, load

POLICY = b"""\
schema_version: 1
name: house
version: "7"
harms:
  hate: {action: block, miss_rate: 0.05, false_block_rate: 0.01}
  violence: {action: label, abstain: restrict, allow_below: 0.2, act_at: 0.9}
  sexual: {action: label, allow_below: 0.2, act_at: 0.9}
fail: {truncated: closed}
overlays:
  - surface: chat
    harms: {hate: {action: restrict}}
"""


def document() -> Document:
    """The policy as read from a file named policy.yaml."""
    return load(POLICY, what="policy", name="policy.yaml")


BLOCKED = Decision(
    decision_id="content.events:3:14",
    content_id="c-1",
    action="block",
    reasons=["hate:harmful", "violence:abstain"],
    harms={
        "hate": HarmDecision(0.97, "harmful", 0.91, 0.1),
        "violence": HarmDecision(0.5, "abstain", 0.9, 0.2),
        "sexual": HarmDecision(0.01, "harmless", 0.9, 0.2),
    },
    moderated=True,
    bundle="sha256:b",
    policy=document().digest,
    calibration="sha256:c",
    input_digest="sha256:i",
    created_at=datetime(2026, 11, 20, tzinfo=UTC),
    decided_at="2026-11-20T10:00:00.000Z",
    review_propensity=0.01,
    groups={"religion": ["jewish"]},
    role="post",
    surface="feed",
    locale="de-AT",
    provider="cpu",
)


def test_a_decision_explains_itself() -> None:
    """Action, findings with their numbers, what follows, who will look, and what made it, from the record alone."""
    assert explain(BLOCKED) == [
        "content.events:3:14: block for content c-1 (post on surface feed, locale de-AT).",
        "hate: harmful, as its probability 0.9700 reaches 0.9100.",
        "violence: no answer, as its probability 0.5000 is neither below 0.2000 nor at 0.9000 or above.",
        "Harmless: sexual 0.0100 (below 0.2000).",
        "The most severe action that any of this calls for is block.",
        "Of decisions like it, a share of 0.01 is reviewed as an audit.",
        f"Model sha256:b on cpu, calibration sha256:c, policy {document().digest}; decided 2026-11-20T10:00:00.000Z.",
    ]


def test_an_allowed_decision_says_that_nothing_speaks_against_it() -> None:
    """Where every harm is below its threshold, that is what is said."""
    harms = {"hate": HarmDecision(0.02, "harmless", 0.9, 0.1)}
    lines = explain(msgspec.structs.replace(BLOCKED, action="allow", reasons=[], harms=harms, review_propensity=0.0))
    assert "Every harm is below its threshold, so nothing speaks against allow." in lines
    assert "Decisions like it are not reviewed." in lines


def test_a_fail_rule_is_named() -> None:
    """Where a fail rule decided, the condition is explained and the content is said to be unmoderated."""
    lines = explain(
        msgspec.structs.replace(
            BLOCKED, action="review", reasons=["fail:scorer_error"], harms={}, moderated=False, locale=None
        )
    )
    assert lines[0] == "content.events:3:14: review for content c-1 (post on surface feed, locale not given)."
    assert lines[1:5] == [
        "The model gave no probabilities.",
        "scorer_error: the model failed on this event.",
        "A fail rule decided, not what the model found: review. The content counts as unmoderated.",
        "It was sent to people for review.",
    ]


def test_harms_that_are_still_encoded_are_read() -> None:
    """A decision whose harms are raw JSON is explained like one whose harms are values."""
    raw = msgspec.Raw(msgspec.json.encode(BLOCKED.harms))
    assert explain(msgspec.structs.replace(BLOCKED, harms=raw)) == explain(BLOCKED)


def test_groups_are_not_part_of_an_explanation() -> None:
    """Group attributes do not decide, so they do not explain."""
    assert "jewish" not in "\n".join(explain(BLOCKED) + explain_rules(BLOCKED, document()))


def test_the_policy_shows_the_lines_that_led_to_it() -> None:
    """Given the policy that made a decision, each rule it called on is quoted with its line."""
    assert explain_rules(BLOCKED, document()) == [
        (
            "policy.yaml is the policy that made it: house, version 7, rule set default; "
            "from least to most severe, allow, label, review, restrict, block."
        ),
        "policy.yaml:5: hate is harmful where at most 0.01 of harmless content is acted on, from 0.9100.",
        "policy.yaml:5: what is harmful gets block.",
        "policy.yaml:6: violence is harmful where the probability reaches 0.9.",
        "policy.yaml:6: violence is harmless where the probability is below 0.2.",
        "policy.yaml:6: what is neither gets restrict.",
    ]


def test_overlays_and_fail_rules_are_shown_where_they_apply() -> None:
    """The rules are those of the decision's surface, and a fail rule that the policy gives is quoted."""
    harms = {"hate": HarmDecision(0.97, "harmful", 0.91, 0.1)}
    decision = msgspec.structs.replace(
        BLOCKED, surface="chat", harms=harms, reasons=["hate:harmful", "fail:truncated", "fail:expired"]
    )
    assert explain_rules(decision, document())[2:] == [
        "policy.yaml:11: what is harmful gets restrict.",
        "policy.yaml:8: truncated: closed.",
    ]


def test_a_miss_rate_is_explained_where_there_was_no_answer() -> None:
    """An abstention quotes the risk of its lower threshold; a harm that the policy does not know is passed over."""
    harms = {
        "hate": HarmDecision(0.3, "abstain", 0.91, 0.1),
        "other": HarmDecision(0.3, "abstain", 0.91, 0.1),
    }
    assert explain_rules(msgspec.structs.replace(BLOCKED, harms=harms), document())[2:] == [
        "policy.yaml:5: hate is harmless where at most 0.05 of harmful content is missed, below 0.1000."
    ]


def test_a_risk_kept_within_a_role_says_so() -> None:
    """Where the policy keeps its risks within roles, the rule is quoted with the decision's own role."""
    content = POLICY + b"risks_within: role\n"
    within = load(content, what="policy", name="policy.yaml")
    decision = msgspec.structs.replace(BLOCKED, role="output", policy=within.digest)
    assert explain_rules(decision, within)[:2] == [
        (
            "policy.yaml is the policy that made it: house, version 7, rule set role=output; "
            "from least to most severe, allow, label, review, restrict, block."
        ),
        (
            "policy.yaml:5: hate is harmful where at most 0.01 of harmless content is acted on, from 0.9100, "
            "within role output if that has labels enough."
        ),
    ]
    assert not any("role" in line for line in explain_rules(decision, within)[2:])


def test_another_policy_does_not_explain_it(tmp_path: Path) -> None:
    """A policy with another digest is refused, naming both: its lines did not lead to the decision."""
    path = tmp_path / "other.yaml"
    path.write_bytes(POLICY + b"\n")
    other = load(path, what="policy")
    with pytest.raises(PolicyError, match=f"other.yaml has digest {other.digest}, but policy {BLOCKED.policy} made"):
        explain_rules(BLOCKED, other)
