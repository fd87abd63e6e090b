"""A policy ready to decide with: per rule set and harm, two thresholds and the actions they lead to, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.policy.overlay import RulesetIndex
from stream.uncertainty.risk import NotEnoughLabels

__all__ = ["Basis", "CompiledPolicy", "Risk"]


@dataclass(frozen=True, slots=True)
class Risk:
    """A risk that was stated, and the calibration items of the label it is about on which its threshold rests."""

    rate: float
    n: float
    """How many they are."""
    role: str | None = None
    """The role that they all have; None for items of all roles."""
    lacking: NotEnoughLabels | None = None
    """Why the items of all roles stand in for those of the rule set's role, where they do."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What the two thresholds of one harm follow from: the risk stated, or None where the threshold itself was."""

    miss: Risk | None
    false_block: Risk | None
    single_cut: bool
    """Both risks hold at one threshold, so that there is nothing to abstain on."""


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPolicy:
    """R rule sets, h harms, F fail conditions. Immutable; a changed file makes a new one."""

    name: str
    version: str
    digest: str
    """`sha256:` and the hex digest of the policy file's bytes."""
    harms: tuple[str, ...]
    """(h) in the bundle's order."""
    rulesets: tuple[str, ...]
    """(R) readable names; the first is `default`."""
    roles: tuple[str | None, ...]
    """(R) the one role that each rule set is for; None where it is for several."""
    actions: tuple[str, ...]
    """In order of severity, least severe (`allow`) first. Every action below is an index into this."""
    act_at: NDArray[np.float64]
    """(R, h)"""
    allow_below: NDArray[np.float64]
    """(R, h), nowhere above `act_at`."""
    harm_action: NDArray[np.int8]
    """(R, h) taken where the content is harmful."""
    abstain_action: NDArray[np.int8]
    """(R, h) taken where there is no answer."""
    fail_action: NDArray[np.int8]
    """(R, F) by `FailCondition`."""
    max_age_s: float | None
    audit_rate: float
    max_calibration_age_days: float | None
    """A bundle calibrated longer ago is not used under this policy; None allows any."""
    basis: tuple[tuple[Basis, ...], ...]
    """(R)(h) what each pair of thresholds follows from."""
    index: RulesetIndex

    def resolve(
        self, surfaces: Sequence[str], roles: Sequence[str], locales: Sequence[str | None]
    ) -> NDArray[np.int64]:
        """The rule set in force for each of m events, (m,) int64.

        Looks each distinct combination of what the policy tells apart up once, and keeps nothing between calls:
        surfaces and locales are untrusted.
        """
        if len(self.rulesets) == 1:
            return np.zeros(len(surfaces), np.int64)
        index, anything = self.index, [None] * len(surfaces)
        places = list(
            zip(
                surfaces if index.surfaces else anything,
                roles if index.roles else anything,
                locales if index.locales else anything,
                strict=True,
            )
        )
        found = {place: index.find(*place) for place in set(places)}
        if len(found) == 1:
            return np.full(len(places), found[places[0]], np.int64)
        return np.fromiter(map(found.__getitem__, places), np.int64, count=len(places))
