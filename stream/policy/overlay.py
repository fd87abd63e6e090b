"""Which rules hold where: a policy's overlays put together, once, for every combination of surface, role and locale.

An overlay applies where all its conditions hold: the event's surface is one it names, its role is one it names, and its
locale is one it names or begins with one, subtag by subtag (basic filtering, RFC 4647, 3.3.1): `de` matches `de-AT`,
not `den`. Overlays are laid over the policy's own rules from the least to the most specific, each replacing what it
gives:

1. those without a surface before those with one,
2. among these, those without a role before those with one,
3. among these, those without a locale before those with one, shorter matches first,

and among equals in the file's order. What is replaced is one of a harm's action, abstain action, upper threshold and
lower threshold, or the fail rule of one condition.

A risk stated for roles is kept within each of them, so every role has a rule set of its own where such an overlay
applies, and everywhere if the policy keeps all risks within roles: what is stated is the same, the thresholds are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import get_args

from stream.bundle.manifest import Role
from stream.policy.document import FailRules, HarmOverride, Overlay, PolicyDocument, normal_tag
from stream.yamlfile import FieldPath

__all__ = ["Place", "Ruleset", "RulesetIndex", "Stated", "count_combinations", "lay_over"]

Place = tuple[str | None, str | None, str | None]
"""A surface, a role and a locale; None is any that no overlay names."""

_ROLES: tuple[str, ...] = get_args(Role)

_PARTS = {"act_at": "upper", "false_block_rate": "upper", "allow_below": "lower", "miss_rate": "lower"}


@dataclass(frozen=True, slots=True)
class Stated:
    """One value that the file states, and where."""

    value: float | str
    """A number, an `Action` or a `FailRule`."""
    path: FieldPath
    by_role: bool = False
    """Whether it is kept within each role, if it is a risk."""

    @property
    def field(self) -> str:
        """The name of the field: whether a threshold was given directly or as a risk."""
        return str(self.path[-1])


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules in force for some surfaces, roles and locales."""

    name: str
    role: str | None
    """The one role that it is for; None where it is for several."""
    harms: Mapping[str, Mapping[str, Stated]]
    """Per harm, what is stated for `action`, `abstain`, `upper` and `lower`; `abstain` may be missing."""
    fail: Mapping[str, Stated]
    """Per condition that has one, its rule."""


@dataclass(frozen=True, slots=True)
class RulesetIndex:
    """Finds the rule set of a surface, a role and a locale."""

    surfaces: frozenset[str]
    roles: frozenset[str]
    locales: frozenset[str]
    rulesets: Mapping[Place, int]

    @property
    def reachable(self) -> frozenset[int]:
        """Rule sets that an event can have: none of those for other roles, where every role is named."""
        others = not self.roles.issuperset(_ROLES)
        return frozenset(ruleset for (_, role, _), ruleset in self.rulesets.items() if others or role is not None)

    def find(self, surface: str | None, role: str | None, locale: str | None) -> int:
        """The index of the rule set in force; whatever is not named, None among it, is any other."""
        return self.rulesets[
            surface if surface in self.surfaces else None,
            role if role in self.roles else None,
            self._longest_match(locale),
        ]

    def _longest_match(self, locale: str | None) -> str | None:
        tag = normal_tag(locale or "")
        while tag and tag not in self.locales:
            tag = tag.rpartition("-")[0]
        return tag or None


def count_combinations(policy: PolicyDocument) -> int:
    """How many combinations of surface, role and locale `lay_over` would look at."""
    return prod(map(len, _named(policy)))


