"""Rules by role: an overlay's third condition, and risks that are kept within each role that has labels enough."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.bundle import HarmCalibration
from stream.policy import CompiledPolicy
from stream.policy.compiled import Risk
from stream.uncertainty.risk import NotEnoughLabels, act_at, allow_below
from tests.policies import RULES, compiled, counted

ROLES = ("prompt", "output", "post")
RISKS = RULES.replace("act_at: 0.8, allow_below: 0.2", "miss_rate: 0.1, false_block_rate: 0.02")
WITHIN_ROLES = f"{RISKS}risks_within: role\n"


def ruleset(policy: CompiledPolicy, role: str, surface: str = "feed", locale: str | None = None) -> int:
    """The rule set of one event."""
    (row,) = policy.resolve([surface], [role], [locale]).tolist()
    return int(row)


def evenly(n: int, low: float, high: float) -> NDArray[np.float64]:
    """So many probabilities, evenly spread."""
    return np.linspace(low, high, n)


def uneven() -> HarmCalibration:
    """Harm scores high in prompts and low in outputs; harmless prompts are few, and so are harmful posts."""
    return counted(
        {
            "prompt": (evenly(300, 0.5, 0.9), evenly(20, 0.3, 0.6)),
            "output": (evenly(100, 0.1, 0.4), evenly(400, 0.0, 0.2)),
            "post": (evenly(5, 0.3, 0.9), evenly(900, 0.0, 0.95)),
        }
    )


# --- Overlays ---------------------------------------------------------------------------------------------------------

OVERLAYS = (
    RULES
    + """\
overlays:
  - role: prompt
    surface: chat
    locale: de
    harms: {hate: {act_at: 0.31}}
  - role: prompt
    surface: chat
    harms: {hate: {act_at: 0.32}}
  - locale: de
    surface: chat
    harms: {hate: {act_at: 0.33}}
  - surface: chat
    harms: {hate: {act_at: 0.34}}
  - role: [prompt, output]
    locale: de
    harms: {hate: {act_at: 0.35}}
  - role: [prompt, output]
    harms: {hate: {act_at: 0.36}}
  - locale: de
    harms: {hate: {act_at: 0.37}}
"""
)


@pytest.mark.parametrize(
    ("surface", "role", "locale", "name", "act_at"),
    [
        ("chat", "prompt", "de-AT", "surface=chat,role=prompt,locale=de", 0.31),
        ("chat", "prompt", "en", "surface=chat,role=prompt", 0.32),
        ("chat", "output", "de", "surface=chat,role=output,locale=de", 0.33),
        ("chat", "post", "de", "surface=chat,locale=de", 0.33),
        ("chat", "output", None, "surface=chat,role=output", 0.34),
        ("chat", "post", None, "surface=chat", 0.34),
        ("feed", "prompt", "de", "role=prompt,locale=de", 0.35),
        ("feed", "output", None, "role=output", 0.36),
        ("feed", "post", "de", "locale=de", 0.37),
        ("feed", "post", None, "default", 0.8),
        ("feed", "no role at all", None, "default", 0.8),
    ],
)
def test_a_surface_outranks_a_role_and_a_role_a_locale(
    surface: str, role: str, locale: str | None, name: str, act_at: float
) -> None:
    """Overlays apply where all their conditions hold, and the more specific replaces the less."""
    policy = compiled(OVERLAYS)
    row = ruleset(policy, role, surface, locale)
    assert (policy.rulesets[row], policy.act_at[row, 0]) == (name, act_at)


def test_roles_that_nothing_tells_apart_share_their_rules() -> None:
    """An overlay for a role on one surface makes no rule set for that role elsewhere."""
    policy = compiled(f"{RULES}overlays:\n  - {{surface: chat, role: post, fail: {{expired: open}}}}\n")
    assert policy.rulesets == ("default", "surface=chat,role=post")
    assert policy.roles == (None, "post")


def test_a_risk_stated_for_a_role_is_kept_within_it() -> None:
    """An overlay's own risk is taken on its role's items, what it leaves as it is on the items of all roles."""
    items = uneven()
    policy = compiled(f"{RISKS}overlays:\n  - {{role: output, harms: {{hate: {{miss_rate: 0.05}}}}}}\n", hate=items)
    row = ruleset(policy, "output")
    assert policy.allow_below[row, 0] == allow_below(np.array(items.roles["output"].harmful), miss_rate=0.05)
    assert policy.act_at[row, 0] == act_at(np.array(items.harmless), false_block_rate=0.02)
    assert policy.basis[row][0].miss == Risk(0.05, n=100, role="output")
    assert policy.basis[row][0].false_block == Risk(0.02, n=1320)


# --- Risks within roles -----------------------------------------------------------------------------------------------


def test_every_role_has_thresholds_from_its_own_items() -> None:
    """With `risks_within: role`, what is stated once is derived for each role from what that role's items score."""
    items = uneven()
    policy = compiled(WITHIN_ROLES, hate=items)
    prompt, output = ruleset(policy, "prompt"), ruleset(policy, "output")
    assert policy.allow_below[prompt, 0] == allow_below(np.array(items.roles["prompt"].harmful), miss_rate=0.1)
    assert policy.allow_below[output, 0] == allow_below(np.array(items.roles["output"].harmful), miss_rate=0.1)
    assert policy.act_at[output, 0] == act_at(np.array(items.roles["output"].harmless), false_block_rate=0.02)
    assert policy.basis[output][0].miss == Risk(0.1, n=100, role="output")


