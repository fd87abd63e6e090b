"""One partition's counter: what is late, what is not counted, and what a restart continues from."""

from __future__ import annotations

import msgspec
import pytest

from stream.errors import ConfigError, StateError
from stream.fairness import CountSettings, FairnessCounter
from stream.fairness.counts import ALL, DECISIONS, Column, Row
from stream.fairness.observation import Uncounted
from stream.fairness.partition import MAX_CLOSED_PANES
from stream.fairness.state import ClosedPane, PartitionState
from stream.fairness.tally import MAX_OUTCOMES, MAX_PENDING
from tests.decisions import START, Record, decision, records
from tests.decisions import state_of as value_of

NARROW = CountSettings(pane_s=10, lateness_s=20)
PANE = START // 10


def state_of(counter: FairnessCounter) -> PartitionState:
    return PartitionState.decode("t:0", value_of(counter.snapshot()))


def counted(*created: float, settings: CountSettings = NARROW) -> FairnessCounter:
    counter = FairnessCounter("t:0", settings)
    counter.count(records([decision(START + seconds) for seconds in created]))
    return counter


def test_a_decision_is_counted_by_group_action_and_harm() -> None:
    """Each decision is in the row of everything, of each axis it has and of each of its groups, once."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count(
        records(
            [
                decision(groups={"language": ["de", "en", "de"]}, harms={"hate": "harmful"}, action="block"),
                decision(groups={"language": ["en"], "gender": []}, harms={"hate": "abstain"}, moderated=False),
                decision(),
            ]
        )
    )
    counts = state_of(counter).panes[0].counts()
    rows = [ALL, Row("language"), Row("language", "de"), Row("language", "en")]
    assert set(counts.rows) == set(rows)
    assert counts.take(rows, DECISIONS).tolist() == [3, 2, 1, 2]
    assert counts.take(rows, Column("moderated")).tolist() == [2, 1, 1, 1]
    assert counts.take(rows, Column("action", "block")).tolist() == [1, 1, 1, 1]
    assert counts.take(rows, Column("harmful", "hate")).tolist() == [1, 1, 1, 1]
    assert counts.take(rows, Column("abstain", "hate")).tolist() == [1, 1, 0, 1]
    assert counts.take(rows, Column("harmless", "hate")).tolist() == [0, 0, 0, 0]


def test_a_pane_is_half_open() -> None:
    """A decision at a pane's start belongs to it, one at its end to the next."""
    assert [pane.index for pane in state_of(counted(0, 9.999999, 10)).panes] == [PANE, PANE + 1]


def test_a_pane_takes_decisions_until_the_watermark_is_past_it_by_the_lateness() -> None:
    """The last moment at which a decision of a pane counts is just before its end plus lateness_s."""
    assert state_of(counted(0, 29.9, 5)).late == 0
    late = state_of(counted(0, 30, 5))
    assert (late.late, late.counted) == (1, 2)
    assert late.closed_before == PANE + 1


def test_what_was_counted_before_is_passed_over_record_by_record() -> None:
    """A slice that begins before the last offset adds its new records only."""
    counter = counted(0, 1, 2)
    counter.count(records([decision(START)] * 3, start=1))
    assert state_of(counter).counted == 4
    assert counter.next_offset == 4


