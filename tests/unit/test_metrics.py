"""What can be scraped: every metric by its name and labels, there from the start, and counting what really happened."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from stream.events import Action, FailCondition, RejectReason, ReviewWhy, SourceRecord
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.fairness.observation import Uncounted
from stream.kafka.ledger import Partition
from stream.kafka.moderate import ModerateStage, OutputTopics
from stream.scoring import StubScorer
from stream.scoring.timed import TimedScorer
from stream.telemetry import FairnessMetrics, ModerateMetrics, Telemetry, ValuesHistogram
from tests.decisions import START, decision, tell
from tests.decisions import records as decisions_of
from tests.records import NOW
from tests.spine import HARMS, TOPIC, event, policy, records, spine

Series = dict[str, float]
"""Values by name and labels, as they are written: `name{label="value"}`."""

TEXTS = st.sampled_from(["-9,-9", "-1,-9", "3,-1", "3,3", "words"])
VALUES = st.one_of(st.none(), st.just(b"{"), st.builds(event, text=TEXTS))
OUTPUTS = OutputTopics("decisions", "review", "dead")


def scraped(telemetry: Telemetry) -> Series:
    """Every series, as a scraper reads it."""
    lines = [line for line in telemetry.exposition().decode().splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def counted(telemetry: Telemetry, name: str) -> Series:
    """What a metric with one label or two has counted, by the labels' values; what is 0 is left out."""
    found = ((re.fullmatch(rf"{name}\{{(.*)\}}", series), value) for series, value in scraped(telemetry).items())
    return {"/".join(re.findall(r'"([^"]*)"', match[1])): value for match, value in found if match and value}


def moderated(telemetry: Telemetry, values: Sequence[bytes | None], document: bytes | None = None) -> list[bytes]:
    """Run records through the moderate stage; the review records it made."""
    made = spine(document)
    stage = ModerateStage(made.pipeline, made.encoder, OUTPUTS, ModerateMetrics(telemetry, harms=HARMS), worker="w")
    slice_: list[SourceRecord] = list(records(values))
    loads = stage.run(Partition(TOPIC, 0), slice_)
    return [value or b"" for _, value, _ in loads[Partition("review", 0)].records]


# --- all of them -----------------------------------------------------------------------------------------------------
def test_metrics_are_named_as_prometheus_wants() -> None:
    """Every metric has our prefix and a help text, a time is in seconds, and no label is a free text."""
    telemetry = Telemetry()
    ModerateMetrics(telemetry, harms=HARMS)
    FairnessMetrics(telemetry)
    telemetry.watch({"fairway_records_in_hand": ("Records.", lambda: 0.0)}, lambda: {("t", 0): 5})
    closed = {"action", "harm", "condition", "reason", "step", "result", "why", "topic", "partition", "le"}
    for family in telemetry.registry.collect():
        assert family.name.startswith("fairway_")
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|millis|minutes|kb|mb)$", family.name)
        labels = {label for sample in family.samples for label in sample.labels}
        assert family.type == "info" or labels <= closed


def test_every_series_is_there_from_the_start() -> None:
    """A closed list of names is 0 for each before anything has happened, and nothing comes that was not there."""
    telemetry = Telemetry()
    metrics = ModerateMetrics(telemetry, harms=HARMS)
    before = scraped(telemetry)
    conditions = {condition.name.lower() for condition in FailCondition}
    assert before.keys() >= {
        *(f'fairway_decisions_total{{action="{action}"}}' for action in Action),
        *(f'fairway_abstentions_total{{harm="{harm}"}}' for harm in HARMS),
        *(f'fairway_unmoderated_total{{action="{a}",condition="{c}"}}' for a in Action for c in conditions),
        *(f'fairway_reviews_total{{why="{why}"}}' for why in ReviewWhy),
        *(f'fairway_dead_letters_total{{reason="{reason}"}}' for reason in RejectReason),
        *(f'fairway_policy_reloads_total{{result="{result}"}}' for result in ("accepted", "refused")),
    }
    made = spine()
    stage = ModerateStage(made.pipeline, made.encoder, OUTPUTS, metrics, worker="w")
    stage.run(Partition(TOPIC, 0), records([event(), event(text="words"), event(text="-1,3"), b"{"]))
    telemetry.unit_started(4, 0.0)
    telemetry.unit_finished(0.1)
    telemetry.round_published(4, 0.1)
    assert scraped(telemetry).keys() == before.keys()


def test_no_series_says_when_another_began() -> None:
    """There are no `_created` series."""
    telemetry = Telemetry()
    ModerateMetrics(telemetry, harms=HARMS)
    assert [series for series in scraped(telemetry) if "_created" in series] == []


def test_two_workers_in_one_process_count_apart() -> None:
    """Each has a registry of its own."""
    first, second = Telemetry(), Telemetry()
    first.unit_started(5, 0.0)
    assert scraped(second)["fairway_events_total"] == 0


