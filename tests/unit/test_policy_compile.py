"""A policy file and a calibration become arrays: thresholds from risks, and a rule set for each overlay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.bundle import HarmCalibration
from stream.events import Action, FailCondition
from stream.policy import compile_policy
from stream.policy.compiled import Basis, Risk
from stream.policy.document import FailRules
from tests.policies import HARMS, HEAD, RULES, compiled, measured


def test_a_small_policy_has_careful_defaults() -> None:
    """What a policy does not say is reviewed, never audited, never expired, and severity has its usual order."""
    policy = compiled(RULES)
    assert policy.actions == ("allow", "label", "review", "restrict", "block")
    assert (policy.name, policy.version, policy.harms, policy.rulesets) == ("test", "1", HARMS, ("default",))
    assert policy.act_at.tolist() == [[0.8, 0.9]]
    assert policy.allow_below.tolist() == [[0.2, 0.1]]
    assert policy.harm_action.tolist() == [[4, 1]]
    assert policy.abstain_action.tolist() == [[2, 2]]
    assert policy.fail_action.tolist() == [[2] * len(FailCondition)]
    assert (policy.max_age_s, policy.audit_rate) == (None, 0.0)


def test_a_whole_policy_is_taken_as_it_says() -> None:
    """Severity, abstain actions, fail rules, age and audit rate are those of the file."""
    policy = compiled(
        RULES.replace("action: block", "action: block, abstain: restrict")
        + """\
severity: [allow, review, label, restrict, block]
fail: {scorer_error: closed, unsupported: review, truncated: open, expired: closed}
max_age_s: 60
audit: {rate: 0.25}
"""
    )
    assert policy.actions == ("allow", "review", "label", "restrict", "block")
    assert policy.harm_action.tolist() == [[4, 2]]
    assert policy.abstain_action.tolist() == [[3, 1]]
    assert policy.fail_action.tolist() == [[4, 1, 0, 4]]
    assert (policy.max_age_s, policy.audit_rate) == (60.0, 0.25)


def test_the_arrays_cannot_be_written() -> None:
    """A policy in force is what its digest says: nothing can change its numbers."""
    policy = compiled(RULES)
    for table in (policy.act_at, policy.allow_below, policy.harm_action, policy.abstain_action, policy.fail_action):
        with pytest.raises(ValueError, match="read-only"):
            table[0, 0] = 0


def test_harms_are_in_the_bundles_order() -> None:
    """Columns follow the bundle and not the file, as they meet the model's outputs."""
    text = (HEAD + RULES).encode()
    policy = compile_policy(text, {"violence": measured(), "hate": measured()})
    assert policy.harms == ("violence", "hate")
    assert policy.act_at.tolist() == [[0.9, 0.8]]


def test_a_condition_has_a_field() -> None:
    """The fail rules of a policy are named like the conditions."""
    assert list(FailRules.model_fields) == [condition.name.lower() for condition in FailCondition]


# --- Thresholds from risks -------------------------------------------------------------------------------------------


def test_risks_become_thresholds() -> None:
    """A risk is derived from the harm's own calibration items, and the policy remembers what it was."""
    policy = compiled(
        """\
harms:
  hate: {action: block, miss_rate: 0.05, false_block_rate: 0.01}
  violence: {action: label, miss_rate: 0.05, act_at: 0.9}
""",
        hate=measured(harmful=0.25, harmless=0.75),
    )
    assert policy.allow_below.tolist() == [[0.25, 0.75]]
    assert policy.act_at.tolist() == [[0.75 + 1 / 1024, 0.9]]
    miss = Risk(0.05, n=200)
    assert policy.basis == ((Basis(miss, Risk(0.01, n=200), single_cut=False), Basis(miss, None, single_cut=False)),)


@pytest.mark.parametrize(
    ("thresholds", "cut"),
    [
        ("miss_rate: 0.05, false_block_rate: 0.05", 0.25 + 1 / 1024),
        ("miss_rate: 0.05, act_at: 0.5", 0.5),
        ("allow_below: 0.5, false_block_rate: 0.05", 0.5),
    ],
)
def test_where_risks_leave_no_doubt_there_is_one_cut(thresholds: str, cut: float) -> None:
    """Crossing thresholds become the one that was given, or the lowest that keeps both risks, which misses least."""
    policy = compiled(RULES.replace("act_at: 0.8, allow_below: 0.2", thresholds))
    assert policy.allow_below[0, 0] == policy.act_at[0, 0] == cut
    assert policy.basis[0][0].single_cut


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.1, 0.3]), st.sampled_from([0.02, 0.1, 0.3]))
def test_both_risks_hold_on_the_calibration_items(seed: int, miss_rate: float, false_block_rate: float) -> None:
    """However well a model separates a harm, thresholds are in order and neither risk is exceeded."""
    random = np.random.default_rng(seed)
    harmful = np.bincount((random.beta(random.uniform(0.5, 9), 1, 300) * 1024).astype(int), minlength=1024)
    harmless = np.bincount((random.beta(1, random.uniform(0.5, 9), 300) * 1024).astype(int), minlength=1024)
    calibration = HarmCalibration(
        a=1, b=0, n_harmful=300, n_harmless=300, ece=0, ece_null=0,
        harmful=tuple(harmful.tolist()), harmless=tuple(harmless.tolist()),
    )  # fmt: skip
    rates = f"miss_rate: {miss_rate}, false_block_rate: {false_block_rate}"
    policy = compiled(RULES.replace("act_at: 0.8, allow_below: 0.2", rates), hate=calibration)
    lower, upper = policy.allow_below[0, 0], policy.act_at[0, 0]
    assert lower <= upper
    assert harmful[: math.floor(lower * 1024)].sum() <= miss_rate * 301 - 1 + 1e-9
    assert harmless[math.ceil(upper * 1024) :].sum() <= false_block_rate * 301 - 1 + 1e-9