def test_a_new_counter_begins_at_the_beginning() -> None:
    """Without a state nothing is counted, and the next offset is the first."""
    assert FairnessCounter("t:0", NARROW).next_offset == 0
    assert state_of(FairnessCounter("t:0", NARROW)).watermark is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, Uncounted.TOMBSTONE),
        (b"", Uncounted.DECODE_ERROR),
        (b'{"action":', Uncounted.DECODE_ERROR),
        (b"{}", Uncounted.SCHEMA_ERROR),
        (decision(action=""), Uncounted.SCHEMA_ERROR),
        (decision(action="x" * 129), Uncounted.SCHEMA_ERROR),
        (decision(harms={"hate": "perhaps"}), Uncounted.SCHEMA_ERROR),
        (decision(groups={"": ["x"]}), Uncounted.SCHEMA_ERROR),
        (decision(groups={f"axis {i}": ["x"] for i in range(17)}), Uncounted.SCHEMA_ERROR),
        (decision(groups={"g": [str(i) for i in range(33)]}), Uncounted.SCHEMA_ERROR),
        (decision(schema_version=2), Uncounted.SCHEMA_VERSION),
        (b'{"action":"allow","created_at":"2026-01-01T00:00:00"}', Uncounted.SCHEMA_ERROR),
        (b'{"action":"allow","created_at":"2026-01-01T00:00:00Z","groups":["x"]}', Uncounted.SCHEMA_ERROR),
        (b'{"action":"allow","created_at":"9999-12-31T23:59:59Z"}', Uncounted.TIMESTAMP),
    ],
)
def test_what_cannot_be_counted_says_why(value: bytes | None, why: Uncounted) -> None:
    """A record of no use is counted under its reason, and changes nothing else."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count([Record(0, value), Record(1, decision())])
    state = state_of(counter)
    assert (state.uncounted, state.counted, state.watermark) == ({why: 1}, 1, START)


@pytest.mark.parametrize(
    "value",
    [
        b'{"action":"remove","created_at":"2026-01-01T00:00:00Z"}',
        b'{"created_at":"2026-01-01T02:00:00+02:00","action":"remove","harms":null,"groups":null,"more":{"a":[1]}}',
        decision(action="remove", harms={"Hass & Hetze": "abstain"}),
    ],
)
def test_decisions_of_other_systems_are_counted(value: bytes) -> None:
    """An action and a time are enough; harms may be missing or have any name, and unknown fields are passed over."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count([Record(0, value)])
    counts = state_of(counter).panes[0].counts()
    assert counts.take([ALL], Column("action", "remove")).tolist() == [1]


def test_harms_may_come_and_go_from_decision_to_decision() -> None:
    """Each decision counts for the harms it speaks of, whatever the ones before it spoke of."""
    counter = FairnessCounter("t:0", NARROW)
    speaks = [{"hate": "harmful"}, {"hate": "abstain", "spam": "harmless"}, {}, {"spam": "harmful"}]
    counter.count(records([decision(harms=harms) for harms in speaks]))
    counts = state_of(counter).panes[0].counts()
    found = {column: counts.take([ALL], column).item() for column in counts.columns if column.name in {"hate", "spam"}}
    assert found == {
        Column("harmful", "hate"): 1,
        Column("abstain", "hate"): 1,
        Column("harmless", "spam"): 1,
        Column("harmful", "spam"): 1,
    }


def test_a_wrong_clock_does_not_make_the_others_late() -> None:
    """A decision from long after its own record was written is not counted, and the watermark stays."""
    counter = FairnessCounter("t:0", NARROW)
    written_at = START * 1000
    counter.count([Record(0, decision(START + 301), timestamp=written_at), Record(1, decision(), timestamp=written_at)])
    state = state_of(counter)
    assert (state.uncounted, state.watermark) == ({Uncounted.TIMESTAMP: 1}, START)
    counter.count([Record(2, decision(START + 299), timestamp=written_at)])
    assert state_of(counter).watermark == START + 299


def test_a_decision_that_closes_nothing_is_believed() -> None:
    """Whatever the time of its record, a decision of an open pane can make no other late."""
    counter = counted(0)
    counter.count([Record(1, decision(START + 9.9), timestamp=0), Record(2, decision(START + 10), timestamp=0)])
    state = state_of(counter)
    assert (state.counted, state.uncounted) == (2, {Uncounted.TIMESTAMP: 1})


@pytest.mark.parametrize("timestamp", [None, -1])
def test_a_record_without_a_time_is_believed(timestamp: int | None) -> None:
    """Kafka writes -1 where a record has no time of its own."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count([Record(0, decision(), timestamp=timestamp)])
    assert state_of(counter).counted == 1


def test_decisions_from_before_1970_are_late() -> None:
    """Panes begin with 1970; no content was decided before, so these are clocks that were never set."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count([Record(0, decision(-1))])
    assert state_of(counter).late == 1


def test_groups_beyond_the_bound_count_as_other() -> None:
    """The first groups seen have names; a decision with several of the rest is in `other` once."""
    counter = FairnessCounter("t:0", CountSettings(max_groups=2))
    counter.count(records([decision(groups={"g": names}) for names in (["a"], ["b"], ["c", "d"], ["a", "c"])]))
    counts = state_of(counter).panes[0].counts()
    rows = [Row("g", name) for name in ("a", "b", "other")]
    assert counts.take(rows, DECISIONS).tolist() == [2, 1, 2]
    assert len(counts.rows) == len(rows) + 2


