"""Why a decision was made, in a few words: the harm or the fail rule that called for the action, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from stream import bundle as bundles
from stream.events import HarmDecision
from stream.policy import compile_policy
from stream.settings import Settings

__all__ = ["Told", "Why", "actions_of_harms", "asked_because", "because"]

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


@dataclass(frozen=True, slots=True)
class Why:
    """What called for an action, in words, and how clearly: the probability as a multiple of the threshold to act."""

    about: str
    text: str
    clarity: float = 0.0


def actions_of_harms(settings: Settings) -> dict[str, str]:
    """What the policy does with content that is harmful, by harm; that is not part of a decision record."""
    policy = compile_policy(
        settings.policy, bundles.load(settings.bundle, bundles.trust_of(settings)).calibration.harms
    )
    return {harm: policy.actions[action] for harm, action in zip(policy.harms, policy.harm_action[0], strict=True)}


def because(decision: Told, actions: Mapping[str, str]) -> Why:
    """What called for the action: a harm found where the policy answers it so, a fail rule, or the nearest miss."""
    harmful = _with(decision, "harmful")
    callers = {name: harm for name, harm in harmful.items() if actions.get(name) == decision.action}
    failed = [FAILED[reason] for reason in decision.reasons if reason in FAILED]
    if failed and not callers:
        return Why(failed[0], failed[0])
    chosen = callers or _with(decision, "abstain") or harmful or decision.harms
    whys = [Why(name, f"{name} {_in_words(harm)}", harm.probability / harm.act_at) for name, harm in chosen.items()]
    return max(whys, key=lambda why: why.clarity)


def asked_because(decision: Told, why: str, actions: Mapping[str, str]) -> Why:
    """Why a person is asked about it; `why` is the review record's own word."""
    return Why(AUDIT, AUDIT) if why == "audit_sample" else because(decision, actions)


def _with(decision: Told, selection: str) -> dict[str, HarmDecision]:
    return {name: harm for name, harm in decision.harms.items() if harm.selection == selection}


def _in_words(harm: HarmDecision) -> str:
    match harm.selection:
        case "harmful":
            return f"{harm.probability:.3f} ≥ {harm.act_at:.3f}"
        case "harmless":
            return f"{harm.probability:.3f} < {harm.allow_below:.3f}"
        case _:
            return f"{harm.allow_below:.3f} ≤ {harm.probability:.3f} < {harm.act_at:.3f}"
