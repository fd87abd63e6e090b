"""Counts are sums: how decisions were split, sliced and replayed leaves no trace in the reports."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.fairness.counts import PaneCounts
from stream.fairness.state import PaneRecord, PartitionState
from tests.decisions import Record, essence, records, streams

PANE_S = 10.0
COUNTING = CountSettings(pane_s=PANE_S, lateness_s=1000.0)  # nothing made here is late
NARROW = CountSettings(pane_s=PANE_S, lateness_s=5.0)  # and here much is
CROWDED = CountSettings(pane_s=PANE_S, lateness_s=5.0, max_groups=2)  # and here names are wanting too
REPORTING = ReportSettings(min_group_n=2)

Stream = list[bytes | None]


def count(values: Sequence[Record], cuts: Sequence[int], settings: CountSettings) -> bytes:
    """Count in slices, each counter continuing from the last one's snapshot, and each slice beginning too early."""
    state: bytes | None = None
    for end in [*sorted(cut % (len(values) + 1) for cut in cuts), len(values)]:
        counter = FairnessCounter("t:0", settings, state)
        for begin in (0, counter.next_offset // 2, counter.next_offset):
            counter.count([record for record in values if begin <= record.offset < end])
        state = counter.snapshot()
    return FairnessCounter("t:0", settings, state).snapshot()


def merged(states: dict[str, bytes]) -> dict[bytes, bytes]:
    """All reports of these partitions."""
    merger = FairnessMerger(COUNTING, REPORTING)
    for name, state in states.items():
        merger.update(name.encode(), state)
    return essence(merger.finish())


@given(streams(seconds=60), st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_any_split_into_partitions_gives_the_same_reports(stream: Stream, homes: list[int]) -> None:
    """One partition or four, in whatever order they are read: every report is the same to the byte."""
    whole = FairnessCounter("t:0", COUNTING)
    whole.count(records(stream))
    states = {}
    for home in (2, 0, 3, 1):
        part = FairnessCounter(f"t:{home}", COUNTING)
        part.count(records([value for value, its in zip(stream, homes, strict=False) if its == home]))
        states[f"t:{home}"] = part.snapshot()
    assert merged(states) == merged({"t:0": whole.snapshot()})


@given(streams(seconds=120), st.lists(st.integers(0, 1000), max_size=4), st.sampled_from([COUNTING, NARROW, CROWDED]))
def test_slices_replays_and_restarts_leave_no_trace(stream: Stream, cuts: list[int], settings: CountSettings) -> None:
    """Any slicing, with replays that begin anywhere and a restart at each cut, gives the same state to the byte."""
    assert count(records(stream), cuts, settings) == count(records(stream), [], settings)


@given(streams(seconds=120), st.integers(0, 100))
def test_every_record_is_accounted_for(stream: Stream, start: int) -> None:
    """Each record is counted, late or uncounted for a reason, and in exactly one of them."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count(records(stream, start=start))
    state = PartitionState.decode("t:0", counter.snapshot())
    assert state.counted + state.late + sum(state.uncounted.values()) == len(stream)
    assert state.counted == sum(pane.decisions for pane in state.panes)
    assert counter.next_offset == (start + len(stream) if stream else 0)


@given(streams(seconds=30), streams(seconds=30), streams(seconds=30))
def test_merging_is_associative_and_commutative(a: Stream, b: Stream, c: Stream) -> None:
    """Merging a, b and c in one order or another gives the same record, versions included."""

    def pane(*streams: Stream) -> list[PaneCounts]:
        found = []
        for stream in streams:
            counter = FairnessCounter("t:0", CountSettings(pane_s=1e9))
            counter.count(records(stream))
            panes = PartitionState.decode("t:0", counter.snapshot()).panes
            found.append(panes[0].counts() if panes else PaneCounts())
        return found

    left = PaneCounts()
    for part in pane(a, b, c):
        left.merge(part)
    one, two, three = pane(a, b, c)
    two.merge(one)
    three.merge(two)
    assert PaneRecord.of(0, left) == PaneRecord.of(0, three)


@given(streams(seconds=120))
def test_a_state_record_survives_json(stream: Stream) -> None:
    """Decoding and encoding a state record gives the bytes it was."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count(records(stream))
    snapshot = counter.snapshot()
    state = PartitionState.decode("t:0", snapshot)
    assert state.encode() == snapshot
    assert [PaneRecord.of(pane.index, pane.counts()) for pane in state.panes] == state.panes


@given(streams(seconds=300), st.integers(1, 20))
def test_a_merger_that_restarts_publishes_what_was_published(stream: Stream, step: int) -> None:
    """A merger that saw every snapshot and one that sees only the last agree on every report both make."""
    counter, merger = FairnessCounter("t:0", NARROW), FairnessMerger(NARROW, REPORTING)
    published = []
    for begin in range(0, len(stream), step):
        counter.count(records(stream[begin : begin + step], start=begin))
        merger.update(b"t:0", counter.snapshot())
        published += merger.due(0.0)
    merger.update(b"t:0", counter.snapshot())
    published += merger.finish()
    again = FairnessMerger(NARROW, REPORTING)
    again.update(b"t:0", counter.snapshot())
    assert essence(again.finish()).items() <= essence(published).items()


@given(streams(seconds=60), st.lists(st.integers(0, 2), min_size=60, max_size=60), st.lists(st.integers(0, 99)))
def test_the_last_report_does_not_depend_on_when_it_was_asked_for(
    stream: Stream, homes: list[int], pauses: list[int]
) -> None:
    """Whatever was reported too early, of partitions taken for idle, is revised to what a merge of all gives."""
    counters = {home: FairnessCounter(f"t:{home}", COUNTING) for home in range(3)}
    merger = FairnessMerger(COUNTING, REPORTING)
    published, now = [], 0.0
    for offset, (value, home) in enumerate(zip(stream, homes, strict=False)):
        counters[home].count([Record(offset, value)])
        merger.update(f"t:{home}".encode(), counters[home].snapshot())
        now += pauses[offset % len(pauses)] if pauses else 0
        published += merger.due(now)
    published += merger.finish()
    assert essence(published) == merged({f"t:{home}": counter.snapshot() for home, counter in counters.items()})
