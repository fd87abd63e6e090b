"""The merger: when a pane closes for all partitions, when it is revised, and what a restart publishes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.fairness import merge as merge_module
from stream.fairness.observation import Uncounted
from stream.fairness.state import StateRecord
from tests.decisions import START, Record, decision, essence, read, records, tell

COUNTING = CountSettings(pane_s=10, lateness_s=20)
REPORTING = ReportSettings(min_group_n=1, idle_s=60)
NEVER = 0.0
"""A clock that stands still: nobody is ever idle."""

Published = list[tuple[bytes, bytes]]


class Source:
    """A partition with its counter, whose every snapshot goes to the merger."""

    def __init__(self, merger: FairnessMerger, name: str = "t:0", counting: CountSettings = COUNTING) -> None:
        self.merger, self.name = merger, name
        self.counter = FairnessCounter(name, counting)

    def at(self, *seconds: float) -> list[StateRecord]:
        """Count decisions created at these seconds after the start; return what was written."""
        values = [decision(START + second, groups={"g": ["a"]}) for second in seconds]
        self.counter.count(records(values, start=self.counter.next_offset))
        snapshot = self.counter.snapshot()
        tell(self.merger, snapshot)
        return snapshot


def panes(published: Published) -> list[tuple[int, int]]:
    """Each pane reported, in seconds after the start, with the decisions in it; once for each time it was reported."""
    reports = [report for report in read(published) if report.quantity == "moderated_rate"]
    return [(int(report.pane_start.timestamp()) - START, report.revision) for report in reports]


def merger_of(names: Iterable[str] = ()) -> FairnessMerger:
    return FairnessMerger(COUNTING, REPORTING, partitions=names)


def restarted(log: Iterable[StateRecord]) -> FairnessMerger:
    """A new merger that has read the state topic."""
    merger = merger_of(["t:0", "t:1"])
    tell(merger, log)
    return merger


def test_a_pane_is_reported_once_when_it_closes() -> None:
    """Not before the watermark is past its end by the lateness, and not again when nothing has changed."""
    merger = merger_of()
    source = Source(merger)
    source.at(0, 1, 29)
    assert panes(merger.due(NEVER)) == []
    source.at(30)
    assert panes(merger.due(NEVER)) == [(0, 2)]
    source.at(31)
    assert panes(merger.due(NEVER)) == []


def test_the_slowest_partition_closes_panes() -> None:
    """A partition that is ahead closes nothing for one that is behind."""
    merger = merger_of()
    ahead, behind = Source(merger, "t:0"), Source(merger, "t:1")
    behind.at(0)
    ahead.at(1, 1000)
    assert panes(merger.due(NEVER)) == []
    behind.at(30)
    assert panes(merger.due(NEVER)) == [(0, 2)]


def test_partitions_that_are_expected_are_waited_for() -> None:
    """The first partition to be read is not taken for the only one."""
    merger = merger_of(["t:0", "t:1"])
    Source(merger, "t:0").at(0, 100)
    assert panes(merger.due(NEVER)) == []
    Source(merger, "t:1").at(1, 100)
    assert panes(merger.due(NEVER)) == [(0, 2)]


def test_an_idle_partition_holds_nobody_back() -> None:
    """After idle_s without progress of its watermark a partition is not waited for, and the report says so."""
    merger = merger_of(["t:1"])
    Source(merger, "t:1").at(0)
    busy = Source(merger, "t:0")
    busy.at(1, 100)
    assert panes(merger.due(1000.0)) == []
    busy.at(101)
    assert panes(merger.due(1059.9)) == []
    published = merger.due(1060.0)
    assert panes(published) == [(0, 2)]
    assert {report.basis.waiting for report in read(published)} == {1}


def test_snapshots_without_progress_are_idle_too() -> None:
    """A partition of nothing but unreadable records writes states, yet its watermark stands still."""
    merger = merger_of()
    stuck, busy = Source(merger, "t:0"), Source(merger, "t:1")
    stuck.at(0)
    busy.at(1, 100)
    merger.due(0.0)
    stuck.counter.count([Record(1, b"?")])
    tell(merger, stuck.counter.snapshot())
    busy.at(101)
    assert panes(merger.due(60.0)) == [(0, 2)]


def test_a_pane_that_all_have_closed_is_done_with() -> None:
    """A partition that turns up later with decisions of it cannot replace its report by one of these alone."""
    merger = merger_of()
    Source(merger, "t:0").at(0, 1, 100)
    assert panes(merger.due(NEVER)) == [(0, 2)]
    Source(merger, "t:1").at(2, 100)
    assert panes(merger.finish()) == [(100, 2)]


def test_a_partition_is_waiting_until_it_has_closed_the_pane() -> None:
    """The basis counts who could still bring decisions: having closed the pane before is not enough."""
    merger = merger_of()
    first, second = Source(merger, "t:0"), Source(merger, "t:1")
    first.at(10, 40)
    second.at(10, 30)
    reports = read(merger.finish())
    waiting = {(int(report.pane_start.timestamp()) - START, report.basis.waiting) for report in reports}
    assert waiting == {(10, 1), (30, 2), (40, 2)}


def test_a_partition_that_returns_revises_what_was_reported_without_it() -> None:
    """Once it has closed a pane that was reported before, the report is made again, with a larger revision."""
    merger = merger_of()
    busy, slow = Source(merger, "t:0"), Source(merger, "t:1")
    slow.at(0)
    busy.at(1, 100)
    merger.due(0.0)
    busy.at(200)
    assert panes(merger.due(60.0)) == [(0, 2), (100, 1)]
    slow.at(5, 6)
    assert panes(merger.due(61.0)) == []
    slow.at(30)
    assert panes(merger.due(62.0)) == [(0, 4)]


def test_a_stream_that_stops_is_reported_to_its_end() -> None:
    """When all partitions are idle every pane is reported, also those that lateness would keep open."""
    merger = merger_of()
    source = Source(merger)
    source.at(0, 15)
    assert panes(merger.due(0.0)) == []
    assert panes(merger.due(60.0)) == [(0, 1), (10, 1)]
    source.at(16)
    assert panes(merger.due(61.0)) == []
    assert panes(merger.due(121.0)) == [(10, 2)]


def test_finish_reports_what_is_left() -> None:
    """At the end of a stream everything not reported is, and nothing twice."""
    merger = merger_of()
    Source(merger).at(0, 40)
    assert panes(merger.due(NEVER)) == [(0, 1)]
    assert panes(merger.finish()) == [(40, 1)]
    assert merger.finish() == []


def test_a_restart_makes_the_same_reports_again_until_they_are_acknowledged() -> None:
    """Keys and values, but for the basis, are those published before; and nothing once the merger has said so."""
    merger = merger_of()
    first, second = Source(merger, "t:0"), Source(merger, "t:1")
    log = [*first.at(0, 1), *second.at(2), *first.at(30), *second.at(31)]
    published = merger.due(NEVER)
    assert panes(published) == [(0, 3)]
    again = restarted(log)
    assert essence(again.due(NEVER)) == essence(published)
    log += again.acknowledged()
    assert restarted(log).due(NEVER) == []


def test_panes_that_wait_for_a_slow_partition_survive_compaction() -> None:
    """However far the others are ahead, the latest record of every key has what the slow one is waited for with."""
    merger = merger_of()
    slow, ahead = Source(merger, "t:1"), Source(merger, "t:0")
    log = slow.at(0)
    for pane in range(100):
        log += ahead.at(pane * 10)
    again = restarted(list(dict(log).items()))
    tell(again, slow.at(30))
    assert panes(again.due(NEVER)) == [(0, 2)]
    assert panes(again.finish())[:3] == [(10, 1), (20, 1), (30, 2)]


def test_reports_of_panes_that_may_be_revised_are_made_again_only_if_they_are() -> None:
    """What was reported without an idle partition is known after a restart, and revised when that one returns."""
    merger = merger_of(["t:0", "t:1"])
    slow, busy = Source(merger, "t:1"), Source(merger, "t:0")
    log = [*slow.at(0), *busy.at(1, 100)]
    assert merger.due(0.0) == []
    log += busy.at(101)
    assert panes(merger.due(60.0)) == [(0, 2)]
    log += merger.acknowledged()
    again = restarted(log)
    assert again.due(0.0) == []
    tell(again, busy.at(102))
    assert again.due(60.0) == []
    tell(again, slow.at(5, 30))
    assert panes(again.due(61.0)) == [(0, 3)]


def test_a_pane_is_done_before_it_is_deleted() -> None:
    """A merger that dies between any two of these records leaves none that would be reported without the others."""
    merger = merger_of()
    first, second = Source(merger, "t:0"), Source(merger, "t:1")
    log = [*first.at(0, 1, 40), *second.at(2, 40)]
    published = merger.due(NEVER)
    assert panes(published) == [(0, 3)]
    done = merger.acknowledged()
    assert sorted(key for key, value in done if value is None) == [key for key, _ in log if b"/" in key]
    for cut in range(len(done) + 1):
        again = restarted([*log, *done[:cut]])
        assert panes(again.due(NEVER)) in ([], [(0, 3)])
        assert sorted(again.acknowledged())[1:] == sorted(done)[1:]


def test_panes_of_another_width_are_neither_merged_nor_deleted() -> None:
    """Whoever runs with other settings, before or after us, needs them; nor does its progress say anything of ours."""
    merger, others = merger_of(), FairnessMerger(CountSettings(pane_s=7, lateness_s=20), REPORTING)
    theirs = Source(others, counting=CountSettings(pane_s=7, lateness_s=20)).at(0, 100)
    assert panes(others.due(NEVER)) == [(0, 1)]
    tell(merger, [*theirs[:-1], *others.acknowledged()])
    Source(merger).at(0, 100)
    assert panes(merger.due(NEVER)) == [(0, 1)]
    assert [key for key, _ in merger.acknowledged()] == [b"reports", b"t:0/%d" % (START // 10)]


def test_an_old_state_changes_nothing() -> None:
    """A worker that lost its partition may write once more; counts never go back."""
    merger = merger_of()
    source = Source(merger)
    old = source.at(0)
    source.at(1)
    tell(merger, old)
    assert panes(merger.finish()) == [(0, 2)]


def test_a_tombstone_forgets_a_partition() -> None:
    """After it the partition is neither counted nor waited for."""
    merger = merger_of()
    Source(merger, "t:1").at(0)
    Source(merger, "t:0").at(1, 100)
    merger.update(b"t:1", None)
    merger.update(b"t:2", None)
    assert panes(merger.due(NEVER)) == [(0, 1)]


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"schema_version":2}'])
def test_a_state_of_no_use_leaves_the_last_one_in_force(value: bytes) -> None:
    """A state record that cannot be read is counted, and costs nothing else."""
    merger = merger_of()
    Source(merger).at(0)
    merger.update(b"t:0", value)
    assert merger.totals.unreadable == 1
    assert panes(merger.finish()) == [(0, 1)]


def test_a_state_of_another_pane_width_is_waited_out() -> None:
    """While workers restart with a new pane_s, no report mixes widths, and none is made of what was split."""
    merger = merger_of()
    Source(merger, "t:0").at(0, 100)
    Source(merger, "t:1", CountSettings(pane_s=7, lateness_s=20)).at(50, 60)
    assert panes(merger.finish()) == [(100, 1)]


def test_totals_account_for_all_partitions() -> None:
    """Counted, late and uncounted are summed, and reports repeat what is in none of them."""
    merger = merger_of()
    first, second = Source(merger, "t:0"), Source(merger, "t:1")
    first.at(0, 100, 5)
    second.counter.count([Record(0, b"?"), Record(1, None), Record(2, b"?")])
    second.at(100)
    totals = merger.totals
    assert (totals.counted, totals.late) == (3, 1)
    assert totals.uncounted == {Uncounted.DECODE_ERROR: 2, Uncounted.TOMBSTONE: 1}
    basis = read(merger.finish())[0].basis
    assert (basis.partitions, basis.waiting, basis.late, basis.uncounted) == (2, 0, 1, totals.uncounted)


def test_what_waits_for_a_partition_far_behind_is_bounded() -> None:
    """Beyond the bound the oldest panes are reported without it, and stay as they are."""
    merger = merger_of()
    behind, ahead = Source(merger, "t:0"), Source(merger, "t:1")
    behind.at(0)
    published: Published = []
    for pane in range(merge_module.MAX_WAITING_PANES + 10):
        ahead.at(pane * 10)
        published += merger.due(NEVER)
    reported = panes(published)
    assert 0 < len(reported) < 10
    assert reported[0] == (0, 2)
    behind.at(1)
    assert panes(merger.due(NEVER)) == []


def test_decisions_without_groups_make_no_report() -> None:
    """There is nobody to compare."""
    merger = merger_of()
    counter = FairnessCounter("t:0", COUNTING)
    counter.count(records([decision()]))
    tell(merger, counter.snapshot())
    assert merger.finish() == []
