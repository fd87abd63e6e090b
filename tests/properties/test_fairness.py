"""Counts are sums: how decisions were split, sliced, repeated and replayed leaves no trace in the reports."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from random import Random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.fairness.counts import PaneCounts
from stream.fairness.observation import Uncounted
from stream.fairness.state import ClosedPane, PaneRecord, PartitionState, StateRecord
from tests.decisions import START, Record, counted_by, decision, essence, records, state_of, streams, tell

PANE_S = 10.0
COUNTING = CountSettings(pane_s=PANE_S, lateness_s=1000.0)  # nothing made here is late
NARROW = CountSettings(pane_s=PANE_S, lateness_s=5.0)  # and here much is
CROWDED = CountSettings(pane_s=PANE_S, lateness_s=5.0, max_groups=2)  # and here names are wanting too
REPORTING = ReportSettings(min_group_n=2)

Stream = list[bytes | None]
Log = list[StateRecord]


def count(values: Sequence[Record], cuts: Sequence[int], settings: CountSettings) -> Log:
    """Count in slices, each counter continuing from the last one's state, and each slice beginning too early.

    Return the latest record of every key, in the order of keys.
    """
    state: bytes | None = None
    written: dict[bytes, bytes | None] = {}
    for end in [*sorted(cut % (len(values) + 1) for cut in cuts), len(values)]:
        counter = FairnessCounter("t:0", settings, state)
        for begin in (0, counter.next_offset // 2, counter.next_offset):
            counter.count([record for record in values if begin <= record.offset < end])
        snapshot = counter.snapshot()
        written |= dict(snapshot)
        state = state_of(snapshot)
    return sorted((written | dict(FairnessCounter("t:0", settings, state).snapshot())).items())


def merged(log: Log, settings: CountSettings = COUNTING) -> dict[bytes, bytes]:
    """All reports of these records."""
    merger = FairnessMerger(settings, REPORTING)
    tell(merger, log)
    return essence(merger.finish())


@given(streams(seconds=60), st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_any_split_into_partitions_gives_the_same_reports(stream: Stream, homes: list[int]) -> None:
    """One partition or four, in whatever order they are read: every report is the same to the byte."""
    log: Log = []
    for home in (2, 0, 3, 1):
        part = [value for value, its in zip(stream, homes, strict=False) if its == home]
        log += counted_by(f"t:{home}", COUNTING, part)
    assert merged(log) == merged(counted_by("t:0", COUNTING, stream))


@given(streams(seconds=120), st.lists(st.integers(0, 1000), max_size=4), st.sampled_from([COUNTING, NARROW, CROWDED]))
def test_slices_replays_and_restarts_leave_no_trace(stream: Stream, cuts: list[int], settings: CountSettings) -> None:
    """Any slicing, with replays that begin anywhere and a restart at each cut, gives the same records to the byte."""
    assert count(records(stream), cuts, settings) == count(records(stream), [], settings)


@given(streams(seconds=120), st.integers(0, 100))
def test_every_record_is_accounted_for(stream: Stream, start: int) -> None:
    """Each record is counted, late or uncounted for a reason, and in exactly one of them."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count(records(stream, start=start))
    *closed, (_, value) = counter.snapshot()
    state = PartitionState.decode("t:0", value or b"")
    panes = [*state.panes, *(ClosedPane.decode(key, pane or b"").pane for key, pane in closed)]
    assert state.counted + state.late + sum(state.uncounted.values()) == len(stream)
    assert state.counted == sum(pane.decisions for pane in panes)
    assert counter.next_offset == (start + len(stream) if stream else 0)


@given(streams(seconds=30), streams(seconds=30), streams(seconds=30))
def test_merging_is_associative_and_commutative(a: Stream, b: Stream, c: Stream) -> None:
    """Merging a, b and c in one order or another gives the same record, versions included."""

    def pane(*streams: Stream) -> list[PaneCounts]:
        found = []
        for stream in streams:
            state = state_of(counted_by("t:0", CountSettings(pane_s=1e9), stream))
            panes = PartitionState.decode("t:0", state).panes
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
    """Decoding and encoding a record of the state topic gives the bytes it was."""
    *closed, (_, value) = counted_by("t:0", NARROW, stream)
    state = PartitionState.decode("t:0", value or b"")
    assert state.encode() == value
    assert [PaneRecord.of(pane.index, pane.counts()) for pane in state.panes] == state.panes
    for key, pane in closed:
        assert ClosedPane.decode(key, pane or b"").encode() == pane


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
        tell(merger, counters[home].snapshot())
        now += pauses[offset % len(pauses)] if pauses else 0
        published += merger.due(now)
    published += merger.finish()
    assert essence(published) == merged([record for counter in counters.values() for record in counter.snapshot()])


