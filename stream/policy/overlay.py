"""Which rules hold where: a policy's overlays put together, once, for every combination of surface and locale.

An overlay applies where both its conditions hold: the event's surface is one it names, and the event's locale is one
it names or begins with one, subtag by subtag (basic filtering, RFC 4647, 3.3.1): `de` matches `de-AT`, not `den`.
Overlays are laid over the policy's own rules from the least to the most specific, each replacing what it gives:

1. those with a locale only, shorter matches first,
2. those with a surface only,
3. those with both, shorter matches first,

and among equals in the file's order. What is replaced is one of a harm's action, abstain action, upper threshold and
lower threshold, or the fail rule of one condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from stream.policy.document import FailRules, HarmOverride, Overlay, PolicyDocument, normal_tag
from stream.yamlfile import FieldPath

__all__ = ["Ruleset", "RulesetIndex", "Stated", "count_combinations", "lay_over"]

_PARTS = {"act_at": "upper", "false_block_rate": "upper", "allow_below": "lower", "miss_rate": "lower"}


@dataclass(frozen=True, slots=True)
class Stated:
    """One value that the file states, and where."""

    value: float | str
    """A number, an `Action` or a `FailRule`."""
    path: FieldPath

    @property
    def field(self) -> str:
        """The name of the field: whether a threshold was given directly or as a risk."""
        return str(self.path[-1])


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules in force for some surfaces and locales."""

    name: str
    harms: Mapping[str, Mapping[str, Stated]]
    """Per harm, what is stated for `action`, `abstain`, `upper` and `lower`; `abstain` may be missing."""
    fail: Mapping[str, Stated]
    """Per condition that has one, its rule."""


@dataclass(frozen=True, slots=True)
class RulesetIndex:
    """Finds the rule set of a surface and a locale. None is any that no overlay names."""

    surfaces: frozenset[str]
    locales: frozenset[str]
    rulesets: Mapping[tuple[str | None, str | None], int]

    def find(self, surface: str, locale: str | None) -> int:
        """The index of the rule set in force."""
        return self.rulesets[surface if surface in self.surfaces else None, self._longest_match(locale)]

    def _longest_match(self, locale: str | None) -> str | None:
        tag = normal_tag(locale or "")
        while tag and tag not in self.locales:
            tag = tag.rpartition("-")[0]
        return tag or None


def count_combinations(policy: PolicyDocument) -> int:
    """How many combinations of surface and locale `lay_over` would look at."""
    surfaces, locales = _named(policy.overlays)
    return len(surfaces) * len(locales)


def lay_over(policy: PolicyDocument) -> tuple[list[Ruleset], RulesetIndex]:
    """Every distinct set of rules, the policy's own rules first, and the index of them."""
    surfaces, locales = _named(policy.overlays)
    places: dict[tuple[int, ...], list[tuple[str | None, str | None]]] = {}
    for place in product(surfaces, locales):
        places.setdefault(_applicable(policy.overlays, *place), []).append(place)
    base = _layer("default", policy.harms, policy.fail, ())
    layers = [
        _layer("overlay", overlay.harms, overlay.fail, ("overlays", number))
        for number, overlay in enumerate(policy.overlays)
    ]
    rulesets = [_merge(_name(at), [base, *(layers[i] for i in overlays)]) for overlays, at in places.items()]
    index = {place: ruleset for ruleset, at in enumerate(places.values()) for place in at}
    return rulesets, RulesetIndex(frozenset(filter(None, surfaces)), frozenset(filter(None, locales)), index)


def _named(overlays: Sequence[Overlay]) -> tuple[list[str | None], list[str | None]]:
    """The surfaces and the locales that overlays name, each after None for all others."""
    surfaces = dict.fromkeys(name for overlay in overlays for name in overlay.surface or ())
    locales = dict.fromkeys(name for overlay in overlays for name in overlay.locale or ())
    return [None, *surfaces], [None, *locales]


def _applicable(overlays: Sequence[Overlay], surface: str | None, locale: str | None) -> tuple[int, ...]:
    """Indices of the overlays that apply, least specific first."""
    ranked = []
    for index, overlay in enumerate(overlays):
        if overlay.surface is not None and surface not in overlay.surface:
            continue
        matched = [len(tag) for tag in overlay.locale or () if _begins(locale, tag)]
        if overlay.locale is None or matched:
            ranked.append((overlay.surface is not None, max(matched, default=0), index))
    return tuple(index for *_, index in sorted(ranked))


def _begins(locale: str | None, tag: str) -> bool:
    return locale is not None and f"{locale}-".startswith(f"{tag}-")


def _layer(name: str, harms: Mapping[str, HarmOverride], fail: FailRules, path: FieldPath) -> Ruleset:
    """What one section of the file, the policy itself or an overlay, states."""
    parts = {
        harm: {_PARTS.get(stated.field, stated.field): stated for stated in _stated(rule, (*path, "harms", harm))}
        for harm, rule in harms.items()
    }
    return Ruleset(name, parts, {stated.field: stated for stated in _stated(fail, (*path, "fail"))})


def _stated(section: HarmOverride | FailRules, path: FieldPath) -> list[Stated]:
    return [Stated(getattr(section, field), (*path, field)) for field in section.model_fields_set]


def _merge(name: str, layers: Sequence[Ruleset]) -> Ruleset:
    """Each layer over the ones before it."""
    harms: dict[str, Mapping[str, Stated]] = {}
    fail: dict[str, Stated] = {}
    for layer in layers:
        for harm, parts in layer.harms.items():
            harms[harm] = {**harms.get(harm, {}), **parts}
        fail |= layer.fail
    return Ruleset(name, harms, fail)


def _name(places: Sequence[tuple[str | None, str | None]]) -> str:
    """`surface=chat|mail,locale=de`; the rule set of the places that nothing names is `default`."""
    named = zip(("surface", "locale"), zip(*places, strict=True), strict=True)
    parts = [f"{kind}={'|'.join(dict.fromkeys(names))}" for kind, names in named if None not in names]
    return ",".join(parts) or "default"