# --- Overlays ---------------------------------------------------------------------------------------------------------

OVERLAYS = (
    RULES
    + """\
overlays:
  - surface: [chat, mail]
    locale: de
    harms: {hate: {act_at: 0.5}}
  - locale: [de, fr]
    harms: {hate: {act_at: 0.6, action: label}, violence: {abstain: block}}
  - surface: chat
    harms: {hate: {act_at: 0.7}}
    fail: {expired: open}
  - locale: de-AT
    harms: {hate: {act_at: 0.65}}
  - surface: chat
    fail: {expired: closed, truncated: open}
"""
)


@pytest.mark.parametrize(
    ("surface", "locale", "name", "act_at"),
    [
        ("default", None, "default", 0.8),
        ("default", "en-US", "default", 0.8),
        ("default", "den", "default", 0.8),
        ("default", "", "default", 0.8),
        ("default", "de", "locale=de|fr", 0.6),
        ("default", "fr-CA", "locale=de|fr", 0.6),
        ("default", "DE_ch", "locale=de|fr", 0.6),
        ("default", "de-AT", "locale=de-at", 0.65),
        ("default", "de-at-1996", "locale=de-at", 0.65),
        ("mail", "en", "default", 0.8),
        ("chat", "en", "surface=chat", 0.7),
        ("chat", None, "surface=chat", 0.7),
        ("chat", "fr", "surface=chat,locale=fr", 0.7),
        ("mail", "de", "surface=mail,locale=de", 0.5),
        ("chat", "de", "surface=chat,locale=de", 0.5),
        ("chat", "de-AT", "surface=chat,locale=de-at", 0.5),
    ],
)
def test_the_most_specific_overlay_wins(surface: str, locale: str | None, name: str, act_at: float) -> None:
    """A locale matches by whole subtags; a surface outranks a locale, both outrank either, longer locales shorter."""
    policy = compiled(OVERLAYS)
    (ruleset,) = policy.resolve([surface], ["post"], [locale])
    assert (policy.rulesets[ruleset], policy.act_at[ruleset, 0]) == (name, act_at)


def test_an_overlay_replaces_only_what_it_gives() -> None:
    """Parts of a rule that no overlay gives stay, and equals are laid over in the file's order."""
    policy = compiled(OVERLAYS)
    (chat, de) = policy.resolve(["chat", "other"], ["post"] * 2, [None, "de"])
    rank = policy.actions.index
    assert policy.allow_below[de].tolist() == [0.2, 0.1]
    assert policy.harm_action[de].tolist() == [rank(Action.LABEL), rank(Action.LABEL)]
    assert policy.abstain_action[de].tolist() == [rank(Action.REVIEW), rank(Action.BLOCK)]
    assert policy.fail_action[de].tolist() == [rank(Action.REVIEW)] * 4
    assert policy.fail_action[chat, FailCondition.EXPIRED] == rank(Action.BLOCK)
    assert policy.fail_action[chat, FailCondition.TRUNCATED] == rank(Action.ALLOW)


def test_a_risk_replaces_a_threshold_and_the_other_way_round() -> None:
    """An overlay may give a risk where the policy gives a threshold, and a threshold where it gives a risk."""
    policy = compiled(
        """\
harms:
  hate: {action: block, act_at: 0.9, miss_rate: 0.05}
  violence: {action: block, act_at: 0.9, miss_rate: 0.05}
overlays:
  - surface: chat
    harms: {hate: {false_block_rate: 0.05, allow_below: 0.1}}
"""
    )
    (chat,) = policy.resolve(["chat"], ["post"], [None])
    risk = Risk(0.05, n=200)
    assert policy.basis[chat] == (Basis(None, risk, single_cut=False), Basis(risk, None, single_cut=False))
    assert policy.act_at[chat].tolist() == [0.25 + 1 / 1024, 0.9]


def test_many_events_resolve_like_each_alone() -> None:
    """The rule sets of a batch are those of its events one by one, in order."""
    policy = compiled(OVERLAYS)
    surfaces = ["chat", "mail", "other"] * 8
    roles = ["post", "prompt"] * 12
    locales = [None, "de", "fr", "de-AT", "en", "xx"] * 4
    together = policy.resolve(surfaces, roles, locales)
    assert together.dtype == np.int64
    places = zip(surfaces, roles, locales, strict=True)
    assert together.tolist() == [policy.resolve([s], [r], [x])[0] for s, r, x in places]


def test_without_overlays_there_is_nothing_to_resolve() -> None:
    """A policy without overlays has one rule set for every event, and none for no events."""
    policy = compiled(RULES)
    assert policy.resolve(["chat", "x"], ["post"] * 2, [None, "de"]).tolist() == [0, 0]
    assert policy.resolve([], [], []).shape == (0,)


def test_a_thousand_surfaces_leave_nothing_behind() -> None:
    """Surfaces come from outside: names no overlay knows all resolve to the default, and nothing is kept of them."""
    policy = compiled(OVERLAYS)
    before = len(policy.index.rulesets)
    surfaces, roles, locales = ([f"{column}-{i}" for i in range(1000)] for column in "srx")
    assert not policy.resolve(surfaces, roles, locales).any()
    assert len(policy.index.rulesets) == before
