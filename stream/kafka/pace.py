"""How many records are worked on together: found out from how long the last ones took; pure.

What a record takes cannot be told from the record: a kilobyte is 70 µs of a linear model, 40 ms of an encoder, 80 ms of
a hostile image (measured), and more of a language model. So the first unit is one record, and the next is larger or
smaller in proportion, in records and in bytes, to what the last one took. None is more than twice as large as one that
was fast enough, so that long records after short ones are begun with carefully.
"""

from __future__ import annotations

import math

from stream.kafka.ledger import UNIT_MAX_BYTES

__all__ = ["UNITS_IN_DRAIN", "UNIT_S", "Pace"]

UNIT_S = 2.0
"""What a unit is to take. Other partitions, a drain and a new policy wait for the unit in the thread and for the one
behind it. An encoder reads a thousand texts in it, which fill its calls: with one second it read a tenth fewer through
Kafka (measured). A linear model is at the bound on records long before."""

UNITS_IN_DRAIN = 4
"""A drain has time for so many units, as it has by default: two are waited for, and each may be slower than the last by
as much as its records are harder than theirs."""

GROWTH = 2

WORTH = 4
"""A unit may take this many times what it takes to begin one, whatever is in it. On a GPU a call has as many rows when
it is for one text as for fifty: units of one would take as long each, and fifty times as long in all."""

LONGEST = 2
"""But never more than so many times what it is to take: two of them are what a drain has time for."""

TRY_TWO_EVERY = 32
"""Where single records take too long, two are tried together once in so many units, since nothing else can tell what
it takes to begin a unit."""


class Pace:
    """How large the next unit may be, given how long the last ones took."""

    def __init__(self, *, max_records: int, unit_s: float = math.inf) -> None:
        """`unit_s` is what a unit is to take; with infinity only the bounds on records and bytes hold."""
        self._max_records, self._unit_s = max_records, unit_s
        self.records = max_records if math.isinf(unit_s) else 1
        """A unit has at most so many records."""
        self.size_bytes = UNIT_MAX_BYTES if math.isinf(unit_s) else 0
        """And so many bytes, or is one record."""
        self._begin_s = 0.0
        self._last = (0, 0, 0.0)
        self._too_long_alone = 0

    def learn(self, records: int, size_bytes: int, seconds: float) -> None:
        """Take in that a unit of so many records and bytes took so long."""
        self._learn_beginning(records, size_bytes, seconds)
        longest = max(self._unit_s, min(WORTH * self._begin_s, LONGEST * self._unit_s))
        change = min(GROWTH, longest / seconds) if seconds else GROWTH
        if change < 1:
            self.records, self.size_bytes = max(1, int(records * change)), int(size_bytes * change)
        else:  # a small unit, where little came, says nothing against larger ones
            fitting = math.ceil(records * change)
            self.records = min(self._max_records, max(self.records, fitting))
            self.size_bytes = min(UNIT_MAX_BYTES, max(self.size_bytes, size_bytes * fitting // records))

    def _learn_beginning(self, records: int, size_bytes: int, seconds: float) -> None:
        """Estimate what a unit takes beside its records: what two units differ in size by, they differ in time by."""
        (old_records, old_bytes, old_s), self._last = self._last, (records, size_bytes, seconds)
        if old_records:
            ratios = (records / old_records, size_bytes / max(1, old_bytes))
            if min(ratios) >= GROWTH or max(ratios) <= 1 / GROWTH:  # else the difference is hardly of the size
                parts = [(old_s * ratio - seconds) / (ratio - 1) for ratio in ratios]
                self._begin_s = max(0.0, min(*parts, old_s, seconds))
        if records == 1 and seconds > self._unit_s:
            self._too_long_alone += 1
            if self._too_long_alone % TRY_TWO_EVERY == 1:
                self._begin_s = seconds
