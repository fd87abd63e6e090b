"""The ledger: what may be committed, and when."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.ledger import Ledger, Partition, Slice, size_of

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


@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=12), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 120)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_cut_slices_are_the_records_in_order(
    sizes: list[list[int]], bounds: list[tuple[int, int]], random: Random
) -> None:
    """However slices are cut and in whatever order the pieces finish, no record, no byte and no offset is lost."""
    ledger, pieces, first = Ledger(), list[Slice](), 0
    for of_slice in sizes:
        records = [Record(first + at, value=bytes(size)) for at, size in enumerate(of_slice)]
        pieces.append(Slice(EVENTS, records, ledger.epoch, sum(of_slice)))
        ledger.open(pieces[-1])
        first += len(records)
    for max_records, max_bytes in bounds:
        at = random.randrange(len(pieces))
        rest = ledger.cut(pieces[at], max_records=max_records, max_bytes=max_bytes)
        assert len(pieces[at].records) == 1 or pieces[at].size_bytes <= max_bytes
        assert 1 <= len(pieces[at].records) <= max_records
        pieces[at + 1 : at + 1] = [] if rest is None else [rest]
    assert [record.offset for piece in pieces for record in piece.records] == list(range(first))
    assert all(piece.size_bytes == sum(map(size_of, piece.records)) for piece in pieces)
    unfinished = set(range(first))
    for piece in random.sample(pieces, len(pieces)):
        ledger.finish(piece)
        unfinished -= {record.offset for record in piece.records}
        end = min(unfinished, default=first)
        assert ledger.committable().get(EVENTS, 0) <= end
    assert ledger.committable() == {EVENTS: first}
    assert ledger.is_empty
    assert ledger.bytes_in_hand == 0


def test_a_slice_that_fits_or_is_stale_is_not_cut() -> None:
    """There is no rest where all is within the bounds, nor where nobody will work on it."""
    ledger = Ledger()
    piece = opened(ledger, 0, 5)
    assert ledger.cut(piece, max_records=5, max_bytes=50) is None
    ledger.revoke_all()
    assert ledger.cut(piece, max_records=1, max_bytes=1) is None
    assert len(piece.records) == 5
