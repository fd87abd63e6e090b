"""What happens to content: thresholds and rules, as data."""

from stream.policy.compile import compile_policy
from stream.policy.compiled import CompiledPolicy
from stream.policy.decide import Verdicts, decide
from stream.policy.freshness import refuse_old_calibration
from stream.policy.watch import PolicyWatch

__all__ = ["CompiledPolicy", "PolicyWatch", "Verdicts", "compile_policy", "decide", "refuse_old_calibration"]