# --- repeats ---------------------------------------------------------------------------------------------------------
@st.composite
def killed(draw: st.DrawFn, topic: str) -> Stream:
    """Decisions of one source, as workers wrote them that were killed: each began where one had got to, or before.

    Some of the events are dead letters.
    """
    times = draw(st.lists(st.integers(0, 900), min_size=1, max_size=30))
    decided = [offset for offset in range(len(times)) if draw(st.integers(0, 4))]
    wrote, begin = list[int](), 0
    for size in draw(st.lists(st.integers(0, 20), max_size=4)):
        wrote += [offset for offset in decided if begin <= offset < begin + size]
        begin = draw(st.integers(0, min(begin + size, len(times))))
    wrote += [offset for offset in decided if offset >= begin]
    return [
        decision(START + times[offset] / 10, groups={"g": [f"{offset % 3}"]}, decision_id=f"{topic}:0:{offset}")
        for offset in wrote
    ]


def about(records_of_state: Log) -> tuple[dict[str, Any], Log]:
    """What the state says, but how far it has read and in which order sources were met; and the closed panes."""
    (_, state), *panes = records_of_state
    said = msgspec.json.decode(state or b"")
    said["sources"].sort(key=itemgetter("source"))
    return {name: value for name, value in said.items() if name != "last_offset"}, panes


@given(
    killed("content.events"),
    killed("other.events"),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 200), max_size=4),
    st.sampled_from([COUNTING, NARROW]),
)
def test_what_killed_workers_wrote_again_leaves_no_trace(
    one: Stream, other: Stream, chance: Random, cuts: list[int], settings: CountSettings
) -> None:
    """Of two sources in one partition each decision counts once, where it was first, and over restarts."""
    sources = [0] * len(one) + [1] * len(other)
    chance.shuffle(sources)
    left = [iter(one), iter(other)]
    written = [next(left[source]) for source in sources]
    once = list(dict.fromkeys(written))
    found, panes = about(count(records(written), cuts, settings))
    repeated = found["uncounted"].pop(Uncounted.REPEATED, 0)
    assert repeated == len(written) - len(once)
    assert (found, panes) == about(count(records(once), [], settings))


# --- the state topic -------------------------------------------------------------------------------------------------
def compacted(log: Log, chance: Random) -> Log:
    """What compaction may leave: the latest record of each key, and of the others any."""
    latest = {key: place for place, (key, _) in enumerate(log)}
    kept = [record for place, record in enumerate(log) if place == latest[record[0]] or chance.random() < 0.3]
    # A deletion goes as well, some time after all that it deleted.
    gone = {key for key, value in log if value is None and chance.random() < 0.3}
    return [record for record in kept if record[0] not in gone or log[latest[record[0]]][1] is not None]


