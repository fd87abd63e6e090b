"""Decisions that are in their partition twice, told from new ones by the offsets of their events.

A moderate worker that is killed has published decisions it had not committed, and its successor makes them again: later
records with the same `decision_id`. The id says which event a decision is of; here is remembered what was counted.

**Which decisions.** Those whose id is as we write it, `topic:partition:offset`, in the partition of that number: the
moderate stage writes nowhere else. Decisions that come through a mapping, that somebody has moved between partitions,
or whose id has another shape, count as often as they are there.

**What is a repeat.** A decision whose offset was counted and is among the last `WINDOW` of its source, unless it is of
a later time than all that was counted of its source. Such a one is of another event: the topic has been deleted and
created anew, and what was remembered of the old one is forgotten. Until it comes, the new topic's decisions of offsets
that the old one had are not counted; these are at most `WINDOW`, none of them later than the old topic's last.

**What is none.** Everything else: gaps that are filled, any order, offsets further back than the window.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import msgspec

from stream.fairness.state import MAX_SOURCES, WINDOW, CountedSource

__all__ = ["Repeats"]

NO_ID = b"\0"
"""No JSON value begins like this."""
MAX_DIGITS = 19
"""Kafka's offsets have 63 bits."""
EVERY_BIT = (1 << WINDOW) - 1


class Repeats:
    """Remembers of which events decisions were counted. Class of state: the partition's own; it does not merge.

    `partition` is the name of the partition that is counted. A name without a number is that of a pipe, whose lines may
    come from any partition. `records` are what `records` gave when the state was written.
    """

    def __init__(self, partition: str, records: Iterable[CountedSource] = ()) -> None:
        topic, _, number = partition.encode().rpartition(b":")
        place = re.escape(number) if topic else rb"[0-9]{1,10}"
        others = rb"" if topic else rb"(?!%b:)" % re.escape(number)  # a pipe is named as the ids of `fairway score` are
        shape = rb'"(%b[a-zA-Z0-9._-]{1,249}:%b):([0-9]{1,%d})"' % (others, place, MAX_DIGITS)
        self._match = re.compile(shape).fullmatch
        self._sources = {record.source.encode(): _Source(record) for record in records}  # the last used is the last
        self._prefix, self._source = NO_ID, _Source()

    def is_new(self, decision_id: msgspec.Raw, created_at: float) -> bool:
        """Whether a decision is to be counted; if so, it will be known.

        `created_at` is the time of its event, in seconds since the epoch.
        """
        raw, prefix = bytes(decision_id), self._prefix
        digits = raw[len(prefix) : -1]
        # Nearly always the source is that of the decision before, and matching takes twice as long as this.
        if not (raw.startswith(prefix) and digits.isdigit() and len(digits) <= MAX_DIGITS):
            found = self._match(raw)
            if found is None:
                return True
            self._turn_to(found[1])
            digits = found[2]
        return self._source.is_new(int(digits), created_at)

    def records(self) -> list[CountedSource]:
        """What is remembered, for the state record; the order matters."""
        return [source.record(name.decode()) for name, source in self._sources.items()]

    def _turn_to(self, name: bytes) -> None:
        """Go on with this source; when there are too many, the one that was not met for longest is forgotten."""
        self._source = self._sources.pop(name) if name in self._sources else _Source()
        self._sources[name] = self._source
        self._prefix = b'"%b:' % name
        if len(self._sources) > MAX_SOURCES:
            del self._sources[next(iter(self._sources))]


class _Source:
    """What was counted of one partition of events."""

    __slots__ = ("_counted", "_latest", "_newest", "_run")

    def __init__(self, record: CountedSource | None = None) -> None:
        self._newest = -1
        self._latest = -math.inf
        self._counted = 0  # bit i is whether offset newest - run - i was counted
        self._run = 0  # so many more were counted, one after the other, up to the newest
        if record is not None:
            self._newest, self._latest = record.newest, record.latest
            self._counted = int.from_bytes(record.counted, "little") & EVERY_BIT

    def is_new(self, offset: int, created_at: float) -> bool:
        if offset == self._newest + 1:
            self._newest = offset
            self._run += 1
        elif not self._is_new(offset, created_at):
            return False
        if created_at > self._latest:  # noqa: PLR1730 - as for the watermark
            self._latest = created_at
        return True

    def _is_new(self, offset: int, created_at: float) -> bool:
        """As `is_new`, for an offset that is not the next one."""
        self._fold()
        behind = self._newest - offset
        was_counted = 0 <= behind < WINDOW and self._counted >> behind & 1
        if behind < 0:
            self._newest, self._counted = offset, self._counted << min(-behind, WINDOW) & EVERY_BIT | 1
        elif created_at > self._latest and (was_counted or behind >= WINDOW):
            self._newest, self._counted = offset, 1  # the topic is another one
        elif was_counted:
            return False
        elif behind < WINDOW:
            self._counted |= 1 << behind
        return True

    def _fold(self) -> None:
        """Bring the bits up to date. To do so for every decision would cost more than to count it."""
        run = min(self._run, WINDOW)
        self._counted = (self._counted << run | (1 << run) - 1) & EVERY_BIT
        self._run = 0

    def record(self, name: str) -> CountedSource:
        self._fold()
        counted = self._counted.to_bytes((self._counted.bit_length() + 7) // 8, "little")
        return CountedSource(name, self._newest, self._latest, counted)
