"""The number of an event: a hash of its place that looks like chance and is the same on every replay."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stream.sampling import uniform

OFFSETS = st.lists(st.integers(0, 2**63 - 2), max_size=20)
TOPICS = st.text(st.characters(codec="utf-8"), max_size=20)
MASK = 2**64 - 1


def splitmix64(topic: str, partition: int, offset: int) -> float:
    """SplitMix64 as Steele, Lea and Flood (2014) give it, in whole numbers: output number `offset` of a seed."""
    state = ((zlib.crc32(f"{topic}:{partition}".encode()) << 32) + (offset + 1) * 0x9E3779B97F4A7C15) & MASK
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return ((state ^ (state >> 31)) >> 11) / 2**53


@given(TOPICS, st.integers(0, 4095), OFFSETS)
def test_it_is_splitmix64(topic: str, partition: int, offsets: list[int]) -> None:
    """The numbers are those of the published generator, for every place that Kafka has, to the last bit."""
    numbers = uniform(topic, partition, np.array(offsets, np.int64))
    assert numbers.dtype == np.float64
    assert numbers.tolist() == [splitmix64(topic, partition, offset) for offset in offsets]


@given(TOPICS, OFFSETS)
def test_it_is_at_least_zero_and_below_one(topic: str, offsets: list[int]) -> None:
    """No number is one, so that an audit rate of one audits everything and of zero nothing."""
    numbers = uniform(topic, 0, np.array(offsets, np.int64))
    assert ((numbers >= 0) & (numbers < 1)).all()


def test_the_numbers_are_known_for_good() -> None:
    """An event that was audited is audited again by every later release."""
    numbers = uniform("content.events", 3, np.array([0, 1, 2**40], np.int64))
    assert numbers.tolist() == [0.38226939512908853, 0.6329059278138075, 0.7082914405380207]


@pytest.mark.parametrize("partition", range(4))
def test_consecutive_offsets_are_spread_evenly(partition: int) -> None:
    """A hundred thousand events in a row pass the test of Kolmogorov and Smirnov, and so do their neighbours' gaps."""
    numbers = uniform("content.events", partition, np.arange(100_000))
    assert stats.kstest(numbers, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_partitions_and_topics_draw_apart() -> None:
    """Events with one offset in two partitions, or two topics, are audited independently."""
    offsets = np.arange(10_000)
    drawn = [uniform(topic, partition, offsets) for topic in ("a", "b") for partition in (0, 1)]
    correlation = np.corrcoef(drawn) - np.eye(4)
    assert np.abs(correlation).max() < 0.05