def test_names_go_to_those_who_come_first_in_the_pane() -> None:
    """Which groups have a name depends on the records of the pane, not on what was seen in panes before it."""
    counter = FairnessCounter("t:0", CountSettings(pane_s=10, max_groups=1))
    come = [(0, "a"), (1, "b"), (10, "b"), (11, "a")]
    counter.count(records([decision(START + second, groups={"g": [name]}) for second, name in come]))
    named = [[row.group for row in pane.rows if row.group] for pane in state_of(counter).panes]
    assert named == [["a", "other"], ["b", "other"]]


def test_a_closed_pane_is_written_once_under_a_key_of_its_own() -> None:
    """Before the state that has it no more; the next snapshot has it neither."""
    counter = counted(0, 5, 15)
    counter.count(records([decision(START + 100)], start=3))
    *closed, (key, value) = counter.snapshot()
    assert [pane for pane, _ in closed] == [b"t:0/%d" % PANE, b"t:0/%d" % (PANE + 1)]
    assert [ClosedPane.decode(pane, value or b"").pane.decisions for pane, value in closed] == [2, 1]
    assert key == b"t:0"
    state = PartitionState.decode("t:0", value or b"")
    assert [pane.index for pane in state.panes] == [PANE + 10]
    assert (state.counted, state.uncounted) == (4, {})
    assert counter.snapshot() == [(key, value)]


def test_a_state_of_before_closed_panes_had_records_is_read() -> None:
    """Its closed panes get theirs, and nothing is counted again or lost."""
    counter = counted(0, 5)
    pane = state_of(counter).panes[0]
    counter.count(records([decision(START + 100)], start=2))
    state = msgspec.json.decode(value_of(counter.snapshot()))
    state["panes"] = [msgspec.to_builtins(pane), *state["panes"]]
    del state["sources"]
    (key, value), (_, after) = FairnessCounter("t:0", NARROW, msgspec.json.encode(state)).snapshot()
    assert ClosedPane.decode(key, value or b"").pane == pane
    assert PartitionState.decode("t:0", after or b"") == state_of(counter)


def test_many_closed_panes_ask_for_a_snapshot() -> None:
    """A snapshot is due once more panes have closed than should be kept in memory, and no longer after it."""
    counter = counted(0)
    counter.snapshot()
    assert not counter.snapshot_due
    counter.count(records([decision(START + 10 * MAX_CLOSED_PANES)], start=1))
    assert not counter.snapshot_due
    counter.count(records([decision(START + 10 * MAX_CLOSED_PANES + 30)], start=2))
    assert counter.snapshot_due
    counter.snapshot()
    assert not counter.snapshot_due


def test_a_state_that_grows_too_large_drops_its_oldest_panes_and_says_so() -> None:
    """What was in them becomes uncounted, the record fits, and what comes for them later is late."""
    small = CountSettings(pane_s=10, lateness_s=500, max_state_bytes=3000)
    counter = FairnessCounter("t:0", small)
    counter.count(records([decision(START + i, groups={"g": [f"group {i}"]}) for i in range(100)]))
    value = value_of(counter.snapshot())
    state = PartitionState.decode("t:0", value)
    assert len(value) <= 3000
    assert 0 < state.counted < 100
    assert state.counted + state.uncounted[Uncounted.PANE_DROPPED] == 100
    counter.count(records([decision(START)], start=100))
    assert state_of(counter).late == 1


@pytest.mark.parametrize("later", [[], [decision(START + 1000)]], ids=["open", "closed"])
def test_one_pane_too_large_is_dropped_too(later: list[bytes]) -> None:
    """No names a producer invents make a record that Kafka refuses, of a partition or of a pane."""
    counter = FairnessCounter("t:0", CountSettings(max_state_bytes=2000))
    counter.count(records([*(decision(groups={"g": [f"{i} {'x' * 100}"]}) for i in range(100)), *later]))
    ((_, value),) = counter.snapshot()
    state = PartitionState.decode("t:0", value or b"")
    assert len(value or b"") <= 2000
    assert (state.uncounted, state.counted) == ({Uncounted.PANE_DROPPED: 100}, len(later))
    assert state.dropped_before > START // 60