def test_a_role_with_too_few_labels_has_the_thresholds_of_all() -> None:
    """Where a role cannot keep a risk by its own items, those of all stand in, and it is said for want of what."""
    items = uneven()
    policy = compiled(WITHIN_ROLES, hate=items)
    post, prompt = ruleset(policy, "post"), ruleset(policy, "prompt")
    assert policy.allow_below[post, 0] == allow_below(np.array(items.harmful), miss_rate=0.1)
    assert policy.basis[post][0].miss == Risk(0.1, n=405, lacking=NotEnoughLabels(5, 50))
    assert policy.basis[post][0].false_block == Risk(0.02, n=900, role="post")
    assert policy.act_at[prompt, 0] == act_at(np.array(items.harmless), false_block_rate=0.02)
    assert policy.basis[prompt][0].false_block == Risk(0.02, n=1320, lacking=NotEnoughLabels(20, 50))


@pytest.mark.parametrize(
    ("rate", "n", "is_its_own"), [(0.25, 49, False), (0.25, 50, True), (0.01, 98, False), (0.01, 99, True)]
)
def test_labels_enough_are_fifty_and_those_the_risk_needs(rate: float, n: int, is_its_own: bool) -> None:
    """A role has thresholds of its own from 50 items on, or from where its rate tolerates one of them."""
    items = counted({"prompt": (evenly(n, 0.5, 0.6), []), "post": (evenly(900, 0.1, 0.2), [0.95] * 900)})
    policy = compiled(WITHIN_ROLES.replace("miss_rate: 0.1", f"miss_rate: {rate}"), hate=items)
    risk = policy.basis[ruleset(policy, "prompt")][0].miss
    assert risk is not None
    assert (risk.role == "prompt", risk.lacking is None) == (is_its_own, is_its_own)
    assert (policy.allow_below[ruleset(policy, "prompt"), 0] >= 0.49) == is_its_own


def test_a_bundle_without_roles_is_as_before() -> None:
    """Any bundle will do: where nobody noted roles, every role has the thresholds of all."""
    whole, within = compiled(RISKS), compiled(WITHIN_ROLES)
    for role in ROLES:
        row = ruleset(within, role)
        assert within.act_at[row].tolist() == whole.act_at[0].tolist()
        assert within.allow_below[row].tolist() == whole.allow_below[0].tolist()
        assert within.basis[row][0].miss == Risk(0.1, n=200, lacking=NotEnoughLabels(0, 50))


def test_a_threshold_that_is_given_is_that_of_every_role() -> None:
    """Probabilities are no risks: within roles they stay what they are."""
    policy = compiled(f"{RULES}risks_within: role\n", hate=uneven())
    assert np.unique(policy.act_at, axis=0).tolist() == [[0.8, 0.9]]
    assert np.unique(policy.allow_below, axis=0).tolist() == [[0.2, 0.1]]
    assert policy.basis[ruleset(policy, "post")][0].miss is None


def test_what_no_event_can_have_is_known() -> None:
    """The rule sets for other roles are out of reach where every role has its own; they are there for totality."""
    every, one = compiled(WITHIN_ROLES), compiled(f"{RULES}overlays:\n  - {{role: post, fail: {{expired: open}}}}\n")
    assert [every.rulesets[row] for row in sorted(every.index.reachable)] == [f"role={role}" for role in ROLES]
    assert every.rulesets[ruleset(every, "no role at all")] == "default"
    assert one.index.reachable == {0, 1}


@given(
    st.lists(st.sampled_from(["chat", "mail", "x"]), max_size=20),
    st.sampled_from(["", "risks_within: role\n", "risks_within: all\n"]),
)
def test_many_events_resolve_like_each_alone(surfaces: list[str], switch: str) -> None:
    """The rule sets of a batch are those of its events one by one, whichever columns the policy looks at."""
    policy = compiled(OVERLAYS + switch)
    roles = [ROLES[i % 3] for i in range(len(surfaces))]
    locales = [None if i % 2 else "de" for i in range(len(surfaces))]
    assert policy.resolve(surfaces, roles, locales).tolist() == [
        ruleset(policy, role, surface, locale) for surface, role, locale in zip(surfaces, roles, locales, strict=True)
    ]


# --- Without roles ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_a_policy_without_roles_decides_as_if_there_were_none(seed: int) -> None:
    """Whatever a bundle knows about roles, a policy that names none has the same tables, bit for bit."""
    random = np.random.default_rng(seed)
    items = counted({role: (random.beta(4, 2, 150), random.beta(2, 4, 150)) for role in ROLES})
    unaware = HarmCalibration(1, 0, 450, 450, 0, 0, items.harmful, items.harmless)
    text = f"{RISKS}overlays:\n  - {{surface: chat, locale: de, harms: {{hate: {{miss_rate: 0.2}}}}}}\n"
    one, other = compiled(text, hate=items), compiled(text, hate=unaware)
    for name in (field.name for field in fields(CompiledPolicy)):
        left, right = getattr(one, name), getattr(other, name)
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right
    assert len({ruleset(one, role, "chat", "de") for role in ROLES}) == 1


def test_risks_within_all_is_what_is_not_said() -> None:
    """The default, written out, changes no rule set and no threshold."""
    silent, said = compiled(OVERLAYS), compiled(f"{OVERLAYS}risks_within: all\n")
    assert (silent.rulesets, silent.index) == (said.rulesets, said.index)
    assert np.array_equal(silent.act_at, said.act_at)