# --- the shell -------------------------------------------------------------------------------------------------------
def test_what_the_shell_tells_is_counted() -> None:
    """Units, rounds and their times are in the exposition."""
    telemetry = Telemetry()
    telemetry.unit_started(100, 0.2)
    telemetry.unit_started(28, 0.0)
    telemetry.unit_finished(0.5)
    telemetry.round_published(128, 0.01)
    found = scraped(telemetry)
    assert found["fairway_events_total"] == 128
    assert found["fairway_unit_records_sum"] == 128
    assert found["fairway_publish_records_count"] == 1
    assert found['fairway_step_seconds_sum{step="queue"}'] == pytest.approx(0.2)
    assert found['fairway_step_seconds_sum{step="run_and_publish"}'] == pytest.approx(0.5)


def test_gauges_and_lag_are_read_when_scraped() -> None:
    """What is watched has the value it has at the scrape, and a partition that is gone has no lag any more."""
    telemetry, state, lag = Telemetry(), [1.0], {("t", 0): 10, ("t", 1): 0}
    telemetry.watch({"fairway_records_in_hand": ("Records.", lambda: state[0])}, lambda: lag)
    assert scraped(telemetry)["fairway_records_in_hand"] == 1.0
    state[0] = 7.0
    del lag["t", 1]
    found = scraped(telemetry)
    assert found["fairway_records_in_hand"] == 7.0
    assert {series: value for series, value in found.items() if "lag" in series} == {
        'fairway_lag_records{partition="0",topic="t"}': 10.0
    }


# --- the moderate stage ----------------------------------------------------------------------------------------------
def test_what_was_done_is_counted() -> None:
    """Decisions, abstentions of what was scored, fail rules and dead letters are counted, each by its kind."""
    telemetry = Telemetry()
    values = [event(), event(text="-1,-9"), event(text="3,-1"), event(text="words"), b"{", None, None]
    moderated(telemetry, values)
    assert counted(telemetry, "fairway_decisions_total") == {"allow": 1, "block": 1, "review": 2}
    assert counted(telemetry, "fairway_abstentions_total") == {"hate": 1, "violence": 1}
    assert counted(telemetry, "fairway_unmoderated_total") == {"review/scorer_error": 1}
    assert counted(telemetry, "fairway_dead_letters_total") == {"decode_error": 1, "tombstone": 2}


def test_what_passed_unseen_is_counted_apart() -> None:
    """What a fail rule decided counts by condition and by the action it led to; two conditions count under both."""
    closed, opened = Telemetry(), Telemetry()
    values = [event(), event(text="words")]  # older than a minute, both
    moderated(closed, values, policy(fail={"scorer_error": "open", "expired": "closed"}, max_age_s=60.0))
    moderated(opened, values, policy(fail={"scorer_error": "open"}))
    assert counted(closed, "fairway_unmoderated_total") == {"block/expired": 2, "block/scorer_error": 1}
    assert counted(opened, "fairway_unmoderated_total") == {"allow/scorer_error": 1}


@given(st.lists(VALUES, max_size=12), st.sampled_from([0.0, 0.5]))
def test_review_records_count_by_what_they_say(values: list[bytes | None], audit: float) -> None:
    """The review records of each `why` are as many as are counted under it."""
    telemetry = Telemetry()
    document = policy(
        audit={"rate": audit}, overlays=[{"surface": "chat", "harms": {"violence": {"action": "review"}}}]
    )
    made = moderated(telemetry, values, document)
    assert counted(telemetry, "fairway_reviews_total") == Counter(json.loads(record)["why"] for record in made)


def test_a_unit_is_timed_step_by_step() -> None:
    """Each step of a unit in the stage's thread is observed once per unit, and together they are all of its time."""
    telemetry = Telemetry()
    moderated(telemetry, [event()] * 20)
    found = scraped(telemetry)
    for step in ("decode", "score", "decide"):
        assert found[f'fairway_step_seconds_count{{step="{step}"}}'] == 1
        assert found[f'fairway_step_seconds_sum{{step="{step}"}}'] > 0


def test_a_timed_scorer_scores_as_the_one_behind_it() -> None:
    """It says when it was asked and when it had answered, and changes nothing else."""
    made = spine(scorer=StubScorer(HARMS))
    timed = TimedScorer(made.pipeline.scorer)
    events, _ = made.pipeline.decoder.decode(records([event(text="some text")] * 3), now=NOW)
    made_at = timed.asked_at
    scores, same = timed.score(events), made.pipeline.scorer.score(events)
    assert made_at < timed.asked_at < timed.answered_at
    assert (timed.harms, timed.provider) == (HARMS, "stub")
    np.testing.assert_array_equal(scores.logits, same.logits)