def lay_over(policy: PolicyDocument) -> tuple[list[Ruleset], RulesetIndex]:
    """Every distinct set of rules, the policy's own rules first, and the index of them."""
    by_role = policy.risks_within == "role"
    places: dict[tuple[str | None, tuple[int, ...]], list[Place]] = {}
    for surface, role, locale in product(*(named := _named(policy))):
        overlays = _applicable(policy.overlays, surface, role, locale)
        is_for_role = by_role or any(policy.overlays[index].role is not None for index in overlays)
        places.setdefault((role if is_for_role else None, overlays), []).append((surface, role, locale))
    base = _layer(policy.harms, policy.fail, (), by_role=by_role)
    layers = [
        _layer(overlay.harms, overlay.fail, ("overlays", number), by_role=by_role or overlay.role is not None)
        for number, overlay in enumerate(policy.overlays)
    ]
    rulesets = [
        _merge(_name(at), role, [base, *(layers[index] for index in overlays)])
        for (role, overlays), at in places.items()
    ]
    index = {place: ruleset for ruleset, at in enumerate(places.values()) for place in at}
    surfaces, roles, locales = (frozenset(filter(None, names)) for names in named)
    return rulesets, RulesetIndex(surfaces, roles, locales, index)


def _named(policy: PolicyDocument) -> list[list[str | None]]:
    """The surfaces, the roles and the locales that are told apart, each after None for all others."""
    overlays = policy.overlays
    surfaces = (name for overlay in overlays for name in overlay.surface or ())
    roles = _ROLES if policy.risks_within == "role" else (name for overlay in overlays for name in overlay.role or ())
    locales = (name for overlay in overlays for name in overlay.locale or ())
    return [[None, *dict.fromkeys(names)] for names in (surfaces, roles, locales)]


def _applicable(
    overlays: Sequence[Overlay], surface: str | None, role: str | None, locale: str | None
) -> tuple[int, ...]:
    """Indices of the overlays that apply, least specific first."""
    ranked = []
    for index, overlay in enumerate(overlays):
        if overlay.surface is not None and surface not in overlay.surface:
            continue
        if overlay.role is not None and role not in overlay.role:
            continue
        matched = [len(tag) for tag in overlay.locale or () if _begins(locale, tag)]
        if overlay.locale is None or matched:
            ranked.append((overlay.surface is not None, overlay.role is not None, max(matched, default=0), index))
    return tuple(index for *_, index in sorted(ranked))


def _begins(locale: str | None, tag: str) -> bool:
    return locale is not None and f"{locale}-".startswith(f"{tag}-")


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one section of the file, the policy itself or an overlay, states; fields as in `Ruleset`."""

    harms: Mapping[str, Mapping[str, Stated]]
    fail: Mapping[str, Stated]


def _layer(harms: Mapping[str, HarmOverride], fail: FailRules, path: FieldPath, *, by_role: bool) -> _Layer:
    parts = {
        harm: {
            _PARTS.get(stated.field, stated.field): stated
            for stated in _stated(rule, (*path, "harms", harm), by_role=by_role)
        }
        for harm, rule in harms.items()
    }
    rules = _stated(fail, (*path, "fail"), by_role=by_role)
    return _Layer(parts, {stated.field: stated for stated in rules})


def _stated(section: HarmOverride | FailRules, path: FieldPath, *, by_role: bool) -> list[Stated]:
    return [Stated(getattr(section, field), (*path, field), by_role) for field in section.model_fields_set]


def _merge(name: str, role: str | None, layers: Sequence[_Layer]) -> Ruleset:
    """Each layer over the ones before it."""
    harms: dict[str, Mapping[str, Stated]] = {}
    fail: dict[str, Stated] = {}
    for layer in layers:
        for harm, parts in layer.harms.items():
            harms[harm] = {**harms.get(harm, {}), **parts}
        fail |= layer.fail
    return Ruleset(name, role, harms, fail)


def _name(places: Sequence[Place]) -> str:
    """`surface=chat|mail,locale=de`; the rule set of the places that nothing names is `default`."""
    named = zip(("surface", "role", "locale"), zip(*places, strict=True), strict=True)
    parts = [f"{kind}={'|'.join(dict.fromkeys(names))}" for kind, names in named if None not in names]
    return ",".join(parts) or "default"
