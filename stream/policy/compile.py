"""A policy file and the calibration of a bundle in, a `CompiledPolicy` out, or every problem there is, by line.

A threshold given as a risk is derived from the calibration histogram of its harm (`stream.uncertainty.risk`). Where the
model separates a harm so well that `allow_below` comes out above `act_at`, both risks hold at any one cut between the
two, and there is nothing to abstain on. The cut is then `act_at`, the lowest: it misses least, and acts on harmless
content no more than was stated. Only where `allow_below` was given directly is that kept and becomes the cut.

A threshold that is to keep a risk within a role is derived from that role's items. Where it has too few, the items of
all roles stand in for them: a policy has to work with any bundle, and what is known of all content is the next best
thing [S15]. `Risk` says where that is so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stream.bundle.calibration import HarmCalibration, RoleCalibration
from stream.events import Action, FailCondition
from stream.policy.compiled import Basis, CompiledPolicy, Risk
from stream.policy.document import FailRule, PolicyDocument, parse
from stream.policy.overlay import Ruleset, Stated, count_combinations, lay_over
from stream.uncertainty.risk import NotEnoughLabels, act_at, allow_below, items_needed_within
from stream.yamlfile import Document, FieldPath, Problem, did_you_mean, load

__all__ = ["compile_policy"]

# Every combination of a surface, a role and a locale is looked at, 0.1 ms each with a hundred overlays; 4096 is 32 each
# of surfaces and locales where roles are told apart, 64 where not.
MAX_COMBINATIONS = 4096

_Scalar = TypeVar("_Scalar", bound=np.generic)

_FAIL_ACTIONS = {FailRule.OPEN: Action.ALLOW, FailRule.CLOSED: Action.BLOCK, FailRule.REVIEW: Action.REVIEW}


def compile_policy(
    source: Path | bytes, calibration: Mapping[str, HarmCalibration], *, name: str | None = None
) -> CompiledPolicy:
    """Compile the policy in a file, or in the bytes of one, for a bundle with this calibration: harms in its order.

    `name` is what messages call the file, where it comes as bytes.

    Raises:
        PolicyError: a line `file:line: field: what is wrong` for every problem there is.
    """
    document = load(source, what="policy", name=name)
    policy, problems = parse(document)
    problems += [*_harm_problems(document, policy, list(calibration)), *_size_problems(policy)]
    if count_combinations(policy) > MAX_COMBINATIONS:
        raise document.refusal(problems)
    rulesets, index = lay_over(policy)
    thresholds = _Thresholds(document, calibration)
    # A harm that the file leaves out, or gets wrong, is one of the problems by now.
    rules = [[thresholds.rule(harm, ruleset) for harm in calibration if harm in policy.harms] for ruleset in rulesets]
    if problems := problems + thresholds.problems:
        raise document.refusal(problems)
    severity = {action: rank for rank, action in enumerate(policy.severity)}
    return CompiledPolicy(
        name=policy.name,
        version=policy.version,
        digest=document.digest,
        harms=tuple(calibration),
        rulesets=tuple(ruleset.name for ruleset in rulesets),
        roles=tuple(ruleset.role for ruleset in rulesets),
        actions=tuple(str(action) for action in policy.severity),
        act_at=_table([[rule.act_at for rule in row] for row in rules], np.float64),
        allow_below=_table([[rule.allow_below for rule in row] for row in rules], np.float64),
        harm_action=_table([[severity[rule.action] for rule in row] for row in rules], np.int8),
        abstain_action=_table([[severity[rule.abstain] for rule in row] for row in rules], np.int8),
        fail_action=_table([[severity[action] for action in _fail_actions(ruleset)] for ruleset in rulesets], np.int8),
        max_age_s=policy.max_age_s,
        audit_rate=policy.audit.rate,
        max_calibration_age_days=None if policy.calibration is None else policy.calibration.max_age_days,
        basis=tuple(tuple(rule.basis for rule in row) for row in rules),
        index=index,
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """One harm in one rule set."""

    act_at: float
    allow_below: float
    action: Action
    abstain: Action
    basis: Basis


@dataclass(frozen=True, slots=True)
class _Threshold:
    """A threshold, and the risk it was derived from unless it was given itself."""

    value: float
    risk: Risk | None = None


class _Thresholds:
    """Turns what is stated into rules, deriving each risk once, and keeps the problems met on the way."""

    def __init__(self, document: Document, calibration: Mapping[str, HarmCalibration]) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._calibration = calibration
        self._derived: dict[tuple[str, str, float, str | None], _Threshold | NotEnoughLabels] = {}

    def rule(self, harm: str, ruleset: Ruleset) -> _Rule:
        stated = ruleset.harms[harm]
        lower, upper = stated["lower"], stated["upper"]
        below, above = (self._threshold(harm, part, ruleset.role) for part in (lower, upper))
        low, high = below.value, above.value
        crossed = low > high
        if crossed and (lower.field, upper.field) == ("allow_below", "act_at"):
            where = f"`act_at` {high:g} on line {self._document.line(upper.path)}"
            self.problems.append(Problem(lower.path, f"{low:g} is above {where}: nothing may be both"))
        if crossed:
            low = high = low if lower.field == "allow_below" else high
        return _Rule(
            act_at=high,
            allow_below=low,
            action=Action(str(stated["action"].value)),
            abstain=Action(str(stated["abstain"].value)) if "abstain" in stated else Action.REVIEW,
            basis=Basis(below.risk, above.risk, single_cut=low == high),
        )

    def _threshold(self, harm: str, stated: Stated, role: str | None) -> _Threshold:
        """The threshold that is stated; any where it cannot be derived, which is then one of the problems."""
        rate = float(stated.value)
        if stated.field in {"act_at", "allow_below"}:
            return _Threshold(rate)
        key = (harm, stated.field, rate, role if stated.by_role else None)
        if key not in self._derived:
            self._derived[key] = _derive(self._calibration[harm], stated.field, rate, key[-1])
        found = self._derived[key]
        if isinstance(found, NotEnoughLabels):
            self.problems.append(Problem(stated.path, _too_few(harm, stated.field, rate, found)))
            return _Threshold(rate)
        return found


def _derive(measured: HarmCalibration, field: str, rate: float, role: str | None) -> _Threshold | NotEnoughLabels:
    """The threshold that keeps a rate within a role if that has items enough, else over all roles, if these have."""
    lacking = None
    if role is not None:
        own = _count(measured.roles[role], field) if role in measured.roles else np.zeros(1)
        n, needed, cut = float(own.sum()), items_needed_within(rate), _cut(own, field, rate)
        if n >= needed and not isinstance(cut, NotEnoughLabels):
            return _Threshold(cut, Risk(rate, n, role))
        lacking = NotEnoughLabels(n, needed)
    counts = _count(measured, field)
    cut = _cut(counts, field, rate)
    if isinstance(cut, NotEnoughLabels):
        return cut
    return _Threshold(cut, Risk(rate, float(counts.sum()), lacking=lacking))


def _count(measured: HarmCalibration | RoleCalibration, field: str) -> NDArray[np.float64]:
    """The histogram of the items that a risk is about."""
    return np.asarray(measured.harmful if field == "miss_rate" else measured.harmless, np.float64)


def _cut(counts: NDArray[np.float64], field: str, rate: float) -> float | NotEnoughLabels:
    return allow_below(counts, miss_rate=rate) if field == "miss_rate" else act_at(counts, false_block_rate=rate)


def _harm_problems(document: Document, policy: PolicyDocument, harms: Sequence[str]) -> list[Problem]:
    """Harms of the file that the bundle does not have, and of the bundle that the file does not have."""
    named: list[FieldPath] = [("harms", harm) for harm in document.data["harms"]]
    named += [
        ("overlays", index, "harms", harm) for index, overlay in enumerate(policy.overlays) for harm in overlay.harms
    ]
    unknown = [
        Problem(path, f"the bundle has no such harm, it has {', '.join(harms)}{did_you_mean(path[-1], harms)}")
        for path in named
        if path[-1] not in harms
    ]
    missing = [
        Problem(("harms",), f"the bundle scores {harm}, so it needs a rule; `action: allow, abstain: allow` ignores it")
        for harm in harms
        if harm not in document.data["harms"]
    ]
    return unknown + missing


def _size_problems(policy: PolicyDocument) -> list[Problem]:
    combinations = count_combinations(policy)
    if combinations <= MAX_COMBINATIONS:
        return []
    message = f"name {combinations} combinations of surface, role and locale, {MAX_COMBINATIONS} at most; name fewer"
    return [Problem(("overlays",), message)]


def _too_few(harm: str, field: str, rate: float, found: NotEnoughLabels) -> str:
    label, risk = ("harmful", "miss rate") if field == "miss_rate" else ("harmless", "false-block rate")
    do = "Raise the rate" if found.n else "Calibrate the bundle on labelled texts"
    return (
        f"not enough data: {harm} has {found.n:g} {label} calibration items; a {risk} of {rate:g} needs at least "
        f"{found.needed}. {do}, or give `{'allow_below' if field == 'miss_rate' else 'act_at'}` itself"
    )


def _fail_actions(ruleset: Ruleset) -> list[Action]:
    """The action per `FailCondition`, in order; a condition without a rule is reviewed."""
    stated = [ruleset.fail.get(condition.name.lower()) for condition in FailCondition]
    return [Action.REVIEW if rule is None else _FAIL_ACTIONS[FailRule(str(rule.value))] for rule in stated]


def _table(rows: Sequence[Sequence[float]], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    table = np.array(rows, dtype)
    table.flags.writeable = False
    return table