def test_the_age_of_events_is_from_creation_to_decision() -> None:
    """Every decision is in the histogram of ages; an event from a clock that is ahead has the age 0."""
    telemetry, now = Telemetry(), datetime.now(UTC)
    ages = (timedelta(minutes=2), timedelta(days=2), timedelta(minutes=-2))
    moderated(telemetry, [b"{", *(event(created_at=(now - age).isoformat()) for age in ages)])
    found = scraped(telemetry)
    expected = {"0.01": 1, "60.0": 1, "300.0": 2, "86400.0": 2, "+Inf": 3}
    assert {le: found[f'fairway_decision_age_seconds_bucket{{le="{le}"}}'] for le in expected} == expected
    assert found["fairway_decision_age_seconds_sum"] == pytest.approx(120 + 2 * 86400, abs=60)


# --- the fairness stage ----------------------------------------------------------------------------------------------
def test_records_count_by_what_became_of_them() -> None:
    """Each record that a partition's counter takes is counted once: in a pane, too late for one, or for a reason."""
    telemetry = Telemetry()
    metrics = FairnessMetrics(telemetry)
    counter = FairnessCounter("t:0", CountSettings(pane_s=10, lateness_s=20))
    values = [None, b"{", decision(START), decision(START + 100), decision(START), decision(START + 99)]
    for start in range(0, len(values), 2):
        before = counter.outcomes
        counter.count(decisions_of(values[start : start + 2], start=start))
        counter.snapshot()
        metrics.records_counted(counter.outcomes - before)
    assert scraped(telemetry)["fairway_counted_decisions_total"] == 3
    assert counted(telemetry, "fairway_uncounted_decisions_total") == {"tombstone": 1, "decode_error": 1, "late": 1}


def test_reasons_not_to_count_are_there_from_the_start() -> None:
    """Each is 0 before anything has happened."""
    telemetry = Telemetry()
    FairnessMetrics(telemetry)
    named = {f'fairway_uncounted_decisions_total{{reason="{reason}"}}' for reason in ("late", *Uncounted)}
    assert scraped(telemetry).keys() >= named


def test_a_pane_is_open_until_it_is_closed() -> None:
    """Panes that decisions were counted into are open as long as more may come."""
    counter = FairnessCounter("t:0", CountSettings(pane_s=10, lateness_s=20))
    opened = []
    for second in (0, 5, 10, 29, 30, 31, 1000):
        counter.count(decisions_of([decision(START + second)], start=counter.next_offset))
        counter.snapshot()
        opened.append(counter.open_panes)
    assert opened == [1, 1, 2, 3, 3, 3, 1]


def test_reports_wait_for_the_slowest_partition() -> None:
    """The lag of the merge is the event time between the oldest pane that waits and the latest that is closed."""
    counting = CountSettings(pane_s=10, lateness_s=20)
    merger = FairnessMerger(counting, ReportSettings(min_group_n=1, idle_s=60), partitions=["t:0", "t:1"])
    counters = [FairnessCounter(f"t:{number}", counting) for number in range(2)]
    lags = []
    for number, second in ((0, 0), (0, 30), (0, 59), (1, 40), (1, 59)):
        counter = counters[number]
        counter.count(decisions_of([decision(START + second)], start=counter.next_offset))
        tell(merger, counter.snapshot())
        merger.due(0.0)
        lags.append(merger.waiting_s)
    assert lags == [0, 10, 30, 0, 0]


# --- many values at once ---------------------------------------------------------------------------------------------
def series_of(collector: Collector) -> Series:
    telemetry = Telemetry()
    telemetry.registry = CollectorRegistry()
    telemetry.registry.register(collector)
    return scraped(telemetry)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.01, 0.0100001, 0.5, 1.0, 7.25, 1e9]) | st.floats(0, 100))))
def test_many_values_at_once_are_as_if_one_by_one(batches: list[list[float]]) -> None:
    """Values that are counted together give the series that prometheus_client's own histogram makes of each."""
    bounds = (0.01, 0.5, 1.0, 30.0)
    ours = ValuesHistogram("ages", "Ages.", bounds=bounds)
    theirs = Histogram("ages", "Ages.", buckets=bounds, registry=None)
    for values in batches:
        ours.observe(np.array(values, np.float64))
        for value in values:
            theirs.observe(value)
    assert series_of(ours) == pytest.approx(series_of(theirs))


def test_values_below_zero_count_as_zero() -> None:
    """A sum that falls would be taken for a restart of the worker."""
    histogram = ValuesHistogram("ages", "Ages.", bounds=(1.0,))
    histogram.observe(np.array([-5.0, 2.0]))
    assert series_of(histogram) == {
        'ages_bucket{le="1.0"}': 1,
        'ages_bucket{le="+Inf"}': 2,
        "ages_count": 2,
        "ages_sum": 2.0,
    }


def test_what_is_scraped_can_be_read() -> None:
    """Prometheus' own reader takes the exposition, histogram of ages included."""
    telemetry = Telemetry()
    moderated(telemetry, [event()])
    families = {family.name: family.type for family in text_string_to_metric_families(telemetry.exposition().decode())}
    assert families["fairway_decision_age_seconds"] == "histogram"
    assert families["fairway_reviews"] == "counter"
