"""What an orchestrator and Prometheus ask a worker: /live, /ready and /metrics."""

from __future__ import annotations

import time
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted
from faust.web import Request, Response, View

from stream.kafka.conveyor import Conveyor
from stream.kafka.ledger import Ledger
from stream.kafka.publisher import Publisher
from stream.telemetry import Telemetry

__all__ = ["Health", "observe", "serve_pages"]

REBALANCE_STUCK_S = 600.0
"""Rebalances end in seconds; while no broker answers they last as long as that does, and a restart would not help."""


class Health:
    """Whether a worker makes progress and whether it takes part."""

    def __init__(self, app: faust.App, conveyor: Conveyor, *, live_s: float) -> None:
        self._app, self._conveyor, self._live_s = app, conveyor, live_s
        self._settled_at = time.monotonic()

    @property
    def is_live(self) -> bool:
        """True unless the stage's thread has finished nothing for `live_s`, or a rebalance does not end.

        Waiting for a broker is not a reason to be restarted, so outputs under way do not count.
        """
        now = time.monotonic()
        if not self._app.rebalancing:
            self._settled_at = now
        return self._conveyor.stuck_s < self._live_s and now - self._settled_at < REBALANCE_STUCK_S

    @property
    def is_ready(self) -> bool:
        """True when the model is warm (it is before the app starts) and partitions are assigned."""
        try:
            return bool(self._app.started and not self._app.rebalancing and self._app.consumer.assignment())
        except ConsumerNotStarted:  # the pages are there a moment before the consumer's thread
            return False


def observe(app: faust.App, ledger: Ledger, publisher: Publisher, telemetry: Telemetry) -> None:
    """Let metrics read the worker's state whenever they are scraped."""

    def lag() -> dict[tuple[str, int], int]:
        ends, commits = app.monitor.tp_end_offsets, app.monitor.tp_committed_offsets
        return {(tp.topic, tp.partition): end - commits.get(tp, 0) for tp, end in ends.items() if end is not None}

    telemetry.watch(
        {
            "fairway_records_in_hand": ("Records fetched and not yet published.", lambda: ledger.records_in_hand),
            "fairway_bytes_in_hand": ("Bytes fetched and not yet published.", lambda: ledger.bytes_in_hand),
            "fairway_publishing_seconds": ("Age of the publishing round under way.", lambda: publisher.round_age_s),
        },
        lag,
    )

    @app.on_partitions_revoked.connect
    async def revoked(_app: faust.App, _revoked: Any, **_signal: Any) -> None:
        telemetry.rebalances.inc()


def serve_pages(app: faust.App, health: Health, telemetry: Telemetry) -> None:
    """Add the three pages to Faust's web server."""

    @app.page("/live")
    async def live(self: View, request: Request) -> Response:  # noqa: ARG001 - Faust's signature
        return self.json({"live": health.is_live}, status=200 if health.is_live else 503)

    @app.page("/ready")
    async def ready(self: View, request: Request) -> Response:  # noqa: ARG001 - Faust's signature
        return self.json({"ready": health.is_ready}, status=200 if health.is_ready else 503)

    @app.page("/metrics")
    async def metrics(self: View, request: Request) -> Response:  # noqa: ARG001 - Faust's signature
        return self.bytes(telemetry.exposition(), headers={"Content-Type": telemetry.content_type})
