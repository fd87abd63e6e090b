"""When has something that others write stood still long enough to be judged? Once for each change."""

from __future__ import annotations

__all__ = ["Settled"]


class Settled:
    """Remembers what was seen last, since when, and what was judged last; states are told apart by text. Pure."""

    def __init__(self, known: str, *, settle_s: float) -> None:
        """`known` is a state that was judged already; another one is judged after `settle_s` of standing still."""
        self._seen, self._since = known, float("-inf")
        self._judged: str | None = known
        self._settle_s = settle_s

    def is_due(self, state: str, now: float) -> bool:
        """Whether `state`, seen at `now`, is to be judged; it counts as judged then.

        `now` is seconds on any clock that does not go backwards. After a refusal, the old state counts as a change too.
        """
        if state != self._seen:
            self._seen, self._since = state, now
        if state == self._judged or now - self._since < self._settle_s:
            return False
        self._judged = state
        return True

    def reconsider(self) -> None:
        """Judge what is there once more, though it has not changed."""
        self._judged = None
