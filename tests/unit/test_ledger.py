"""The ledger: what may be committed, and when."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.ledger import Ledger, Partition, Slice

EVENTS = Partition("content.events", 0)


@dataclass(frozen=True)
class Record:
    """A record with nothing but an offset."""

    offset: int
    timestamp: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def opened(ledger: Ledger, first: int, count: int, partition: Partition = EVENTS) -> Slice:
    piece = Slice(partition, [Record(first + i) for i in range(count)], ledger.epoch, size_bytes=10 * count)
    ledger.open(piece)
    return piece


def test_nothing_is_committable_before_the_first_slice_finishes() -> None:
    """A slice that finished behind an unfinished one commits nothing."""
    ledger = Ledger()
    opened(ledger, 0, 5)
    second = opened(ledger, 5, 5)
    ledger.finish(second)
    assert ledger.committable() == {}


def test_a_finished_prefix_is_committable_up_to_its_end() -> None:
    """The committable offset is the offset after the last record of the finished prefix."""
    ledger = Ledger()
    first, second = opened(ledger, 0, 5), opened(ledger, 7, 3)
    ledger.finish(second)
    ledger.finish(first)
    assert ledger.committable() == {EVENTS: 10}


def test_a_failed_commit_is_offered_again() -> None:
    """Offsets stay committable until the broker is known to have accepted them."""
    ledger = Ledger()
    ledger.finish(opened(ledger, 0, 5))
    assert ledger.committable() == ledger.committable() == {EVENTS: 5}
    ledger.committed({EVENTS: 5})
    assert ledger.committable() == {}


def test_slices_of_a_lost_partition_change_nothing_when_they_finish() -> None:
    """A slice that finishes after its partition was revoked is the new owner's business."""
    ledger = Ledger()
    lost = opened(ledger, 0, 5)
    ledger.revoke_all()
    kept = opened(ledger, 0, 5)
    ledger.finish(lost)
    assert ledger.is_stale(lost)
    assert ledger.committable() == {}
    assert ledger.records_in_hand == 5
    ledger.finish(kept)
    assert ledger.committable() == {EVENTS: 5}


def test_what_is_in_hand_is_counted_in_records_and_bytes() -> None:
    """Opening and finishing keep the sums that bound the memory."""
    ledger = Ledger()
    piece = opened(ledger, 0, 4)
    assert (ledger.records_in_hand, ledger.bytes_in_hand, ledger.is_empty) == (4, 40, False)
    ledger.finish(piece)
    ledger.finish(piece)
    assert (ledger.records_in_hand, ledger.bytes_in_hand, ledger.is_empty) == (0, 0, True)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 3)), max_size=30),
    data=st.data(),
)
def test_committable_never_passes_unfinished_work(sizes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Whatever the order of finishing, no offset at or after an unfinished record is ever committable."""
    ledger, slices, end = Ledger(), [], dict.fromkeys(range(3), 0)
    for number, count, gap in sizes:
        slices.append(opened(ledger, end[number] + gap, count, Partition("t", number)))
        end[number] += gap + count
    for piece in data.draw(st.permutations(slices)):
        ledger.finish(piece)
        for partition, offset in ledger.committable().items():
            open_offsets = [s.records[0].offset for s in slices if s.partition == partition and not s.is_finished]
            assert offset <= min(open_offsets, default=offset)
    expected = {Partition("t", n): e for n, e in end.items() if any(s.partition.partition == n for s in slices)}
    assert ledger.committable() == expected


@pytest.mark.parametrize("serials", [1, 5])
def test_serials_are_consecutive(serials: int) -> None:
    """Every opened slice gets the next serial, whatever its partition, so that a lost one leaves a hole."""
    ledger = Ledger()
    assert [opened(ledger, i, 1, Partition("t", i)).serial for i in range(serials)] == list(range(1, serials + 1))
