"""Policies for the tests that compile some: a bundle with two harms, and a rule for each."""

from __future__ import annotations

from stream.bundle import HarmCalibration
from stream.policy import CompiledPolicy, compile_policy

__all__ = ["HARMS", "HEAD", "RULES", "compiled", "measured"]

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


def compiled(text: str, **calibration: HarmCalibration) -> CompiledPolicy:
    """The policy for a bundle with two harms."""
    return compile_policy((HEAD + text).encode(), dict.fromkeys(HARMS, measured()) | calibration)
