"""Why a decision was made, in a few words: the harm or the fail rule that called for the action, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from stream import bundle as bundles
from stream.events import HarmDecision
from stream.policy import compile_policy
from stream.settings import Settings

__all__ = ["Told", "actions_of_harms", "asked_because", "because"]

FAILED = {
    "fail:scorer_error": "the model failed",
    "fail:unsupported": "has an image, not read",
    "fail:truncated": "too long to read",
    "fail:expired": "too old",
}
AUDIT = "a sample of the rest"


class Told(msgspec.Struct):
    """What is shown of a decision record."""

    decision_id: str
    content_id: str
    action: str
    reasons: list[str]
    harms: dict[str, HarmDecision]
    moderated: bool
    surface: str
    created_at: datetime
    decided_at: datetime
    locale: str | None = None


def actions_of_harms(settings: Settings) -> dict[str, str]:
    """What the policy does with content that is harmful, by harm; that is not part of a decision record."""
    policy = compile_policy(settings.policy, bundles.load(settings.bundle).calibration.harms)
    return {harm: policy.actions[action] for harm, action in zip(policy.harms, policy.harm_action[0], strict=True)}


def because(decision: Told, actions: Mapping[str, str]) -> str:
    """What called for the action: a harm found where the policy answers it so, a fail rule, or the nearest miss."""
    harmful = _with(decision, "harmful")
    callers = {name: harm for name, harm in harmful.items() if actions.get(name) == decision.action}
    failed = [FAILED[reason] for reason in decision.reasons if reason in FAILED]
    if failed and not callers:
        return failed[0]
    chosen = callers or _with(decision, "abstain") or harmful or decision.harms
    name, harm = max(chosen.items(), key=lambda pair: _nearness(pair[1]))
    return f"{name} {_in_words(harm)}"


def asked_because(decision: Told, why: str, actions: Mapping[str, str]) -> str:
    """Why a person is asked about it; `why` is the review record's own word."""
    return AUDIT if why == "audit_sample" else because(decision, actions)


def _with(decision: Told, selection: str) -> dict[str, HarmDecision]:
    return {name: harm for name, harm in decision.harms.items() if harm.selection == selection}


def _nearness(harm: HarmDecision) -> float:
    """How near the probability is to the threshold at which something is done, or how far above."""
    return harm.probability / harm.act_at


def _in_words(harm: HarmDecision) -> str:
    match harm.selection:
        case "harmful":
            return f"{harm.probability:.3f} ≥ {harm.act_at:.3f}"
        case "harmless":
            return f"{harm.probability:.3f} < {harm.allow_below:.3f}"
        case _:
            return f"{harm.allow_below:.3f} ≤ {harm.probability:.3f} < {harm.act_at:.3f}"
