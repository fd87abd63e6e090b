"""Hostile decisions: nothing in a record raises, and no names a producer invents grow the state beyond its bounds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.fairness.counts import DECISIONS, MAX_VERSIONS
from stream.fairness.observation import MAX_HARMS, DecisionReader, Uncounted
from stream.fairness.state import PartitionState
from stream.fairness.tally import MAX_AXES, MAX_COLUMNS, MAX_KNOWN_BYTES
from tests.decisions import START, Record, decision, records, state_of, tell

GOOD = decision(groups={"g": ["é"]}, harms={"hate": "abstain"})
PLAIN = b'{"action":"allow","created_at":"2026-01-01T00:00:00Z",%s}'


def through(*values: bytes | None) -> PartitionState:
    """Count, snapshot, merge and report; return the state."""
    counter, merger = FairnessCounter("t:0", CountSettings()), FairnessMerger(CountSettings(), ReportSettings(1))
    counter.count(records(values))
    snapshot = counter.snapshot()
    tell(merger, snapshot)
    merger.finish()
    return PartitionState.decode("t:0", state_of(snapshot))


def accounted(state: PartitionState) -> int:
    return state.counted + state.late + sum(state.uncounted.values())


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_as_something(value: bytes) -> None:
    """No bytes raise."""
    assert accounted(through(value)) == 1


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@example([(GOOD.index(b"\xc3"), 0xFF)])
def test_a_decision_with_flipped_bytes_is_counted_as_something(flips: list[tuple[int, int]]) -> None:
    """Bytes that are nearly a decision raise no more than any others."""
    value = bytearray(GOOD)
    for position, byte in flips:
        value[position] = byte
    assert accounted(through(bytes(value), GOOD)) == 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (b'"x":' + b"[" * 100_000, Uncounted.DECODE_ERROR),
        (b'"harms":' + b'{"a":' * 100_000, Uncounted.DECODE_ERROR),
        (b'"groups":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000, Uncounted.DECODE_ERROR),
        (b'"groups":{"g":["\xff"]}', Uncounted.SCHEMA_ERROR),
        (b'"groups":{"g":["\\ud800"]}', Uncounted.DECODE_ERROR),
        (b'"harms":{"a\\"b":{"selection":"abstain"}}', Uncounted.SCHEMA_ERROR),
        (b'"harms":{"\\u0000":{"selection":"abstain"}}', Uncounted.SCHEMA_ERROR),
        (b'"harms":{"%s":{"selection":"abstain"}}' % (b"x" * 129), Uncounted.SCHEMA_ERROR),
        (b'"schema_version":99999999999999999999', Uncounted.SCHEMA_VERSION),
        (b'"schema_version":1e400', Uncounted.SCHEMA_ERROR),
        (b'"moderated":"yes"', Uncounted.SCHEMA_ERROR),
        (b'"bundle":"%s"' % (b"x" * 129), Uncounted.SCHEMA_ERROR),
        (b'"groups":{"g":["%s"]}' % (b"x" * 129), Uncounted.SCHEMA_ERROR),
    ],
)
def test_hostile_fields_are_uncounted_for_a_reason(fields: bytes, why: Uncounted) -> None:
    """Depth, size, text that is not Unicode and names that cannot be: each has its reason, and the rest is counted."""
    state = through(PLAIN % fields, GOOD)
    assert (state.uncounted, state.counted) == ({why: 1}, 1)


def test_invented_groups_and_axes_stay_within_bounds() -> None:
    """Rows are bounded whatever the names; every decision still counts."""
    values = [decision(groups={f"axis {i % 200}": [f"group {i}"]}) for i in range(3000)]
    counter = FairnessCounter("t:0", CountSettings(max_groups=100))
    counter.count(records(values))
    state = PartitionState.decode("t:0", state_of(counter.snapshot()))
    assert state.counted == 3000
    counts = state.panes[0].counts()
    assert len(counts.rows) <= 1 + 100 + 2 * (MAX_AXES + 1)
    assert sum(counts.take([row for row in counts.rows if row.axis and not row.group], DECISIONS)) == 3000


def test_invented_versions_stay_within_bounds() -> None:
    """A pane remembers one version more than it would report, however many there are."""
    state = through(*(decision(policy=f"{i}") for i in range(100)))
    assert len(state.panes[0].versions) == MAX_VERSIONS + 1


def test_what_is_remembered_is_bounded() -> None:
    """Neither many combinations of groups nor long ones, nor many harms, are kept in memory for ever."""
    counter = FairnessCounter("t:0", CountSettings())
    long = [b'"groups":{%s"g":["%d"]}' % (b" " * 500_000, i) for i in range(100)]
    many = [b'"groups":{"g":[%s]}' % b",".join(b'"%d"' % (32 * i + j) for j in range(32)) for i in range(4500)]
    for values in (long, many):
        counter.count(records([PLAIN % fields for fields in values], start=counter.next_offset))
        assert counter._tally._known_bytes <= MAX_KNOWN_BYTES + 1_000_000
    assert PartitionState.decode("t:0", state_of(counter.snapshot())).counted == len(long) + len(many)
    reader = DecisionReader()
    for i in range(MAX_HARMS + 10):
        reader.read(decision(harms={f"harm {i}": "abstain"}))
    assert len(reader._known) <= MAX_HARMS


def test_invented_harms_stay_within_bounds() -> None:
    """Columns are bounded; decisions that would need more are uncounted for that reason."""
    state = through(*(decision(harms={f"harm {i}": "abstain"}) for i in range(1000)))
    assert len(state.panes[0].columns) <= MAX_COLUMNS
    assert state.counted + state.uncounted[Uncounted.TOO_MANY_NAMES] == 1000


def test_more_harms_than_a_decision_may_have_are_refused() -> None:
    """One decision cannot bring more harms than a bundle could."""
    state = through(decision(harms={f"harm {i}": "abstain" for i in range(65)}))
    assert state.uncounted == {Uncounted.SCHEMA_ERROR: 1}


def test_a_flood_of_new_harms_does_not_shut_out_the_known_ones() -> None:
    """A reader that met too many names starts over, and goes on reading what it read before."""
    flood = [decision(harms={f"harm {i}": "abstain"}) for i in range(70)]
    assert through(GOOD, *flood, GOOD).counted == 72


@pytest.mark.parametrize(
    "created_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1970-01-01T00:00:00Z"]
)
def test_the_ends_of_time_are_no_trouble(created_at: str) -> None:
    """Times that no clock shows are counted as something, and reports have dates."""
    assert accounted(through(b'{"action":"a","created_at":"%s"}' % created_at.encode(), GOOD)) == 2


def test_a_decision_that_is_refused_closes_nothing() -> None:
    """Groups that cannot be counted cannot be used to make other decisions late."""
    state = through(decision(START + 31_536_000, groups={"g": ["x" * 129]}), GOOD)
    assert (state.counted, state.late, state.uncounted) == (1, 0, {Uncounted.SCHEMA_ERROR: 1})


def test_one_time_from_the_future_closes_nothing() -> None:
    """A decision of next year, in a record of today, makes no decision of today late."""
    counter = FairnessCounter("t:0", CountSettings())
    now_ms = START * 1000
    counter.count([Record(0, decision(START + 31_536_000), now_ms), Record(1, GOOD, now_ms)])
    state = PartitionState.decode("t:0", state_of(counter.snapshot()))
    assert (state.counted, state.late, state.uncounted) == (1, 0, {Uncounted.TIMESTAMP: 1})
