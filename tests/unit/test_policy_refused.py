"""What is wrong with a policy file: every problem at once, each with its line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.bundle import HarmCalibration
from stream.errors import PolicyError
from stream.policy import compile_policy
from stream.policy.compile import MAX_COMBINATIONS
from tests.policies import HARMS, HEAD, RULES, measured


def problems(text: str, *, head: str = HEAD, **calibration: HarmCalibration) -> list[str]:
    """What is wrong with a policy for a bundle with two harms."""
    with pytest.raises(PolicyError) as caught:
        compile_policy((head + text).encode(), dict.fromkeys(HARMS, measured()) | calibration)
    return str(caught.value).splitlines()


def test_all_problems_are_reported_in_one_go() -> None:
    """Values that cannot be, names that are unknown, harms left out and risks out of reach are one report, by line."""
    assert problems(
        """\
severity: [allow, block]
harms:
  hate: {action: blok, act_at: 1.5, allow_below: 0.2}
  violance: {action: label, miss_rate: 0.5, false_block_rate: 0.5}
overlays:
  - surface: chat
    harms:
      self_harm: {action: block}
max_age_s: -1
audits: {rate: 0.1}
"""
    ) == [
        (
            "policy:4: severity: must list each of allow, label, restrict, block, review once, `allow` first: "
            "it is what nothing leads to"
        ),
        "policy:5: harms: the bundle scores violence, so it needs a rule; `action: allow, abstain: allow` ignores it",
        "policy:6: harms.hate.act_at: should be less than or equal to 1",
        "policy:6: harms.hate.action: must be one of allow, label, restrict, block, review; did you mean `block`?",
        "policy:7: harms.violance: the bundle has no such harm, it has hate, violence; did you mean `violence`?",
        "policy:11: overlays[0].harms.self_harm: the bundle has no such harm, it has hate, violence",
        "policy:12: max_age_s: should be greater than 0",
        "policy:13: audits: there is no field of this name here; did you mean `audit`?",
    ]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("{act_at: 0.8, allow_below: 0.2}", "harms.hate: needs a field `action`"),
        ("{action: block, act_at: 0.8}", "harms.hate: needs `miss_rate`, the risk to take, or `allow_below`, a proba"),
        ("{action: block, miss_rate: 0.5}", "harms.hate: needs `false_block_rate`, the risk to take, or `act_at`, a p"),
        (
            "{action: block, act_at: 0.8, false_block_rate: 0.1, miss_rate: 0.1}",
            "harms.hate: give either `act_at` or `false_block_rate`, not both",
        ),
        ("{action: block, act_at: 0.8, allow_below: }", "harms.hate.allow_below: has no value; fill it in or remove"),
        ("{action: block, act_at: yes, allow_below: 0}", "harms.hate.act_at: should be a valid number"),
        ("{action: block, act_at: true, allow_below: 0}", "harms.hate.act_at: should be a valid number"),
        ("{action: block, act_at: '0.8', allow_below: 0}", "harms.hate.act_at: should be a valid number"),
        ("{action: block, act_at: 0.8, miss_rate: 0}", "harms.hate.miss_rate: should be greater than 0"),
        ("{action: block, act_at: 0.8, miss_rate: 1}", "harms.hate.miss_rate: should be less than 1"),
        (
            "{action: block, act_at: 0.8, allow_below: 0.9}",
            "harms.hate.allow_below: 0.9 is above `act_at` 0.8 on line 5",
        ),
        ("block", "harms.hate: must be fields and values, `name: value`"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule: str, problem: str) -> None:
    """A harm's rule needs an action and two thresholds, each given one way, in order."""
    found = problems(RULES.replace("{action: block, act_at: 0.8, allow_below: 0.2}", rule))
    assert len(found) == 1
    assert found[0].startswith(f"policy:5: {problem}")


@pytest.mark.parametrize(
    ("overlay", "problem"),
    [
        ("{harms: {hate: {act_at: 1}}}", "overlays[0]: needs `surface`, `role` or `locale`, or several: where it"),
        ("{surface: chat}", "overlays[0]: needs `harms`, `fail` or both: what is different there"),
        ("{surface: [], fail: {expired: open}}", "overlays[0].surface: Value should have at least 1 item"),
        ("{surface: 3, fail: {expired: open}}", "overlays[0].surface: should be a valid string; quote it"),
        (
            "{locale: german, fail: {expired: openly}}",
            "overlays[0].fail.expired: must be one of open, closed, review; ",
        ),
        (
            "{role: prompts, fail: {expired: open}}",
            "overlays[0].role: must be one of prompt, output, post; did you mean `prompt`?",
        ),
        ("{role: [], fail: {expired: open}}", "overlays[0].role: Value should have at least 1 item"),
        ("{locale: '*', fail: {expired: open}}", "overlays[0].locale: must be a language tag, such as `de` or `de-AT`"),
        ("{locale: [de, 5], fail: {expired: open}}", "overlays[0].locale[1]: should be a valid string; quote it"),
        (
            "{surface: a, harms: {hate: {allow_below: 0.9}}}",
            "overlays[0].harms.hate.allow_below: 0.9 is above `act_at`",
        ),
        ("{surface: a, harms: {hate: {act_at: 0.1}}}", "harms.hate.allow_below: 0.2 is above `act_at` 0.1 on line 8"),
    ],
)
def test_an_overlay_that_cannot_be_is_refused(overlay: str, problem: str) -> None:
    """An overlay says where it applies and what is different there, and leaves thresholds in order."""
    found = problems(f"{RULES}overlays:\n  - {overlay}\n")
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ('schema_version: 2\nname: n\nversion: "1"\n', "1: schema_version: this release reads schema version 1, not 2"),
        ('schema_version: "1"\nname: n\nversion: "1"\n', "1: schema_version: should be a valid integer"),
        ("schema_version: 1\nname: n\nversion: 1.1\n", "3: version: should be a valid string; quote it"),
        ('schema_version: 1\nversion: "1"\n', "1: the file: needs a field `name`"),
    ],
)
def test_a_head_that_cannot_be_is_refused(head: str, problem: str) -> None:
    """A policy has a known schema version, a name and a version that is text."""
    assert problems(RULES, head=head) == [f"policy:{problem}"]


