"""Policies for the tests that compile some: a bundle with two harms, and a rule for each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from stream.bundle import HarmCalibration, RoleCalibration
from stream.policy import CompiledPolicy, compile_policy

__all__ = ["HARMS", "HEAD", "RULES", "compiled", "counted", "measured"]

HARMS = ("hate", "violence")
HEAD = 'schema_version: 1\nname: test\nversion: "1"\n'
RULES = """\
harms:
  hate: {action: block, act_at: 0.8, allow_below: 0.2}
  violence: {action: label, act_at: 0.9, allow_below: 0.1}
"""


def measured(*, harmful: float = 0.75, harmless: float = 0.25, n: int = 200) -> HarmCalibration:
    """A harm whose n items of each label all have one probability."""
    counts = [[0.0] * 1024, [0.0] * 1024]
    counts[0][int(harmful * 1024)] = counts[1][int(harmless * 1024)] = float(n)
    return HarmCalibration(
        a=1, b=0, n_harmful=n, n_harmless=n, ece=0, ece_null=0, harmful=tuple(counts[0]), harmless=tuple(counts[1])
    )


def counted(items: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> HarmCalibration:
    """A harm measured on items of several roles: per role, the probabilities of the harmful and of the harmless."""
    roles = {role: RoleCalibration(*_counted(harmful, harmless)) for role, (harmful, harmless) in items.items()}
    n_harmful, n_harmless, of_harmful, of_harmless = _counted(
        *(np.concatenate([np.asarray(role[label]) for role in items.values()]) for label in (0, 1))
    )
    return HarmCalibration(1, 0, n_harmful, n_harmless, 0, 0, of_harmful, of_harmless, roles)


def _counted(harmful: ArrayLike, harmless: ArrayLike) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    counts = [
        np.bincount(np.minimum((np.asarray(values, np.float64) * 1024).astype(int), 1023), minlength=1024)
        for values in (harmful, harmless)
    ]
    return int(counts[0].sum()), int(counts[1].sum()), tuple(counts[0].tolist()), tuple(counts[1].tolist())


def compiled(text: str, **calibration: HarmCalibration) -> CompiledPolicy:
    """The policy for a bundle with two harms."""
    return compile_policy((HEAD + text).encode(), dict.fromkeys(HARMS, measured()) | calibration)
