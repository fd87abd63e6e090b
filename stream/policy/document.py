"""The shape of a policy file: what may stand in it, before anything is known about a model.

What one value may be is said here; what must agree with another value, or with the bundle, is checked in
`stream.policy.compile`.
"""

from __future__ import annotations

import re
from copy import deepcopy
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from stream.bundle.manifest import Role
from stream.events import Action
from stream.yamlfile import Document, FieldPath, Problem, Section

__all__ = [
    "DEFAULT_SEVERITY",
    "Audit",
    "CalibrationRules",
    "FailRule",
    "FailRules",
    "HarmOverride",
    "HarmRule",
    "Overlay",
    "PolicyDocument",
]

SCHEMA_VERSION = 1

DEFAULT_SEVERITY = (Action.ALLOW, Action.LABEL, Action.REVIEW, Action.RESTRICT, Action.BLOCK)

# A rule set is made for every combination of names in overlays, so these bound the work of a reload.
MAX_OVERLAYS = 256
MAX_NAMES = 256

_LANGUAGE_TAG = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,8})*")


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _language_tag(tag: str) -> str:
    normal = normal_tag(tag)
    if not _LANGUAGE_TAG.fullmatch(normal):
        raise ValueError("must be a language tag, such as `de` or `de-AT`")
    return normal


def normal_tag(tag: str) -> str:
    """A language tag as it is compared: tags ignore case (RFC 5646, 2.1.1), and `de_AT` is a common spelling."""
    return tag.replace("_", "-").lower()


# Strict: `yes` is no number and "0.5" is text.
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Rate = Annotated[float, Field(strict=True, gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Surfaces = Annotated[list[Name], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_NAMES)]
LanguageTag = Annotated[str, Field(max_length=35), AfterValidator(_language_tag)]
Locales = Annotated[list[LanguageTag], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_NAMES)]
Roles = Annotated[list[Role], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_NAMES)]


class FailRule(StrEnum):
    """What happens to an event that could not be moderated as it should be."""

    OPEN = "open"
    """It passes: the condition adds nothing to what the harms say."""
    CLOSED = "closed"
    """It is blocked."""
    REVIEW = "review"
    """A person looks at it."""


class _Section(Section):
    model_config = ConfigDict(allow_inf_nan=False)


class HarmOverride(_Section):
    """Any part of a harm's rule; in an overlay, it replaces that part."""

    action: Action | None = None
    """Taken where the content is harmful in this way."""
    abstain: Action | None = None
    """Taken where there is no answer."""
    act_at: Probability | None = None
    """Harmful from this probability on ..."""
    false_block_rate: Rate | None = None
    """... or from where at most this share of harmless content is acted on."""
    allow_below: Probability | None = None
    """Harmless below this probability ..."""
    miss_rate: Rate | None = None
    """... or below where at most this share of harmful content is missed."""

    @model_validator(mode="after")
    def _one_of_each(self) -> HarmOverride:
        for direct, risk in (("act_at", "false_block_rate"), ("allow_below", "miss_rate")):
            if {direct, risk} <= self.model_fields_set:
                raise ValueError(f"give either `{direct}` or `{risk}`, not both")
        return self


class HarmRule(HarmOverride):
    """The whole rule of a harm."""

    action: Action

    @model_validator(mode="after")
    def _both_thresholds(self) -> HarmRule:
        for direct, risk in (("act_at", "false_block_rate"), ("allow_below", "miss_rate")):
            if not {direct, risk} & self.model_fields_set:
                raise ValueError(f"needs `{risk}`, the risk to take, or `{direct}`, a probability")
        return self


class FailRules(_Section):
    """A rule per `FailCondition`, named like it; what is not named is reviewed."""

    scorer_error: FailRule | None = None
    unsupported: FailRule | None = None
    truncated: FailRule | None = None
    expired: FailRule | None = None


