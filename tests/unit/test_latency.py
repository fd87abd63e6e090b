from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.latency import Answers, Histogram, Outstanding


def answers(*offsets: int, at: float = 1.0) -> Answers:
    return Answers(np.array(offsets, np.int64), at)


@given(st.lists(st.floats(1e-5, 900.0), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_percentiles_are_exact_to_one_percent(seconds: list[float], percent: float) -> None:
    """A percentile is within 1 % above the duration of that rank in the sorted list."""
    histogram = Histogram()
    histogram.add(np.array(seconds))

    exact = sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1]

    rounding = 1e-6
    assert exact * (1 - rounding) <= histogram.percentile_s(percent) <= exact * (1.01 + rounding)
    assert histogram.longest_s == max(seconds)


def test_no_durations_have_no_percentile() -> None:
    """The percentile of nothing is NaN, not zero: a test without answers must not look fast."""
    assert math.isnan(Histogram().percentile_s(99))


def test_time_counts_from_when_an_event_was_due() -> None:
    """The two durations of an answer count from when its event was due and from when it was sent."""
    outstanding = Outstanding()
    outstanding.sent(100, np.array([1.0, 2.0, 3.0]), sent_at=4.0)

    since_due, since_sent = outstanding.answered(answers(100, 102, at=10.0))

    assert since_due.tolist() == [9.0, 7.0]
    assert since_sent.tolist() == [6.0, 6.0]
    assert outstanding.count == 1


def test_a_repeated_answer_is_a_duplicate() -> None:
    """An event counts as answered once; further answers, together or later, are duplicates."""
    outstanding = Outstanding()
    outstanding.sent(0, np.zeros(3), sent_at=0.0)

    first, _ = outstanding.answered(answers(1, 1, 2))
    again, _ = outstanding.answered(answers(2))

    assert (len(first), len(again)) == (2, 0)
    assert (outstanding.duplicated, outstanding.count) == (2, 1)


def test_an_answer_may_come_before_the_acknowledgement() -> None:
    """An answer read before its event's offset is known is given back with the acknowledgement."""
    outstanding = Outstanding()
    outstanding.sent(0, np.zeros(1), sent_at=0.0)
    assert len(outstanding.answered(answers(1, at=5.0))[0]) == 0

    (early,) = outstanding.sent(1, np.array([2.0]), sent_at=3.0)

    assert early.offsets.tolist() == [1]
    assert outstanding.answered(early)[0].tolist() == [3.0]


def test_other_peoples_events_are_not_waited_for() -> None:
    """Offsets between our batches and before the first belong to others: their answers count for nothing."""
    outstanding = Outstanding()
    outstanding.sent(10, np.zeros(1), sent_at=0.0)
    outstanding.sent(15, np.zeros(1), sent_at=0.0)

    first, _ = outstanding.answered(answers(3, 11, 12, 13, 14))

    assert (len(first), outstanding.count, outstanding.duplicated) == (0, 2, 0)


@pytest.mark.parametrize("batch", [1000, 400_000])
def test_memory_is_bounded_when_answers_come(batch: int) -> None:
    """However much is sent, only the last million or so answered events are remembered."""
    outstanding = Outstanding()
    for first in range(0, 12_000_000, batch):
        outstanding.sent(first, np.zeros(batch), sent_at=0.0)
        outstanding.answered(Answers(np.arange(first, first + batch), 1.0))

    assert outstanding.count == 0
    assert len(outstanding._due) <= 5_000_000
    outstanding.answered(answers(11_999_999))
    assert outstanding.duplicated == 1
