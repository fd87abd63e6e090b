"""A policy ready to decide with: per rule set and harm, two thresholds and the actions they lead to, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.policy.overlay import RulesetIndex

__all__ = ["Basis", "CompiledPolicy"]


@dataclass(frozen=True, slots=True)
class Basis:
    """What the two thresholds of one harm follow from: the risk stated, or None where the threshold itself was."""

    miss_rate: float | None
    false_block_rate: float | None
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

    def resolve(self, surfaces: Sequence[str], locales: Sequence[str | None]) -> NDArray[np.int64]:
        """The rule set in force for each of m events, (m,) int64.

        Looks each distinct pair up once, and keeps nothing between calls: surfaces and locales are untrusted.
        """
        if len(self.rulesets) == 1:
            return np.zeros(len(surfaces), np.int64)
        pairs = list(zip(surfaces, locales, strict=True))
        found = {pair: self.index.find(*pair) for pair in set(pairs)}
        if len(found) == 1:
            return np.full(len(pairs), found[pairs[0]], np.int64)
        return np.fromiter(map(found.__getitem__, pairs), np.int64, count=len(pairs))
