"""What an orchestrator is told of a worker: whether it takes part, and whether a restart would help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import faust
import pytest
from faust.exceptions import ConsumerNotStarted

from stream.kafka.conveyor import Conveyor
from stream.kafka.health import Health


@dataclass
class Consumer:
    assigned: set[Any] | None = field(default_factory=lambda: {("content.events", 0)})
    """None before its thread runs."""

    def assignment(self) -> set[Any]:
        if self.assigned is None:
            raise ConsumerNotStarted("Consumer thread not yet started")
        return self.assigned


@dataclass
class App:
    started: bool = True
    rebalancing: bool = False
    consumer: Consumer = field(default_factory=Consumer)


@dataclass
class Line:
    stuck_s: float = 0.0


def health_of(app: App, line: Line | None = None) -> Health:
    return Health(cast("faust.App", app), cast("Conveyor", line or Line()), live_s=30.0)


@pytest.mark.parametrize(
    ("app", "ready"),
    [
        (App(), True),
        (App(started=False), False),
        (App(rebalancing=True), False),
        (App(consumer=Consumer(set())), False),
        (App(consumer=Consumer(None)), False),
    ],
    ids=["has partitions", "starts", "rebalances", "has no partition", "has no consumer yet"],
)
def test_ready_is_who_has_partitions(app: App, ready: bool) -> None:
    """A worker is ready when it has partitions, and says so from the first moment on that it can be asked."""
    assert health_of(app).is_ready == ready


def test_live_is_who_finishes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that returns nothing for too long and a rebalance without end are what a restart may mend."""
    now = [1000.0]
    monkeypatch.setattr("stream.kafka.health.time.monotonic", lambda: now[0])
    app, line = App(), Line(29.9)
    asked = health_of(app, line)
    assert asked.is_live
    line.stuck_s = 30.0
    assert not asked.is_live
    line.stuck_s, app.rebalancing = 0.0, True
    now[0] += 599.0
    assert asked.is_live
    now[0] += 2.0
    assert not asked.is_live
    app.rebalancing = False
    assert asked.is_live
