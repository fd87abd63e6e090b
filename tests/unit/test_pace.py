"""How large a unit may be, for works that take any time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.ledger import UNIT_MAX_BYTES
from stream.kafka.pace import GROWTH, LONGEST, UNIT_S, Pace

MOST = 1024
Cost = Callable[[int], float]


def work(pace: Pace, cost: Cost, *, units: int, each_bytes: int = 100) -> list[tuple[int, float]]:
    """Records and seconds of units as large as they may be, of records of one size."""
    done = []
    for _ in range(units):
        records = max(1, min(pace.records, pace.size_bytes // each_bytes))
        done.append((records, cost(records)))
        pace.learn(records, records * each_bytes, done[-1][1])
    return done


def new_pace() -> Pace:
    return Pace(max_records=MOST, unit_s=UNIT_S)


def test_quick_work_comes_to_the_bounds_at_once() -> None:
    """Of a linear model's records the eleventh unit is as large as one may be, and all after it."""
    done = work(new_pace(), lambda records: 2e-5 * records, units=100)
    assert [records for records, _ in done[:11]] == [2**at for at in range(11)]
    assert {records for records, _ in done[11:]} == {MOST}


@given(st.floats(1e-6, 20), st.integers(1, UNIT_MAX_BYTES))
def test_a_unit_takes_its_time_whatever_a_record_takes(each_s: float, each_bytes: int) -> None:
    """Units settle within their time and one record more, and none has less than half of what would fit."""
    done = work(new_pace(), lambda records: each_s * records, units=60, each_bytes=each_bytes)
    assert all(seconds <= max(UNIT_S + each_s, GROWTH * each_s) * 1.001 for _, seconds in done)
    in_full = min(MOST, UNIT_S / each_s, UNIT_MAX_BYTES / each_bytes)
    assert all(records >= math.floor(in_full) / GROWTH for records, _ in done[20:])


@pytest.mark.parametrize(("each_s", "pairs"), [(1.25 * UNIT_S, 10), (10 * UNIT_S, 0)])
def test_two_records_that_take_too_long_are_hardly_ever_together(each_s: float, pairs: int) -> None:
    """Where one record takes a little more than a unit is to, one unit in thirty has two; where ten times, none."""
    done = work(new_pace(), lambda records: each_s * records, units=320)
    assert sum(records > 1 for records, _ in done) == pairs


@pytest.mark.parametrize("call_s", [0.01, 0.3, 0.9, 3.0])
def test_calls_that_take_as_long_for_one_row_are_filled(call_s: float) -> None:
    """Where a call takes its time for one record as for fifty, at least two thirds of the best pace are kept."""
    done = work(new_pace(), lambda records: call_s * math.ceil(records / 50), units=200)[50:]
    records, seconds = (sum(values) for values in zip(*done, strict=True))
    best = 50 / call_s
    assert records / seconds > 2 / 3 * best
    assert max(seconds for _, seconds in done) <= max(LONGEST * UNIT_S, 2 * call_s)


def test_a_record_that_costs_nothing_before_calls_that_do() -> None:
    """The first record being a dead letter, made in no time, hides for a moment only what a call takes."""
    pace = new_pace()
    pace.learn(1, 100, 0.0)
    assert work(pace, lambda records: 3.0 * math.ceil(records / 50), units=30)[-1][0] > 25


def test_what_suddenly_takes_long_takes_long_once() -> None:
    """After easy records hard ones, a hundred times as slow: one unit is too long, the next one is not."""
    pace = new_pace()
    work(pace, lambda records: 2e-4 * records, units=30)
    done = work(pace, lambda records: 2e-2 * records, units=5)
    assert [seconds > 1.001 * UNIT_S for _, seconds in done] == [True, False, False, False, False]


def test_long_records_after_short_ones_are_begun_with_carefully() -> None:
    """Bytes grow as records do: 4 kB records after 100 B ones begin with what twice the bytes of those were."""
    pace = new_pace()
    work(pace, lambda records: 5e-4 * records, units=30, each_bytes=100)
    first, *_ = work(pace, lambda records: 5e-4 * 40 * records, units=1, each_bytes=4000)
    assert first[0] <= GROWTH * MOST * 100 // 4000


def test_long_records_that_take_too_long_make_shorter_units_in_bytes() -> None:
    """After a unit of ten times its time the next has a tenth of its bytes, however few records that are."""
    pace = new_pace()
    work(pace, lambda records: 1e-4 * records, units=30, each_bytes=1000)
    pace.learn(100, 500_000, 10 * UNIT_S)
    assert (pace.records, pace.size_bytes) == (10, 50_000)


def test_little_work_says_nothing_against_much() -> None:
    """After an hour of single records the next burst is worked on in full units."""
    pace = new_pace()
    work(pace, lambda records: 1e-4 * records, units=30)
    for _ in range(1000):
        pace.learn(1, 100, 0.2)
    assert pace.records == MOST


def test_without_a_time_only_the_bounds_hold() -> None:
    """A stage that gathers what it can has units of the largest size from the first on, whatever they take."""
    pace = Pace(max_records=MOST)
    assert {records for records, _ in work(pace, lambda _: 1e6, units=5)} == {MOST}


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 10_000), st.floats(0, 100, allow_subnormal=False)),
        min_size=1,
        max_size=60,
    )
)
def test_no_unit_is_more_than_twice_what_was_fast_enough(units: list[tuple[float, int, float]]) -> None:
    """Of any units there is always one record more to take, and never more than twice what was shown, or the bounds."""
    pace, shown, shown_bytes = new_pace(), 1, 0
    for part, each_bytes, seconds in units:
        assert 1 <= pace.records <= min(MOST, GROWTH * shown)
        assert 0 <= pace.size_bytes <= min(UNIT_MAX_BYTES, GROWTH * shown_bytes)
        records = max(1, min(math.ceil(part * pace.records), pace.size_bytes // each_bytes))
        shown, shown_bytes = max(shown, records), max(shown_bytes, records * each_bytes)
        pace.learn(records, records * each_bytes, seconds)