class Overlay(_Section):
    """Other rules for some surfaces, roles or locales, or for what is of several of these at once."""

    surface: Surfaces | None = None
    role: Roles | None = None
    """Risks stated for roles are kept within each of them."""
    locale: Locales | None = None
    harms: dict[Name, HarmOverride] = Field(default_factory=dict)
    fail: FailRules = FailRules()

    @model_validator(mode="after")
    def _says_where_and_what(self) -> Overlay:
        if not {"surface", "role", "locale"} & self.model_fields_set:
            raise ValueError("needs `surface`, `role` or `locale`, or several: where it applies")
        if not {"harms", "fail"} & self.model_fields_set:
            raise ValueError("needs `harms`, `fail` or both: what is different there")
        return self


class Audit(_Section):
    """Which share of decisions that nobody reviews is sent to review all the same, so that errors can be measured."""

    rate: Probability


class CalibrationRules(_Section):
    """What the calibration of a bundle has to be for this policy."""

    max_age_days: Annotated[float, Field(strict=True, gt=0, le=36_500)]
    """A worker refuses a bundle calibrated longer ago: content drifts away from what the risks were taken on."""


class PolicyDocument(_Section):
    """A policy file, each value of which is possible in itself."""

    schema_version: Annotated[int, Field(strict=True)]
    name: Name
    version: Name
    severity: tuple[Action, ...] = DEFAULT_SEVERITY
    harms: Annotated[dict[Name, HarmRule], Field(min_length=1)]
    risks_within: Literal["all", "role"] = "all"
    """Whether a risk is kept over content of all roles together, or within each role that has labels enough."""
    fail: FailRules = FailRules()
    max_age_s: Annotated[float, Field(strict=True, gt=0)] | None = None
    audit: Audit = Audit(rate=0.0)
    calibration: CalibrationRules | None = None
    overlays: Annotated[list[Overlay], Field(max_length=MAX_OVERLAYS)] = Field(default_factory=list)

    @field_validator("schema_version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version != SCHEMA_VERSION:
            raise ValueError(f"this release reads schema version {SCHEMA_VERSION}, not {version}")
        return version

    @field_validator("severity")
    @classmethod
    def _every_action_once(cls, severity: tuple[Action, ...]) -> tuple[Action, ...]:
        if sorted(severity) != sorted(Action) or severity[0] != Action.ALLOW:
            raise ValueError(f"must list each of {', '.join(Action)} once, `allow` first: it is what nothing leads to")
        return severity


def parse(document: Document) -> tuple[PolicyDocument, list[Problem]]:
    """The policy in a file and what is wrong with it, each value by itself.

    Values with problems are left out of the policy, so that the rest can be checked too and all problems reported in
    one go. Raises `PolicyError` with the problems where too little is left for that.
    """
    problems: list[Problem] = []
    remaining = deepcopy(document.data)
    while True:
        try:
            return PolicyDocument.model_validate(remaining), problems
        except ValidationError as error:
            found = document.problems(error, PolicyDocument)
        # After the first round, what is found only follows from what was left out.
        problems = problems or found
        broken = {_nearest_field(remaining, problem.path) for problem in found}
        if () in broken:
            raise document.refusal(problems)
        for path in sorted(broken, key=len, reverse=True):
            _leave_out(remaining, path)


def _nearest_field(value: Any, path: FieldPath) -> FieldPath:  # Any: YAML that no schema has accepted
    """The longest beginning of `path` that is still a field: it can be left out, and unlike an item moves no others."""
    nearest: FieldPath = ()
    for depth, step in enumerate(path, start=1):
        if isinstance(value, dict) and step not in value:
            break
        value = value[step]
        nearest = path[:depth] if isinstance(step, str) else nearest
    return nearest


def _leave_out(value: Any, path: FieldPath) -> None:  # Any: YAML that no schema has accepted
    for step in path[:-1]:
        value = value[step]
    del value[path[-1]]