class System:
    """Counters, a state topic, a merger and a topic of reports, of which any but the topics may die at any time."""

    def __init__(self, parts: Sequence[Stream], chance: Random) -> None:
        self.parts, self.chance = [records(part) for part in parts], chance
        self.log: Log = []
        self.published: list[tuple[bytes, bytes]] = []
        self.revisions: dict[bytes, int] = {}
        self.now, self.acknowledged = 0.0, False
        self.merger, self.read = self.fresh(), 0

    def fresh(self) -> FairnessMerger:
        """A new merger that has read what there is, after compaction."""
        self.log = compacted(self.log, self.chance)
        merger = FairnessMerger(NARROW, REPORTING, partitions=[f"t:{number}" for number in range(len(self.parts))])
        tell(merger, self.log)
        self.read, self.acknowledged = len(self.log), False
        return merger

    def count(self, part: int, size: int, *, dies: bool) -> None:
        """Count a slice from where the state says, and write some or all of what there is to write."""
        states = [value for key, value in self.log if key == b"t:%d" % part]
        counter = FairnessCounter(f"t:{part}", NARROW, states[-1] if states else None)
        counter.count(self.parts[part][counter.next_offset :][:size])
        snapshot = counter.snapshot()
        self.log += snapshot[: size % len(snapshot)] if dies else snapshot

    def merge(self, size: int, *, dies: bool) -> None:
        """Take what is new, and write what is due; who dies has written some of it, in the order of each topic."""
        tell(self.merger, self.log[self.read :])
        self.read = len(self.log)
        self.now += size
        done = self.merger.acknowledged() if self.acknowledged else []
        due = self.merger.due(self.now)
        self.log += done[: size % (len(done) + 1)] if dies else done
        self.publish(due[: size % (len(due) + 1)] if dies else due)
        self.acknowledged = True
        if dies:
            self.merger = self.fresh()

    def end(self) -> dict[bytes, bytes]:
        """Count and merge all there is; the last report of each key."""
        for part in range(len(self.parts)):
            self.count(part, 1000, dies=False)
        self.merge(0, dies=False)
        self.publish(self.merger.finish())
        return essence(self.published)

    def publish(self, reports: list[tuple[bytes, bytes]]) -> None:
        """Write reports. One that is made of less than the last of its key would be taken for an older one."""
        for key, report in reports:
            revision = msgspec.json.decode(report)["revision"]
            assert revision >= self.revisions.get(key, 0)
            self.revisions[key] = revision
        self.published += reports


@given(st.lists(streams(seconds=120), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_the_latest_record_of_every_key_is_enough(parts: list[Stream], chance: Random) -> None:
    """Whatever compaction leaves, a new merger makes every report that one makes which has read everything."""
    system = System(parts, chance)
    for _ in range(20):
        part = chance.randrange(len(parts))
        system.count(part, chance.randrange(12), dies=chance.random() < 0.3)
    everything = merged(system.log, NARROW)
    for _ in range(3):
        assert merged(compacted(system.log, chance), NARROW) == everything


@given(st.lists(streams(seconds=120), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_whoever_dies_and_whatever_is_compacted_every_report_is_made(parts: list[Stream], chance: Random) -> None:
    """Workers that die between any two writes leave, in the end, the reports of a merge of everything at once."""
    system = System(parts, chance)
    for _ in range(30):
        part, size = chance.randrange(len(parts)), chance.randrange(12)
        dies = chance.random() < 0.3
        if chance.random() < 0.5:
            system.count(part, size, dies=dies)
        else:
            system.merge(size * 10, dies=dies)
    whole = [record for number, part in enumerate(parts) for record in counted_by(f"t:{number}", NARROW, part)]
    assert system.end() == merged(whole, NARROW)


@given(st.lists(streams(seconds=120), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_what_was_acknowledged_is_not_reported_again(parts: list[Stream], chance: Random) -> None:
    """A new merger publishes nothing that says what the last report of its key said before."""
    system = System(parts, chance)
    for _ in range(20):
        system.count(chance.randrange(len(parts)), chance.randrange(12), dies=False)
        system.merge(chance.randrange(100), dies=False)
    system.merge(1000, dies=False)
    system.merge(0, dies=False)  # the acknowledgement is written
    before = len(system.published)
    system.merger = system.fresh()
    system.merge(0, dies=False)
    system.merge(1000, dies=False)
    assert system.published[before:] == []


@given(streams(seconds=300), st.randoms(use_true_random=False))
def test_panes_do_not_stay_for_ever(stream: Stream, chance: Random) -> None:
    """Closed panes that are reported leave the state topic, also those that a merger had no time to delete."""
    system = System([stream], chance)
    for _ in range(20):
        system.count(0, chance.randrange(12), dies=False)
        system.merge(chance.randrange(10), dies=chance.random() < 0.3)
    system.count(0, 1000, dies=False)
    for _ in range(3):
        system.merge(0, dies=False)
    assert [key for key, value in dict(system.log).items() if b"/" in key and value is not None] == []
