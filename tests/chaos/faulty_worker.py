"""A moderate worker with one fault in it, at the edge where the fault comes from in life: the model or the client.

Usage: python faulty_worker.py FAULT [NUMBER]; settings come from the environment, as for `fairway worker`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import RequestTimedOutError

from stream import wiring
from stream.events import EventBatch, Scores
from stream.kafka.worker import run
from stream.scoring import Scorer
from stream.settings import load_settings
from stream.telemetry import Telemetry, configure_logging


@dataclass
class FaultyScorer:
    """Scores as the scorer behind it, after `before` had its say with the number of the call."""

    scorer: Scorer
    before: Callable[[int], None]
    calls: int = field(default=0)

    @property
    def harms(self) -> tuple[str, ...]:
        return self.scorer.harms

    @property
    def provider(self) -> str:
        return self.scorer.provider

    def score(self, events: EventBatch) -> Scores:
        self.calls += 1
        self.before(self.calls)
        return self.scorer.score(events)


def raise_at(number: int) -> Callable[[int], None]:
    """A bug that shows at the given call and at every later one."""

    def before(call: int) -> None:
        if call >= number:
            raise RuntimeError("a planted bug in the scorer")

    return before


def refuse_commits(count: int) -> None:
    """Make the client fail the first `count` commits, as a coordinator that moves does."""
    commit, calls = AIOKafkaConsumer.commit, 0

    async def failing(self: AIOKafkaConsumer, offsets: Any = None) -> None:
        nonlocal calls
        calls += 1
        if calls <= count:
            raise RequestTimedOutError
        await commit(self, offsets)

    AIOKafkaConsumer.commit = failing


def main() -> None:
    fault, number = sys.argv[1], float((sys.argv[2:] or ["0"])[0])
    settings, _ = load_settings()
    configure_logging("json", settings.log_level)
    model = wiring.load_model(settings)
    if fault == "bug":
        model = replace(model, scorer=FaultyScorer(model.scorer, raise_at(int(number))))
    elif fault == "slow":
        model = replace(model, scorer=FaultyScorer(model.scorer, lambda _call: time.sleep(number)))
    elif fault == "commits":
        refuse_commits(int(number))
    else:
        raise SystemExit(f"no fault {fault!r}")
    run(wiring.moderate_worker(settings, Telemetry(), model=model))


if __name__ == "__main__":
    main()