def test_what_risks_are_kept_within_is_one_of_two() -> None:
    """Risks are kept over all roles or within each; anything else is refused with what there is."""
    assert problems(f"{RULES}risks_within: roles\n") == [
        "policy:7: risks_within: must be one of all, role; did you mean `role`?"
    ]


def test_a_policy_without_harms_is_refused() -> None:
    """Harms left out, empty or of another shape leave nothing to check further."""
    assert problems("audit: {rate: 0.1}\n") == ["policy:1: the file: needs a field `harms`"]
    assert problems("harms: {}\nmax_age_s: 0\n") == [
        "policy:4: harms: Dictionary should have at least 1 item after validation, not 0",
        "policy:5: max_age_s: should be greater than 0",
    ]
    assert problems("harms: [hate]\n") == ["policy:4: harms: must be fields and values, `name: value`"]


def test_a_broken_overlay_does_not_hide_its_own_fields() -> None:
    """A problem of an item and one of a field inside it are both reported."""
    text = f"{RULES}overlays:\n  - {{surface: chat, harms: {{hate: {{act_at: 2}}}}, x: 1}}\n  - {{surface: mail}}\n"
    assert [line.split(": ")[1] for line in problems(text)] == [
        "overlays[0].harms.hate.act_at",
        "overlays[0].x",
        "overlays[1]",
    ]


def test_too_many_combinations_are_refused() -> None:
    """Surfaces times locales are bounded, as each combination is looked at on every reload."""
    surfaces, locales = ", ".join(f"s{i}" for i in range(70)), ", ".join(f"aa-{i}" for i in range(70))
    overlays = f"overlays:\n  - {{surface: [{surfaces}], locale: [{locales}], fail: {{expired: open}}}}\n"
    assert problems(RULES + overlays) == [
        (
            f"policy:7: overlays: name {71 * 71} combinations of surface, role and locale, "
            f"{MAX_COMBINATIONS} at most; name fewer"
        )
    ]


def test_roles_count_among_the_combinations() -> None:
    """Telling roles apart makes four times as many, each role and any other."""
    surfaces = f"  - {{surface: [{', '.join(f's{i}' for i in range(256))}], fail: {{expired: open}}}}\n"
    locales = f"  - {{locale: [{', '.join(f'aa-{i}' for i in range(7))}], fail: {{expired: open}}}}\n"
    text = f"{RULES}risks_within: role\noverlays:\n{surfaces}{locales}"
    assert f"name {257 * 4 * 8} combinations" in problems(text)[0]


def test_files_are_named_in_messages(tmp_path: Path) -> None:
    """Messages begin with the file's path, or with the name that was given for its bytes."""
    path = tmp_path / "policy.yaml"
    path.write_text("name: x", encoding="utf-8")
    with pytest.raises(PolicyError, match=f"^{path}:1: the file: needs a field"):
        compile_policy(path, {"hate": measured()})
    with pytest.raises(PolicyError, match=r"^elsewhere:1: the file: needs a field"):
        compile_policy(b"name: x", {"hate": measured()}, name="elsewhere")


def test_too_few_items_are_counted_out() -> None:
    """A risk that the calibration set is too small for names the harm, what it has and what it would need."""
    text = RULES.replace("act_at: 0.9, allow_below: 0.1", "false_block_rate: 0.01, miss_rate: 0.01")
    assert problems(text, violence=measured(n=12)) == [
        (
            "policy:6: harms.violence.false_block_rate: not enough data: violence has 12 harmless calibration items; "
            "a false-block rate of 0.01 needs at least 99. Raise the rate, or give `act_at` itself"
        ),
        (
            "policy:6: harms.violence.miss_rate: not enough data: violence has 12 harmful calibration items; "
            "a miss rate of 0.01 needs at least 99. Raise the rate, or give `allow_below` itself"
        ),
    ]


def test_a_harm_that_was_never_calibrated_has_no_risk_to_state() -> None:
    """Where nothing is behind the calibration, no rate would do: the way out is labels, or thresholds as numbers."""
    text = RULES.replace("act_at: 0.9, allow_below: 0.1", "act_at: 0.9, miss_rate: 0.5")
    (problem,) = problems(text, violence=measured(n=0))
    assert problem == (
        "policy:6: harms.violence.miss_rate: not enough data: violence has 0 harmful calibration items; a miss rate of "
        "0.5 needs at least 1. Calibrate the bundle on labelled texts, or give `allow_below` itself"
    )
