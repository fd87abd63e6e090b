"""What an operator sees: log events and Prometheus metrics. The only home of structlog's set-up and of the metrics.

Metrics are named by the Prometheus conventions, labels come from closed sets only, and neither logs nor metrics ever
hold content or group attributes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from threading import Lock
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.events import Action, FailCondition, RejectReason, ReviewWhy
from stream.fairness.observation import Uncounted

__all__ = [
    "FORBIDDEN_KEYS",
    "FairnessMetrics",
    "ModerateMetrics",
    "Telemetry",
    "ValuesHistogram",
    "configure_logging",
    "count_each",
]

FORBIDDEN_KEYS = frozenset({"text", "prompt", "content", "value", "groups", "author", "image", "password"})
"""Keys that may not appear in a log event; a value under one of them is replaced before anything is written."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
RECORDS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


def configure_logging(log_format: Literal["auto", "json", "console"], level: str) -> None:
    """Set structlog and the standard library's root logger up to write one line per event to standard error."""
    to_console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [  # structlog's processors have no common type
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if to_console:
        # Not the default formatter: it prints local variables, and those hold content.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if to_console else [structlog.processors.format_exc_info]),
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in ("faust", "mode", "aiokafka", "kafka"):
        # What the clients say in passing nobody reads, and a fifth of Faust's processor time goes into it.
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its one warning is that a timer "is overlapping", which none does: the next run waits for the last. What it means
    # is that a commit took longer than `commit_interval_s`, as it does wherever processors are short or a broker is
    # away, and the next one commits what this one could not. A commit that fails is a line of our own.
    logging.getLogger("mode.timers").setLevel(logging.ERROR)


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Take out what must never be logged, in case somebody passes it."""
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "[withheld]"
    return event


class Telemetry:
    """The metrics of every worker, in a registry of its own. What a stage does is counted by the stage's metrics."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # Half as many series again, and nothing here asks when one began.
        disable_created_metrics()  # type: ignore[no-untyped-call] # it has no types
        self.registry = registry = CollectorRegistry()
        self.events = Counter("fairway_events", "Records taken in.", registry=registry)
        self.step_seconds = Histogram(
            "fairway_step_seconds",
            "Time a unit of records spends in each step.",
            ["step"],
            buckets=SECONDS,
            registry=registry,
        )
        for step in ("queue", "run_and_publish", "publish"):
            self.step_seconds.labels(step)
        self.unit_records = Histogram(
            "fairway_unit_records",
            "Records worked on together: how full batches are.",
            buckets=RECORDS,
            registry=registry,
        )
        self.publish_records = Histogram(
            "fairway_publish_records", "Records acknowledged per publishing round.", buckets=RECORDS, registry=registry
        )
        self.rebalances = Counter("fairway_rebalances", "Times partitions were taken away.", registry=registry)

    # --- told by the shell ---------------------------------------------------------------------------------------
    def unit_started(self, records: int, queued_s: float) -> None:
        """Count a unit handed to the stage's thread, `queued_s` after its first slice was fetched."""
        self.events.inc(records)
        self.unit_records.observe(records)
        self.step_seconds.labels("queue").observe(queued_s)

    def unit_finished(self, seconds: float) -> None:
        """Time a unit whose outputs are all acknowledged, from its start in the thread."""
        self.step_seconds.labels("run_and_publish").observe(seconds)

    def round_published(self, records: int, seconds: float) -> None:
        """Count one publishing round."""
        self.publish_records.observe(records)
        self.step_seconds.labels("publish").observe(seconds)

    def watch(
        self, gauges: Mapping[str, tuple[str, Callable[[], float]]], lag: Callable[[], Mapping[tuple[str, int], int]]
    ) -> None:
        """Read `gauges` (name → help and function) and `lag` (topic and partition → records) at every scrape."""
        for name, (description, function) in gauges.items():
            Gauge(name, description, registry=self.registry).set_function(function)
        self.registry.register(_Lag(lag))

    def exposition(self) -> bytes:
        """Write all metrics in the Prometheus text format."""
        return generate_latest(self.registry)


class ModerateMetrics:
    """What the moderate stage does, in the registry of its worker. `harms` are the bundle's."""

    def __init__(self, telemetry: Telemetry, *, harms: Sequence[str]) -> None:
        registry = telemetry.registry
        conditions = [condition.name.lower() for condition in FailCondition]
        self.decisions = _counter(registry, "fairway_decisions", "Decisions by action.", action=Action)
        self.abstentions = _counter(registry, "fairway_abstentions", "Events with an abstention, by harm.", harm=harms)
        self.unmoderated = _counter(
            registry,
            "fairway_unmoderated",
            "Decisions made by a fail rule, by condition and the action taken; two conditions count under both.",
            condition=conditions,
            action=Action,
        )
        self.reviews = _counter(registry, "fairway_reviews", "Review records, by why a person is asked.", why=ReviewWhy)
        self.dead_letters = _counter(
            registry, "fairway_dead_letters", "Inputs without decision, by reason.", reason=RejectReason
        )
        self.policy_reloads = _counter(
            registry,
            "fairway_policy_reloads",
            "Policy files seen change, by what became of them.",
            result=("accepted", "refused"),
        )
        self.bundle_reloads = _counter(
            registry,
            "fairway_bundle_reloads",
            "Bundles seen in place of the one in force, by what became of them.",
            result=("accepted", "refused"),
        )
        self.calibrated = Gauge(
            "fairway_calibration_timestamp_seconds",
            "When the bundle in force was calibrated, seconds since the epoch; NaN for the stub.",
            registry=registry,
        )
        self.decision_age = ValuesHistogram(
            "fairway_decision_age_seconds", "Age of events when they were decided.", bounds=AGES
        )
        registry.register(self.decision_age)
        self.model = Info("fairway_model", "The model in force.", registry=registry)
        self.policy = Info("fairway_policy", "The policy in force.", registry=registry)
        self._steps = [telemetry.step_seconds.labels(step) for step in ("decode", "score", "decide")]

    def unit_moderated(self, decode_s: float, score_s: float, decide_s: float) -> None:
        """Time the steps of a unit in the stage's thread. Deciding is all after the model, from calibration to JSON."""
        for step, seconds in zip(self._steps, (decode_s, score_s, decide_s), strict=True):
            step.observe(seconds)


class FairnessMetrics:
    """What the fairness stage does, in the registry of its worker.

    Counts are of what this worker has read, not of what the state holds: that moves with the partitions, and a counter
    must not.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        registry = telemetry.registry
        self._counted = Counter("fairway_counted_decisions", "Decisions counted into a pane.", registry=registry)
        self._uncounted = _counter(
            registry,
            "fairway_uncounted_decisions",
            "Decisions read and not counted, by reason; the pane of a late one was closed.",
            reason=("late", *Uncounted),
        )
        self._reports = Counter("fairway_reports", "Fairness reports written.", registry=registry)
        self._open_panes = Gauge("fairway_open_panes", "Panes that decisions are counted into.", registry=registry)
        self._merge_lag = Gauge(
            "fairway_merge_lag_seconds",
            "Event time that some partition has closed and no report has yet: how long reports wait for the slowest.",
            registry=registry,
        )

    def watch(self, *, open_panes: Callable[[], float], merge_lag_s: Callable[[], float]) -> None:
        """Read both at every scrape."""
        self._open_panes.set_function(open_panes)
        self._merge_lag.set_function(merge_lag_s)

    def records_counted(self, outcomes: Mapping[str, int]) -> None:
        """Count what became of records: `counted`, `late`, or a reason of `Uncounted`."""
        for outcome, count in outcomes.items():
            counter = self._counted if outcome == "counted" else self._uncounted.labels(outcome)
            counter.inc(count)

    def reports_written(self, reports: int) -> None:
        """Count reports on their way to the topic."""
        self._reports.inc(reports)


def count_each(counter: Counter, names: Sequence[str], numbers: NDArray[np.integer], *labels: str) -> None:
    """Count (m,) indices into `names`, each under its name as the last label; `labels` are those before it."""
    for name, count in zip(names, np.bincount(numbers, minlength=len(names)).tolist(), strict=True):
        if count:
            counter.labels(*labels, name).inc(count)


class ValuesHistogram(Collector):
    """A histogram of many values at once: prometheus_client's own takes one at a time, 2 µs for each event.

    `bounds` are the buckets' upper bounds, each part of its bucket.
    """

    def __init__(self, name: str, description: str, *, bounds: Sequence[float]) -> None:
        self._name, self._description, self._bounds = name, description, np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._lock = Lock()  # values come from the stage's thread, scrapes from the event loop

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count (m,) values. What is below zero counts as zero, as Prometheus takes a sum that falls for a restart."""
        values = np.maximum(values, 0.0)
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> list[Metric]:
        """Write the buckets, cumulative as Prometheus has them."""
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
        bounds = [*map(str, self._bounds.tolist()), "+Inf"]
        return [
            HistogramMetricFamily(
                self._name, self._description, buckets=list(zip(bounds, counts, strict=True)), sum_value=total
            )
        ]


class _Lag(Collector):
    """Records per partition that are in the topic and not committed, read when scraped."""

    def __init__(self, lag: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        self._lag = lag

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily("fairway_lag_records", "Records not yet committed.", labels=["topic", "partition"])
        for (topic, partition), records in self._lag().items():
            family.add_metric([topic, str(partition)], records)
        return [family]


def _counter(registry: CollectorRegistry, name: str, description: str, **labels: Iterable[str]) -> Counter:
    """Make a counter with all its series: one that begins with its first event hides that event from `rate`."""
    counter = Counter(name, description, list(labels), registry=registry)
    for values in product(*labels.values()):
        counter.labels(*values)
    return counter
