"""Why one decision was made, in sentences, from its record alone; and what the policy that made it says, if given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from stream.errors import PolicyError
from stream.events import Action, Decision, FailCondition, HarmDecision
from stream.policy.document import parse
from stream.policy.overlay import Ruleset, Stated, lay_over
from stream.yamlfile import Document

__all__ = ["explain", "explain_rules"]

_CONDITIONS = {
    FailCondition.SCORER_ERROR: "the model failed on this event",
    FailCondition.UNSUPPORTED: "a part of the event is of a kind that the model cannot look at, or cannot be decoded",
    FailCondition.TRUNCATED: "the content is longer, larger or smaller than the model reads, and was not read whole",
    FailCondition.EXPIRED: "the event was older than the policy's `max_age_s`",
}


def explain(decision: Decision) -> list[str]:
    """Explain a decision, one sentence or two per line; what the record does not hold is not guessed at."""
    harms = _harms(decision)
    place = f"{decision.role} on surface {decision.surface}, locale {decision.locale or 'not given'}"
    made_by = f"Model {decision.bundle} on {decision.provider}, calibration {decision.calibration}"
    return [
        f"{decision.decision_id}: {decision.action} for content {decision.content_id} ({place}).",
        *_findings(harms),
        *(f"{condition.name.lower()}: {_CONDITIONS[condition]}." for condition in _failed(decision)),
        _conclusion(decision, harms),
        _review(decision),
        f"{made_by}, policy {decision.policy}; decided {decision.decided_at}.",
    ]


def explain_rules(decision: Decision, document: Document) -> list[str]:
    """Say which rules of the policy file led to a decision.

    Raises:
        PolicyError: the file is not the policy that made the decision.
    """
    if document.digest != decision.policy:
        raise PolicyError(
            f"{document.name} has digest {document.digest}, but policy {decision.policy} made this decision; "
            "look in the file's history for that one"
        )
    policy, _ = parse(document)
    rulesets, index = lay_over(policy)
    ruleset = rulesets[index.find(decision.surface, decision.role, decision.locale)]
    name = f"{document.name} is the policy that made it: {policy.name}, version {policy.version}"
    return [
        f"{name}, rule set {ruleset.name}; from least to most severe, {', '.join(policy.severity)}.",
        *(f"{document.name}:{document.line(stated.path)}: {text}." for stated, text in _rules(decision, ruleset)),
    ]


def _harms(decision: Decision) -> dict[str, HarmDecision]:
    if isinstance(decision.harms, msgspec.Raw):
        return msgspec.json.decode(decision.harms, type=dict[str, HarmDecision])
    return decision.harms


def _findings(harms: Mapping[str, HarmDecision]) -> Iterator[str]:
    """The harms that were found or left open, one by one, then the rest."""
    for name, harm in harms.items():
        if harm.selection == "harmful":
            yield f"{name}: harmful, as its probability {harm.probability:.4f} reaches {harm.act_at:.4f}."
        elif harm.selection == "abstain":
            yield (
                f"{name}: no answer, as its probability {harm.probability:.4f} is neither below "
                f"{harm.allow_below:.4f} nor at {harm.act_at:.4f} or above."
            )
    harmless = [
        f"{name} {harm.probability:.4f} (below {harm.allow_below:.4f})"
        for name, harm in harms.items()
        if harm.selection == "harmless"
    ]
    if harmless:
        yield f"Harmless: {', '.join(harmless)}."
    if not harms:
        yield "The model gave no probabilities."


def _failed(decision: Decision) -> list[FailCondition]:
    return [condition for condition in FailCondition if f"fail:{condition.name.lower()}" in decision.reasons]


def _conclusion(decision: Decision, harms: Mapping[str, HarmDecision]) -> str:
    if not decision.moderated:
        return f"A fail rule decided, not what the model found: {decision.action}. The content counts as unmoderated."
    if any(harm.selection != "harmless" for harm in harms.values()):
        return f"The most severe action that any of this calls for is {decision.action}."
    return f"Every harm is below its threshold, so nothing speaks against {decision.action}."


def _review(decision: Decision) -> str:
    if decision.action == Action.REVIEW:
        return "It was sent to people for review."
    if decision.review_propensity == 0:
        return "Decisions like it are not reviewed."
    return f"Of decisions like it, a share of {decision.review_propensity:g} is reviewed as an audit."


def _rules(decision: Decision, ruleset: Ruleset) -> Iterator[tuple[Stated, str]]:
    """The rules that what was found called on, each with what it says."""
    for name, harm in _harms(decision).items():
        rules = ruleset.harms.get(name)
        if rules is None or harm.selection == "harmless":
            continue
        yield rules["upper"], f"{name} is harmful where {_threshold(rules['upper'], harm.act_at, ruleset.role)}"
        if harm.selection == "harmful":
            yield rules["action"], f"what is harmful gets {rules['action'].value}"
        else:
            below = _threshold(rules["lower"], harm.allow_below, ruleset.role)
            yield rules["lower"], f"{name} is harmless where {below}"
            if "abstain" in rules:
                yield rules["abstain"], f"what is neither gets {rules['abstain'].value}"
    for condition in _failed(decision):
        stated = ruleset.fail.get(condition.name.lower())
        if stated is not None:
            yield stated, f"{condition.name.lower()}: {stated.value}"


def _threshold(stated: Stated, value: float, role: str | None) -> str:
    within = f", within role {role} if that has labels enough" if stated.by_role and role else ""
    match stated.field:
        case "act_at":
            return f"the probability reaches {stated.value}"
        case "allow_below":
            return f"the probability is below {stated.value}"
        case "false_block_rate":
            return f"at most {stated.value} of harmless content is acted on, from {value:.4f}{within}"
        case _:
            return f"at most {stated.value} of harmful content is missed, below {value:.4f}{within}"
