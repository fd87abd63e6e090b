"""Intervals, gaps and counts against independent implementations."""

from __future__ import annotations

from collections import Counter

import fairlearn.metrics as fairlearn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.fairness.gap import gap
from stream.fairness.intervals import newcombe, risk_ratio, wilson
from tests.decisions import decision, read, records, tell

share = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidence = st.sampled_from([0.8, 0.95, 0.999])


@given(share, confidence)
def test_wilson_agrees_with_statsmodels(of: tuple[int, int], level: float) -> None:
    """The interval for a rate is statsmodels' `proportion_confint(method="wilson")`."""
    found = wilson(*of, confidence=level)
    expected = proportion_confint(*of, alpha=1 - level, method="wilson")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)


@given(share, share, confidence)
def test_newcombe_agrees_with_statsmodels(of: tuple[int, int], other: tuple[int, int], level: float) -> None:
    """The interval for a difference is statsmodels' `confint_proportions_2indep(method="newcomb")`."""
    found = newcombe(*of, *other, confidence=level)
    expected = confint_proportions_2indep(*of, *other, method="newcomb", compare="diff", alpha=1 - level)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)


@given(share, share, confidence)
def test_risk_ratio_agrees_with_statsmodels(of: tuple[int, int], other: tuple[int, int], level: float) -> None:
    """The interval for a ratio is statsmodels' "log", or "log-adjusted" where a count is zero or both rates are one."""
    degenerate = 0 in {of[0], other[0]} or (of[0] == of[1] and other[0] == other[1])
    method = "log-adjusted" if degenerate else "log"
    low, high = confint_proportions_2indep(*of, *other, method=method, compare="ratio", alpha=1 - level)
    if of[0] == other[0] == 0:
        low = high = float("nan")
    elif of[0] == 0:
        low = 0.0
    elif other[0] == 0:
        high = float("inf")
    found = risk_ratio(*of, *other, confidence=level)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(50))
def test_gaps_agree_with_fairlearn(seed: int) -> None:
    """Difference and ratio of selection rates are fairlearn's demographic parity difference and ratio."""
    draw = np.random.default_rng(seed)
    size, groups = int(draw.integers(20, 500)), int(draw.integers(2, 8))
    group = np.concatenate([np.arange(groups), draw.integers(0, groups, size - groups)])
    flagged = draw.random(size) < draw.random(groups)[group]
    flagged[0] = True
    found = gap(np.bincount(group, flagged).astype(np.int64), np.bincount(group), seed="any")
    assert found is not None
    truth = np.zeros(size)
    difference = fairlearn.demographic_parity_difference(truth, flagged, sensitive_features=group)
    ratio = fairlearn.demographic_parity_ratio(truth, flagged, sensitive_features=group)
    assert (found.difference, found.ratio) == pytest.approx((difference, ratio), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_reports_agree_with_fairlearn_from_decision_to_report(seed: int) -> None:
    """Each group's rates, and the gap, in the reports of a random stream are those of fairlearn's MetricFrame."""
    draw = np.random.default_rng(seed)
    size = 300
    group = draw.choice(["a", "b", "c", "d"], size, p=[0.4, 0.3, 0.2, 0.1])
    selection = draw.choice(["harmless", "abstain", "harmful"], size)
    values = [
        decision(groups={"g": [name]}, harms={"hate": found})
        for name, found in zip(group.tolist(), selection.tolist(), strict=True)
    ]
    counter, merger = FairnessCounter("t:0", CountSettings()), FairnessMerger(CountSettings(), ReportSettings(1))
    counter.count(records(values))
    tell(merger, counter.snapshot())
    reports = {str(report.quantity): report for report in read(merger.finish()) if report.harm}
    for quantity, found in (("selection_rate", "harmful"), ("abstention_rate", "abstain")):
        frame = fairlearn.MetricFrame(
            metrics=fairlearn.selection_rate,
            y_true=np.zeros(size),
            y_pred=(selection == found).astype(int),
            sensitive_features=group,
        )
        report = reports[quantity]
        rates = {row.group: row.rate for row in report.groups}
        assert rates == pytest.approx(frame.by_group.to_dict(), abs=1e-6)
        assert report.rate == pytest.approx(frame.overall, abs=1e-6)
        assert report.gap is not None
        assert report.gap.difference == pytest.approx(frame.difference(method="between_groups"), abs=1e-6)
        assert report.gap.ratio == pytest.approx(frame.ratio(method="between_groups"), abs=1e-6)


_member = st.tuples(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=3), st.sampled_from(["harmless", "abstain", "harmful", ""])
)


@given(st.lists(_member, min_size=1, max_size=40))
def test_group_and_rest_agree_with_counting_by_hand(members: list[tuple[list[str], str]]) -> None:
    """A decision in several groups is in each, once, and the rest of a group are those with the axis not in it."""
    values = [decision(groups={"g": names}, harms={"hate": found} if found else {}) for names, found in members]
    counter, merger = FairnessCounter("t:0", CountSettings()), FairnessMerger(CountSettings(), ReportSettings(1))
    counter.count(records(values))
    tell(merger, counter.snapshot())
    for report in read(merger.finish()):
        if report.quantity != "abstention_rate":
            continue
        with_axis = [(set(names), found) for names, found in members if names and found]
        assert report.n == len(with_axis)
        for row in report.groups:
            inside = Counter(found for names, found in with_axis if row.group in names)
            outside = Counter(found for names, found in with_axis if row.group not in names)
            assert (row.n, row.count or 0) == (inside.total(), inside["abstain"])
            assert row.rest_n is None or row.rest_n == outside.total()
            assert row.rest_rate is None or row.rest_rate == pytest.approx(
                outside["abstain"] / outside.total(), abs=1e-6
            )
