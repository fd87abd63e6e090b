"""Risks kept within roles: each role's thresholds are those of its items alone, and the promise holds for new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from stream.policy import CompiledPolicy
from tests.policies import compiled, counted

ROLES = ("prompt", "output", "post")
BINS = 1024

Floats = NDArray[np.float64]
Draw = Callable[[Generator, int], Floats]

HARMFUL: Mapping[str, Draw] = {
    "prompt": lambda random, n: random.beta(8, 2, n),
    "output": lambda random, n: random.beta(2, 2, n),
    "post": lambda random, n: random.beta(4, 2, n),
}
HARMLESS: Mapping[str, Draw] = {
    "prompt": lambda random, n: random.beta(2, 4, n),
    "output": lambda random, n: random.beta(1, 8, n),
    "post": lambda random, n: random.beta(1, 4, n),
}
# Nearly all prompts are harmful, nearly all posts harmless.
N_HARMFUL = {"prompt": 400, "output": 90, "post": 60}
N_HARMLESS = {"prompt": 60, "output": 120, "post": 400}


def by_risk(rule: str, items: Mapping[str, tuple[Floats, Floats]], *, within: str = "role") -> CompiledPolicy:
    """A policy with one stated risk, and the other threshold out of the way."""
    return compiled(
        f"harms: {{hate: {{action: block, {rule}}}, violence: {{action: block, act_at: 1, allow_below: 0}}}}\n"
        f"risks_within: {within}\n",
        hate=counted(items),
    )


def thresholds(policy: CompiledPolicy, column: Floats) -> dict[str, float]:
    """The value of one of the policy's columns for each role."""
    rows = policy.resolve(["feed"] * 3, ROLES, [None] * 3).tolist()
    return {role: float(column[row, 0]) for role, row in zip(ROLES, rows, strict=True)}


def draw(random: Generator) -> dict[str, tuple[Floats, Floats]]:
    """A calibration set."""
    return {role: (HARMFUL[role](random, N_HARMFUL[role]), HARMLESS[role](random, N_HARMLESS[role])) for role in ROLES}


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_within_each_role_the_miss_rate_is_kept(rate: float) -> None:
    """Over 400 calibration sets, the mean share of a role's new harmful items that is allowed is at most the rate."""
    random = np.random.default_rng(15)
    missed: dict[str, list[float]] = {role: [] for role in ROLES}
    for _ in range(400):
        policy = by_risk(f"miss_rate: {rate}, act_at: 1", draw(random))
        for role, threshold in thresholds(policy, policy.allow_below).items():
            missed[role].append(float((HARMFUL[role](random, 500) < threshold).mean()))
    for role, shares in missed.items():
        assert rate - 0.03 < np.mean(shares) <= rate + 3 * np.std(shares) / 20, role


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_within_each_role_the_false_block_rate_is_kept(rate: float) -> None:
    """Over 400 calibration sets, the mean share of a role's new harmless items acted on is at most the rate."""
    random = np.random.default_rng(16)
    acted: dict[str, list[float]] = {role: [] for role in ROLES}
    for _ in range(400):
        policy = by_risk(f"false_block_rate: {rate}, allow_below: 0", draw(random))
        for role, threshold in thresholds(policy, policy.act_at).items():
            acted[role].append(float((HARMLESS[role](random, 500) >= threshold).mean()))
    for role, shares in acted.items():
        assert rate - 0.03 < np.mean(shares) <= rate + 3 * np.std(shares) / 20, role


def test_over_all_roles_the_rate_is_not_kept_within_each() -> None:
    """What this is for: thresholds over all roles keep the rate over all, and miss several times it in one role."""
    random = np.random.default_rng(17)
    missed = []
    for _ in range(100):
        policy = by_risk("miss_rate: 0.1, act_at: 1", draw(random), within="all")
        threshold = thresholds(policy, policy.allow_below)["output"]
        missed.append(float((HARMFUL["output"](random, 500) < threshold).mean()))
    assert np.mean(missed) > 0.3


scores = st.lists(st.floats(0, 1, width=32), min_size=50, max_size=90)


@given(scores, scores, st.integers(50, 300), st.integers(20, 300))
def test_thresholds_are_those_of_filtering_by_role(
    prompts: list[float], posts: list[float], miss: int, block: int
) -> None:
    """By trying every edge on the items of one role: no threshold is beyond it, and none is needlessly careful."""
    miss_rate, block_rate = Fraction(miss, 1000), Fraction(block, 1000)
    items = {"prompt": (np.array(prompts), np.array(prompts)), "post": (np.array(posts), np.array(posts))}
    lower = by_risk(f"miss_rate: {float(miss_rate)}, act_at: 1", items)
    upper = by_risk(f"false_block_rate: {float(block_rate)}, allow_below: 0", items)
    for role, values in (("prompt", prompts), ("post", posts)):
        n = len(values)
        allowed = [Fraction(sum(value < edge / BINS for value in values) + 1, n + 1) for edge in range(BINS)]
        best = max(edge for edge, risk in enumerate(allowed) if risk <= miss_rate)
        assert thresholds(lower, lower.allow_below)[role] == best / BINS
        acted = [Fraction(sum(value >= edge / BINS for value in values) + 1, n + 1) for edge in range(BINS)]
        kept = [edge for edge, risk in enumerate(acted) if risk <= block_rate]
        assert thresholds(upper, upper.act_at)[role] == (min(kept) if kept else BINS + 1) / BINS
