"""Reports: what they say, and what they refuse to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, FairnessReport, ReportSettings
from stream.fairness.compare import MAX_REPORT_GROUPS
from stream.fairness.counts import MAX_VERSIONS
from stream.fairness.report import report_key
from tests.decisions import START, decision, read, records, tell


def reports_of(
    values: Sequence[bytes], settings: ReportSettings | None = None, counting: CountSettings | None = None
) -> dict[tuple[str, str], FairnessReport]:
    """The reports of these decisions by quantity and what it is about."""
    counting = counting or CountSettings()
    counter = FairnessCounter("t:0", counting)
    merger = FairnessMerger(counting, settings or ReportSettings(min_group_n=10))
    counter.count(records(values))
    tell(merger, counter.snapshot())
    return {(report.quantity, report.harm or report.action or ""): report for report in read(merger.finish())}


def some(group: str, harmful: int, n: int) -> list[bytes]:
    """Decisions of one group, of which some were found harmful."""
    return [decision(groups={"g": [group]}, harms={"hate": "harmful" if i < harmful else "harmless"}) for i in range(n)]


def test_each_group_is_compared_with_the_rest() -> None:
    """Methods S20's example, 40 and 35 in a hundred: difference .05, ratio 40/35, and the intervals of both."""
    report = reports_of(some("a", 40, 100) + some("b", 35, 100))["selection_rate", "hate"]
    first, second = report.groups
    assert (report.n, report.count, report.rate, report.pane_n) == (200, 75, 0.375, 200)
    assert (first.group, first.status, first.n, first.count, first.rate) == ("a", "ok", 100, 40, 0.4)
    assert (first.rest_n, first.rest_rate, first.difference, first.ratio) == (100, 0.35, 0.05, 1.142857)
    assert second.difference == -0.05
    for interval, value in (
        (first.interval, first.rate),
        (first.difference_interval, first.difference),
        (first.ratio_interval, first.ratio),
        (report.interval, report.rate),
    ):
        assert interval is not None
        low, high = interval
        assert low is not None
        assert high is not None
        assert value is not None
        assert low < value < high
    assert report.gap is not None
    assert (report.gap.groups, report.gap.difference, report.gap.ratio) == (2, 0.05, 0.875)
    assert 0 < report.gap.null_median < 0.1


def test_a_small_group_has_not_enough_data() -> None:
    """Below min_group_n nothing is said but how few they are, and the gap leaves the group out."""
    report = reports_of(some("a", 5, 20) + some("b", 5, 20) + some("small", 9, 9))["selection_rate", "hate"]
    row = msgspec.to_builtins(report.groups[2])
    assert row == {"group": "small", "status": "not_enough_data", "n": 9}
    assert report.gap is not None
    assert report.gap.groups == 2


def test_a_group_with_too_small_a_rest_is_compared_with_nothing() -> None:
    """Where nearly all are in one group there is no rest to compare it with; its own rate is said."""
    row = reports_of(some("a", 5, 20) + some("b", 1, 9))["selection_rate", "hate"].groups[0]
    assert (row.status, row.rate, row.difference, row.ratio_interval) == ("not_enough_data", 0.25, None, None)


def test_too_few_decisions_in_all_have_no_rate() -> None:
    """The rate of everything is held to the same bound as those of groups."""
    report = reports_of(some("a", 5, 9))["selection_rate", "hate"]
    assert (report.n, report.count, report.rate, report.interval, report.gap) == (9, None, None, None, None)


def test_a_rest_without_events_leaves_the_ratio_open() -> None:
    """No rate is divided by zero: the ratio is left out, and its interval has no upper end."""
    row = reports_of(some("a", 5, 20) + some("b", 0, 20))["selection_rate", "hate"].groups[0]
    assert row.ratio is None
    assert row.ratio_interval is not None
    assert row.ratio_interval[0] is not None
    assert row.ratio_interval[1] is None


def test_every_quantity_is_reported() -> None:
    """Actions and moderation are shares of all decisions, selections of those that speak of the harm."""
    values = [
        decision(groups={"g": ["a"]}, harms={"hate": "abstain"}, action="review"),
        decision(groups={"g": ["a"]}, harms={"hate": "harmful"}, action="block"),
        decision(groups={"g": ["a"]}, action="block", moderated=False),
        decision(groups={"g": ["a"]}, action="allow"),
    ]
    found = {about: report.rate for about, report in reports_of(values, ReportSettings(min_group_n=1)).items()}
    assert found == {
        ("action_rate", "allow"): 0.25,
        ("action_rate", "block"): 0.5,
        ("action_rate", "review"): 0.25,
        ("moderated_rate", ""): 0.75,
        ("selection_rate", "hate"): 0.5,
        ("abstention_rate", "hate"): 0.5,
    }


def test_a_report_says_when_and_of_whom() -> None:
    """Pane, axis, the meaning of groups, the versions that decided, and the terms of the comparison."""
    report = reports_of([decision(START + 61, groups={"g": ["a"]})], ReportSettings(group_meaning="author"))[
        "moderated_rate", ""
    ]
    assert (report.pane_start, report.pane_end) == tuple(
        datetime.fromtimestamp(START + second, UTC) for second in (60, 120)
    )
    assert (report.axis, report.group_meaning, report.confidence, report.min_group_n) == ("g", "author", 0.95, 50)
    assert [(version.bundle[:8], version.policy[:8]) for version in report.versions] == [("sha256:b", "sha256:d")]
    assert not report.versions_omitted


def test_too_many_versions_are_a_sign_not_a_list() -> None:
    """At most MAX_VERSIONS are listed, and the report says that there were more."""
    values = [decision(groups={"g": ["a"]}, policy=f"sha256:{i:064}") for i in range(MAX_VERSIONS + 3)]
    report = reports_of(values)["moderated_rate", ""]
    assert [version.policy for version in report.versions] == [f"sha256:{i:064}" for i in range(MAX_VERSIONS)]
    assert report.versions_omitted


def test_a_report_lists_the_largest_groups() -> None:
    """A report is bounded: the smallest groups are left out and their number said, while the gap knows all."""
    values = [vote for i in range(MAX_REPORT_GROUPS) for vote in some(f"group {i}", 1, 2)]
    settings, counting = ReportSettings(min_group_n=1), CountSettings(max_groups=MAX_REPORT_GROUPS + 2)
    report = reports_of(some("a", 0, 1) + values + some("z", 0, 1), settings, counting)["selection_rate", "hate"]
    assert [row.group for row in report.groups] == sorted(f"group {i}" for i in range(MAX_REPORT_GROUPS))
    assert report.groups_omitted == 2
    assert report.gap is not None
    assert (report.gap.groups, report.gap.difference) == (MAX_REPORT_GROUPS + 2, 0.5)


def test_no_two_reports_have_one_key() -> None:
    """A key names pane, axis and quantity, also where an action and a harm, or an axis and a group, share a name."""
    values = [decision(groups={"a": ["b"], "b": ["a"]}, harms={"allow": "abstain", "a": "harmful"})]
    counter, merger = FairnessCounter("t:0", CountSettings()), FairnessMerger(CountSettings(), ReportSettings())
    counter.count(records(values))
    tell(merger, counter.snapshot())
    published = merger.finish()
    assert len({key for key, _ in published}) == len(published) == 2 * (2 + 4)
    assert [report_key(report) for report in read(published)] == [key for key, _ in published]
