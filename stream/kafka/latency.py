"""How long things took and which are still out: the bounded memory of a load test."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answers", "Histogram", "Outstanding", "Times"]

Times = NDArray[np.float64]
Offsets = NDArray[np.int64]

# A bucket is 1 % wider than the one before, so a percentile is exact to 1 %; 10 µs to 1000 s takes 1852 of them.
SHORTEST_S = 1e-5
GROWTH = 1.01
BUCKETS = 1852

# Answered events are kept this long, counted in events of their partition, so that a repeated answer is noticed.
REMEMBERED = 1_000_000
INITIAL_ROOM = 65_536

# Fetches of answers kept while an acknowledgement is on its way. It takes milliseconds; what is older is not ours.
MAX_EARLY = 1000


class Histogram:
    """Durations in logarithmic buckets: bounded memory however many there are."""

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS, np.int64)
        self.longest_s = 0.0

    def __len__(self) -> int:
        return int(self._counts.sum())

    def add(self, seconds: Times) -> None:
        """Enter `(n,)` durations."""
        if len(seconds) == 0:
            return
        self.longest_s = max(self.longest_s, float(seconds.max()))
        buckets = np.log(np.maximum(seconds, SHORTEST_S) / SHORTEST_S) / math.log(GROWTH)
        self._counts += np.bincount(np.minimum(buckets.astype(np.int64), BUCKETS - 1), minlength=BUCKETS)

    def percentile_s(self, percent: float) -> float:
        """The duration that `percent` of all are not above, to 1 %; NaN when there is none.

        >>> histogram = Histogram()
        >>> histogram.add(np.array([0.1] * 99 + [5.0]))
        >>> round(histogram.percentile_s(50), 2), round(histogram.percentile_s(99.5), 1)
        (0.1, 5.0)
        """
        total = len(self)
        if total == 0:
            return math.nan
        rank = math.ceil(total * percent / 100)
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(SHORTEST_S * GROWTH ** (bucket + 1), self.longest_s)


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one kind for events of one partition, read together: `(n,)` offsets of the events, and when."""

    offsets: Offsets
    at: float
    are_decisions: bool = True


class Outstanding:
    """The events sent to one partition, by offset: when each was due, when it was sent and whether it was answered.

    An answer may be read before the acknowledgement that tells the offset of its event; it is kept until then. Answers
    for offsets that somebody else's events have are ignored.
    """

    def __init__(self) -> None:
        self.count = 0
        self.duplicated = 0
        self._base, self._size = 0, 0
        self._due = np.empty(INITIAL_ROOM)
        self._sent = np.empty(INITIAL_ROOM)
        self._answered = np.empty(INITIAL_ROOM, np.bool_)
        self._early: deque[Answers] = deque(maxlen=MAX_EARLY)

    def sent(self, first_offset: int, due: Times, *, sent_at: float) -> list[Answers]:
        """Enter events acknowledged at consecutive offsets; return answers that came before, to be entered again."""
        if self._size == 0:
            self._base = first_offset
        # Offsets in between are somebody else's events or transaction markers: answered, as far as we are concerned.
        gap = first_offset - self._base - self._size
        start = self._reserve(gap + len(due))
        self._due[start : start + gap] = np.nan
        self._due[start + gap : self._size] = due
        self._sent[start : self._size] = sent_at
        self._answered[start : self._size] = False
        self._answered[start : start + gap] = True
        self.count += len(due)
        early = list(self._early)
        self._early.clear()
        return early

    def answered(self, answers: Answers) -> tuple[Times, Times]:
        """Enter answers; return the durations since due and since sent of the events that got their first one."""
        offsets, at = answers.offsets, answers.at
        index = offsets - self._base
        ahead = index >= self._size
        if ahead.any():
            self._early.append(replace(answers, offsets=offsets[ahead]))
        index = index[~ahead & (index >= 0)]
        index, repeats = np.unique(index[~np.isnan(self._due[index])], return_counts=True)
        known = self._answered[index]
        self.duplicated += int(repeats.sum()) - int((~known).sum())
        fresh = index[~known]
        self._answered[fresh] = True
        self.count -= len(fresh)
        return at - self._due[fresh], at - self._sent[fresh]

    def _reserve(self, room: int) -> int:
        """Make room for more events at the end and return where it starts."""
        if self._size + room > len(self._due):
            self._forget()
        if self._size + room > len(self._due):
            capacity = 2 * (self._size + room)
            self._due = np.resize(self._due, capacity)
            self._sent = np.resize(self._sent, capacity)
            self._answered = np.resize(self._answered, capacity)
        start = self._size
        self._size += room
        return start

    def _forget(self) -> None:
        """Drop events answered long ago from the front."""
        answered = self._answered[: self._size]
        prefix = self._size if answered.all() else int(answered.argmin())
        drop = min(prefix, self._size - REMEMBERED)
        if drop <= 0:
            return
        for array in (self._due, self._sent, self._answered):
            array[: self._size - drop] = array[drop : self._size].copy()
        self._base += drop
        self._size -= drop
