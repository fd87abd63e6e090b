"""The policy file while the service runs: a changed file is put in force as a whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stream.bundle.calibration import HarmCalibration
from stream.errors import PolicyError
from stream.policy.compile import compile_policy
from stream.policy.compiled import CompiledPolicy
from stream.settled import Settled
from stream.yamlfile import digest, read

__all__ = ["PolicyWatch"]

# Editors and copies write a file in pieces, and the first half of a policy may well be a valid policy.
SETTLE_S = 1.0


class PolicyWatch:
    """Looks at the policy file when asked. Single-threaded; it never sleeps and has no clock of its own.

    What was seen is compared by content, not by modification time, which misses a second change within one tick and
    sees one where a file was only touched; reading a policy again takes tens of microseconds.
    """

    def __init__(self, path: Path, calibration: Mapping[str, HarmCalibration], in_force: CompiledPolicy) -> None:
        self.in_force = in_force
        """The last good policy."""
        self._path = path
        self._calibration = calibration
        self._settled = Settled(in_force.digest, settle_s=SETTLE_S)

    def look(self, now: float) -> CompiledPolicy | PolicyError | None:
        """The policy to put in force, or why the one in force stays; None as long as there is nothing new to say.

        `now` is seconds on any clock that does not go backwards. A change is judged once, when it has stood still for
        `SETTLE_S`, so by the second look at it. After a refusal, the old content counts as a change too.
        """
        content = self._read()
        seen = str(content) if isinstance(content, PolicyError) else digest(content)
        if not self._settled.is_due(seen, now):
            return None
        return content if isinstance(content, PolicyError) else self._compile(content, seen)

    def _read(self) -> bytes | PolicyError:
        try:
            return read(self._path, what="policy")
        except PolicyError as error:
            return error

    def _compile(self, content: bytes, seen: str) -> CompiledPolicy | PolicyError:
        if seen == self.in_force.digest:
            return self.in_force
        try:
            self.in_force = compile_policy(content, self._calibration, name=str(self._path))
        except PolicyError as error:
            return error
        return self.in_force
