"""Which decisions repeat one that was counted: by the offsets of their events, and not one too many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.fairness import CountSettings, FairnessCounter
from stream.fairness.observation import Uncounted
from stream.fairness.repeats import Repeats
from stream.fairness.state import MAX_SOURCES, WINDOW, CountedSource, PartitionState
from tests.decisions import START, Record, decision, records
from tests.decisions import state_of as value_of

Met = tuple[int, float]
"""Offset and time of an event."""


def met(repeats: Repeats, offsets: Iterable[Met | int], *, source: str = "content.events:3") -> list[int]:
    """The offsets that are new, of those that come; all at one time where none is said."""
    pairs = [(offset, 0.0) if isinstance(offset, int) else offset for offset in offsets]
    return [o for o, at in pairs if repeats.is_new(msgspec.Raw(b'"%b:%d"' % (source.encode(), o)), at)]


def counter_of(values: Sequence[bytes], *, partition: str = "content.decisions:3") -> PartitionState:
    counter = FairnessCounter(partition, CountSettings())
    counter.count(records(values))
    return PartitionState.decode(partition, value_of(counter.snapshot()))


# --- what is a repeat ------------------------------------------------------------------------------------------------
def test_a_decision_counts_once() -> None:
    """A successor that begins before what was written repeats it, and goes on with what is new."""
    offsets = [0, 1, 2, 3, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]
    assert met(Repeats("d:3"), offsets) == [0, 1, 2, 3, 4, 5, 6]


def test_gaps_may_be_filled() -> None:
    """What was a dead letter, and is decided by the successor, was never counted; the rest of the stretch was."""
    assert met(Repeats("d:3"), [0, 1, 3, 5, 0, 1, 2, 3, 4, 5, 6]) == [0, 1, 3, 5, 2, 4, 6]


def test_any_order_counts() -> None:
    """Decisions of a partition that somebody has written anew, not quite in its order, are all new."""
    assert met(Repeats("d:3"), [5, 3, 9, 1, 2, 8, 3]) == [5, 3, 9, 1, 2, 8]


def test_a_repeated_decision_is_uncounted_for_that_reason() -> None:
    """It is in no pane again, not late again, and moves no watermark."""
    at = {0: START, 1: START + 1000, 2: START}
    values = [decision(at[o], decision_id=f"content.events:3:{o}") for o in (0, 1, 2, 0, 1, 2, 2)]
    state = counter_of(values)
    assert (state.counted, state.late, state.uncounted) == (2, 1, {Uncounted.REPEATED: 4})
    assert state.watermark == START + 1000


def test_a_decision_that_cannot_be_counted_is_not_known() -> None:
    """Neither its offset nor its time is remembered, or one from the future could stand for a topic created anew."""
    counter = FairnessCounter("content.decisions:3", CountSettings())
    good, early = (decision(at, decision_id="content.events:3:0") for at in (START, START + 1_000_000))
    now = START * 1000
    counter.count([Record(0, early, now), Record(1, good, now), Record(2, early, now), Record(3, good, now)])
    state = PartitionState.decode("content.decisions:3", value_of(counter.snapshot()))
    assert (state.counted, state.uncounted) == (1, {Uncounted.TIMESTAMP: 2, Uncounted.REPEATED: 1})
    assert state.sources == [CountedSource("content.events:3", 0, START, b"\1")]


# --- which decisions -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "decision_id",
    [
        *('"content.events:2:7"', '"content.events:13:7"', '"content.events:03:7"', '"content.events:3:7:1"'),
        *('"content.events:3:-7"', '"content.events:3:7 "', '"content.events:3:"', '"content.events:3:1e3"'),
        *('":3:7"', '"a topic:3:7"', '"a/b:3:7"', '"content.events-3-7"', f'"{"x" * 250}:3:7"', '"3:7"', '"7"', '""'),
        *('"content.events:3:%s"' % ("9" * 20), '"content.events:3:%s"' % ("9" * 100_000), '"\\u0061:3:7"'),
        *("7", "7.5", "-0", "null", "true", "[3]", '{"content.events:3":7}'),
    ],
)
@pytest.mark.parametrize("known", [[], ['"content.events:3:7"']])
def test_decisions_of_others_are_never_dropped(decision_id: str, known: list[str]) -> None:
    """An id that is not ours, or of an event of another partition, says nothing: each record counts."""
    plain = '{"action":"allow","created_at":"2026-01-01T00:00:00Z","decision_id":%s}'
    values = [(plain % name).encode() for name in [*known, *[decision_id] * 3]]
    state = counter_of(values)
    assert (state.counted, state.uncounted) == (len(known) + 3, {})


def test_decisions_without_an_id_are_never_dropped() -> None:
    """Nor those that come through a mapping, whatever it makes their id of."""
    assert counter_of([b'{"action":"allow","created_at":"2026-01-01T00:00:00Z"}'] * 3).counted == 3
    ours = decision(decision_id="content.events:3:7")
    counter = FairnessCounter("content.decisions:3", CountSettings(), mapping=lambda value: value)
    counter.count(records([ours] * 3))
    state = PartitionState.decode("content.decisions:3", value_of(counter.snapshot()))
    assert (state.counted, state.sources) == (3, [])


def test_sources_are_told_apart() -> None:
    """Several topics may be decided into one: the same offset of each is another event."""
    repeats = Repeats("d:3")
    for turn in range(3):
        for source in ("a:3", "b:3", "content.events:3"):
            offsets = range(turn * 5, turn * 5 + 10)
            assert met(repeats, offsets, source=source) == list(offsets)[5 if turn else 0 :]


def test_lines_of_a_pipe_may_be_of_any_partition() -> None:
    """Nothing says which partition a line was in; ids of the pipe itself are line numbers of some run."""
    repeats = Repeats("stdin")
    for source in ("content.events:0", "content.events:3", "stdins:0"):
        assert met(repeats, [0, 1, 0, 1, 2], source=source) == [0, 1, 2]
    assert met(repeats, [0, 1, 0, 1, 2], source="stdin:0") == [0, 1, 0, 1, 2]


# --- a topic that was created anew -----------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [10, 3 * WINDOW])
def test_a_topic_created_anew_is_counted(size: int) -> None:
    """Offsets that begin again at 0, of later events, are those of other events; and repeats of these are known."""
    repeats = Repeats("d:3")
    met(repeats, ((offset, float(offset)) for offset in range(size)))
    anew = [(offset, size + offset / 2) for offset in range(size)]
    assert met(repeats, anew) == list(range(size))
    assert met(repeats, anew[-5:]) == []


def test_until_a_later_event_comes_offsets_that_were_counted_are_taken_for_repeats() -> None:
    """What cannot be told from a repeat is said to be one; the first later event ends that, out of order or not."""
    repeats = Repeats("d:3")
    met(repeats, ((offset, float(offset)) for offset in range(100)))
    anew = [(0, 97.0), (1, 99.0), (2, 100.0), (3, 99.5), (4, 98.0), (1, 99.0), (5, 101.0)]
    assert met(repeats, anew) == [2, 3, 4, 1, 5]


def test_another_source_does_not_make_a_topic_created_anew_look_old() -> None:
    """Its events are later than those it had; that others are later still is nothing to it."""
    repeats = Repeats("d:3")
    met(repeats, [(offset, float(offset)) for offset in range(10)], source="slow:3")
    met(repeats, [(0, 1e6)], source="fast:3")
    assert met(repeats, [(offset, 10.0 + offset) for offset in range(10)], source="slow:3") == list(range(10))


# --- what is forgotten -----------------------------------------------------------------------------------------------
def test_a_window_of_offsets_is_remembered() -> None:
    """The last one in it is known, the one before it counts again, and that makes no other forgotten."""
    repeats = Repeats("d:3")
    met(repeats, range(WINDOW + 10))
    assert met(repeats, [10, 9, 0, 10, 9, WINDOW + 9]) == [9, 0, 9]


@pytest.mark.parametrize("offset", [WINDOW + 10, 3 * WINDOW, 10**18])
def test_a_leap_forgets_what_it_leaves_behind(offset: int) -> None:
    """However far an offset leaps, it costs no more memory than the window."""
    repeats = Repeats("d:3")
    met(repeats, range(10))
    assert met(repeats, [offset, offset, 5, offset - 1, offset - 1]) == [offset, 5, offset - 1]
    (source,) = repeats.records()
    assert (source.newest, source.counted) == (offset, b"\3")


def test_sources_beyond_the_bound_are_forgotten() -> None:
    """The one that was not met for longest goes: its repeats count, those of the others do not."""
    repeats = Repeats("d:3")
    for number in [*range(MAX_SOURCES), 0, MAX_SOURCES]:
        met(repeats, [5], source=f"topic-{number}:3")
    assert len(repeats.records()) == MAX_SOURCES
    others = [0, *range(2, MAX_SOURCES + 1)]
    assert [met(repeats, [5], source=f"topic-{number}:3") for number in [*others, 1]] == [[]] * len(others) + [[5]]


def test_what_is_remembered_fits_the_state_record() -> None:
    """Full windows of as many sources as there may be leave room for the counts."""
    repeats = Repeats("d:3")
    for number in range(MAX_SOURCES):
        met(repeats, [*range(0, WINDOW, 2)], source=f"{number}{'t' * 247}:3")
    assert len(msgspec.json.encode(repeats.records())) < CountSettings().max_state_bytes / 4


# --- all of it together ----------------------------------------------------------------------------------------------
class Plain:
    """The same, with a set of offsets for each source and nothing clever."""

    def __init__(self) -> None:
        self.seen: dict[str, set[int]] = {}
        self.latest: dict[str, float] = {}

    def is_new(self, source: str, offset: int, at: float) -> bool:
        seen = self.seen.setdefault(source, set())
        newest, latest = max(seen, default=-1), self.latest.get(source, at)
        is_old = offset <= newest - WINDOW
        if offset in seen and at <= latest:
            return False
        if (offset in seen or is_old) and at > latest:
            seen.clear()
        if at > latest or not is_old:
            seen.add(offset)
        self.seen[source] = {known for known in seen if known > max(seen) - WINDOW}
        self.latest[source] = max(at, latest)
        return True


_offset = st.integers(0, 12) | st.sampled_from([edge + by for edge in (WINDOW, 2 * WINDOW) for by in range(-3, 4)])


@given(
    st.lists(st.tuples(st.sampled_from(["a:3", "b:3"]), _offset, st.sampled_from([1.0, 2.0, 3.0]))), st.integers(1, 9)
)
def test_bits_are_as_good_as_sets(events: list[tuple[str, int, float]], every: int) -> None:
    """Any offsets at any times, with a restart from the record now and then, are told as sets of them tell."""
    plain, repeats = Plain(), Repeats("d:3")
    for number, (source, offset, at) in enumerate(events):
        assert bool(met(repeats, [(offset, at)], source=source)) == plain.is_new(source, offset, at)
        if number % every == 0:
            stored = msgspec.json.encode(repeats.records())
            repeats = Repeats("d:3", msgspec.json.decode(stored, type=list[CountedSource]))