def test_another_pane_width_begins_anew_after_the_watermark() -> None:
    """Panes of the old width leave, what was open in them becomes uncounted, and nothing counts twice."""
    before = value_of(counted(0, 100, 101).snapshot())
    counter = FairnessCounter("t:0", CountSettings(pane_s=7, lateness_s=20), before)
    counter.count(records([decision(START + 102), decision(START + 120)], start=3))
    state = state_of(counter)
    assert state.uncounted == {Uncounted.PANE_DROPPED: 2}
    assert (state.counted, state.late) == (2, 1)
    assert [pane.index for pane in state.panes] == [(START + 120) // 7]
    assert state.dropped_before > state.panes[0].index - 3


def test_a_lower_lateness_after_a_restart_opens_no_closed_pane() -> None:
    """What is closed stays closed when lateness_s is raised."""
    before = value_of(counted(0, 100).snapshot())
    counter = FairnessCounter("t:0", CountSettings(pane_s=10, lateness_s=1000), before)
    counter.count(records([decision(START + 1), decision(START + 101)], start=2))
    assert state_of(counter).late == 1
    assert state_of(counter).closed_before == PANE + 8


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"partition": "t:1"},
        {"panes": [{"index": 0, "decisions": 1, "rows": [["", ""]], "columns": [], "cells": [[1]], "versions": []}]},
        {
            "panes": [
                {"index": 0, "decisions": 1, "rows": [["", ""]] * 2, "columns": [], "cells": [[], []], "versions": []}
            ]
        },
        {"panes": [{"index": 0, "decisions": -1, "rows": [], "columns": [], "cells": [], "versions": []}]},
        {"counted": "1"},
    ],
)
def test_a_state_that_cannot_be_continued_from_stops_the_worker(change: dict[str, object]) -> None:
    """Going on without it would lose or double what it holds; the error names the partition and what to do."""
    state = msgspec.json.encode(msgspec.json.decode(value_of(counted(0).snapshot())) | change)
    with pytest.raises(StateError, match=r"t:0 is not usable.*tombstone"):
        FairnessCounter("t:0", NARROW, state)


def test_bytes_that_are_no_state_stop_the_worker() -> None:
    """A record that is not JSON is no state."""
    with pytest.raises(StateError):
        FairnessCounter("t:0", NARROW, b"\xff")


def test_a_lateness_of_too_many_panes_is_refused() -> None:
    """Each open pane is part of every snapshot."""
    with pytest.raises(ConfigError, match="lateness_s"):
        CountSettings(pane_s=1, lateness_s=604_800)


def test_decisions_that_all_differ_are_all_counted() -> None:
    """When more outcomes are known than are kept, those so far are counted, and none is lost."""
    counter = FairnessCounter("t:0", NARROW)
    values = [decision(policy=f"{i}", groups={"g": ["a"]}) for i in range(MAX_OUTCOMES + 2)]
    counter.count(records(values))
    counts = state_of(counter).panes[0].counts()
    assert counts.take([ALL, Row("g", "a")], DECISIONS).tolist() == [len(values)] * 2


def test_many_decisions_do_not_wait_for_a_snapshot() -> None:
    """However long it is until the next snapshot, the memory for decisions not yet spread is bounded."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count(records([decision(groups={"g": ["a"]})] * (MAX_PENDING + 1)))
    assert counter._tally.counted == MAX_PENDING + 1
    assert state_of(counter).counted == MAX_PENDING + 1


def test_a_pane_of_nothing_that_counts_is_no_pane() -> None:
    """Decisions whose groups cannot be read leave no trace but their reason."""
    counter = FairnessCounter("t:0", NARROW)
    counter.count(records([decision(groups={"": []}, action="new")] * 2))
    state = state_of(counter)
    assert (state.panes, state.uncounted) == ([], {Uncounted.SCHEMA_ERROR: 2})


def test_a_mapping_makes_decisions_of_foreign_records() -> None:
    """What the mapping returns is counted; None means that it could not."""
    counter = FairnessCounter("t:0", NARROW, mapping={b"yes": decision(), b"no": None}.__getitem__)
    counter.count([Record(0, b"yes"), Record(1, b"no"), Record(2, None)])
    state = state_of(counter)
    assert (state.counted, state.uncounted) == (1, {Uncounted.MAPPING_ERROR: 1, Uncounted.TOMBSTONE: 1})
