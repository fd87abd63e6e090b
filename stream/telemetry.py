"""What an operator sees: log events and Prometheus metrics. The only home of structlog's set-up and of the metrics.

Metrics are named by the Prometheus conventions, labels come from closed sets only, and neither logs nor metrics ever
hold content or group attributes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["FORBIDDEN_KEYS", "Telemetry", "configure_logging"]

FORBIDDEN_KEYS = frozenset({"text", "prompt", "content", "value", "groups", "author", "image", "password"})
"""Keys that may not appear in a log event; a value under one of them is replaced before anything is written."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
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


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Take out what must never be logged, in case somebody passes it."""
    for key in FORBIDDEN_KEYS & event.keys():
        event[key] = "[withheld]"
    return event


class Telemetry:
    """The metrics of one worker, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter("fairway_events", "Records taken in.", registry=registry)
        self.decisions = Counter("fairway_decisions", "Decisions by action.", ["action"], registry=registry)
        self.abstentions = Counter(
            "fairway_abstentions", "Events with an abstention, by harm.", ["harm"], registry=registry
        )
        self.unmoderated = Counter(
            "fairway_unmoderated", "Decisions made by a fail rule, by condition.", ["condition"], registry=registry
        )
        self.dead_letters = Counter(
            "fairway_dead_letters", "Inputs without decision, by reason.", ["reason"], registry=registry
        )
        self.step_seconds = Histogram(
            "fairway_step_seconds",
            "Time a unit of records spends in each step.",
            ["step"],
            buckets=SECONDS,
            registry=registry,
        )
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
        self.policy_reloads = Counter(
            "fairway_policy_reloads", "Policy files seen change, by what became of them.", ["result"], registry=registry
        )
        self.model = Info("fairway_model", "The model in force.", registry=registry)
        self.policy = Info("fairway_policy", "The policy in force.", registry=registry)

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


class _Lag(Collector):
    """Records per partition that are in the topic and not committed, read when scraped."""

    def __init__(self, lag: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        self._lag = lag

    def collect(self) -> list[Metric]:
        family = GaugeMetricFamily("fairway_lag_records", "Records not yet committed.", labels=["topic", "partition"])
        for (topic, partition), records in self._lag().items():
            family.add_metric([topic, str(partition)], records)
        return [family]
