"""Selections and fail conditions in, one action per event out. Nothing about a person or a text can get in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.events import Action, FailCondition, Selection
from stream.policy.compiled import CompiledPolicy

__all__ = ["Verdicts", "decide"]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What is done with each of m events."""

    actions: NDArray[np.int8]
    """(m,) index into the policy's actions."""
    moderated: NDArray[np.bool_]
    """(m,) False where a fail rule decided and not what the model found."""
    audited: NDArray[np.bool_]
    """(m,) drawn for review although the action is another."""
    review_propensity: NDArray[np.float64]
    """(m,) the probability with which a person sees an event like this: 1 for review, else the audit rate."""


def decide(
    selections: NDArray[np.int8],
    conditions: NDArray[np.uint8],
    rulesets: NDArray[np.int64],
    sampling: NDArray[np.float64],
    policy: CompiledPolicy,
    *,
    scored: NDArray[np.bool_],
) -> Verdicts:
    """Take the most severe of the actions that the harms and the fail conditions of an event call for.

    `selections` is (m, h) values of `Selection`, `conditions` (m,) masks of `FailCondition` bits, `rulesets` (m,) from
    `CompiledPolicy.resolve`, `sampling` (m,) uniform in [0, 1), `scored` (m,) False where the model gave no logits.

    An event that was not scored abstains on every harm, but that is no finding: where a fail condition says why, its
    rule alone decides, or failing open could never let anything pass. Where none does, the harms' abstain actions hold.

    A fail rule has decided, and the event is not moderated, where its action is at least as severe as every harm's,
    unless a harm that was found calls for just that action, and for one more severe than allowing.
    """
    failed = np.unpackbits(conditions[:, None], axis=1, count=len(FailCondition), bitorder="little").view(np.int8)
    is_failed = failed.any(axis=1)
    is_finding = scored | ~is_failed
    found = (selections == Selection.HARMFUL) * policy.harm_action.take(rulesets, axis=0)
    undecided = (selections == Selection.ABSTAIN) * policy.abstain_action.take(rulesets, axis=0)
    by_found = _most_severe(found)
    by_harms = np.maximum(by_found, _most_severe(undecided) * is_finding)
    by_fail = _most_severe(failed * policy.fail_action.take(rulesets, axis=0))
    actions = np.maximum(by_harms, by_fail)
    found_the_same = (by_found == by_fail) & (by_found > 0)
    reviewed = actions == policy.actions.index(Action.REVIEW)
    return Verdicts(
        actions=actions,
        moderated=~is_failed | (by_fail < by_harms) | found_the_same,
        audited=~reviewed & (sampling < policy.audit_rate),
        review_propensity=np.where(reviewed, 1.0, policy.audit_rate),
    )


def _most_severe(actions: NDArray[np.int8]) -> NDArray[np.int8]:
    """The maximum of each row, allowing where rows are empty; (m, n) int8 in, (m,) int8 out."""
    # Along a short last axis numpy takes eight times as long as for the same numbers the other way round.
    most_severe: NDArray[np.int8] = np.ascontiguousarray(actions.T).max(axis=0, initial=0)
    return most_severe
