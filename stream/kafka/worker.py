"""One worker process: a Faust app whose agent feeds a conveyor, with the slice transport under it.

Shutdown order (SIGTERM, or a rebalance up to the last line): fetching stops; slices nobody started are given back; what
is in the stage's thread is finished and published, for at most `drain_s`; the finished prefix is committed; the group
is left. Whatever did not make it is read again by the next owner.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faust
import structlog
from mode import Service

from stream.kafka.clients import ssl_context
from stream.kafka.conveyor import Conveyor, Stage
from stream.kafka.health import Health, observe, serve_pages
from stream.kafka.ledger import Ledger, Partition
from stream.kafka.memory import keep_freed_memory, stop_collecting
from stream.kafka.publisher import Publisher
from stream.kafka.transport import SliceConsumer, SliceTopic, install
from stream.settings import Settings
from stream.telemetry import Telemetry

__all__ = ["StagePlan", "WorkerHandle", "build_worker", "run"]

log = structlog.get_logger(__name__)

LEAVE_WITHIN_S = 10.0
"""After draining, committing and leaving the group take a second or two; after this a broker must be gone."""

STOP_TIMED_OUT = 3
"""Exit status of a worker that could not stop in order."""

COLLECT_EVERY_S = 10.0
"""Cycles come from the client's connections and errors, a few thousand objects a second at worst: some megabytes."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a worker of one stage reads and how."""

    name: str
    """The consumer group is `GROUP-NAME`."""
    topics: Sequence[str]
    stage: Stage
    max_records: int
    """Records worked on together."""
    unit_s: float = math.inf
    """What a unit is to take in the stage's thread."""
    gather_s: float = 0.0
    start_offsets: Callable[[Iterable[Partition]], Awaitable[Mapping[Partition, int]]] | None = None
    """Where to start reading, for a stage that keeps its own position."""
    housekeeping: Callable[[Conveyor], Awaitable[None]] | None = None
    """Runs beside the conveyor for as long as the worker lives: policy reload, say."""


@dataclass(frozen=True, slots=True)
class WorkerHandle:
    """A built worker, ready to run."""

    app: faust.App
    stop_within_s: float


def build_worker(settings: Settings, plan: StagePlan, telemetry: Telemetry) -> WorkerHandle:
    """Put a worker together; nothing is connected before the app starts."""
    app = _app(settings, plan)
    ledger = Ledger()
    publisher = Publisher(lambda: app.producer, on_round=telemetry.round_published)
    conveyor = Conveyor(
        plan.stage,
        publisher,
        ledger,
        telemetry,
        max_records=plan.max_records,
        unit_s=plan.unit_s,
        gather_s=plan.gather_s,
        drain_s=settings.drain_s,
    )
    install(app, settings.bootstrap_servers, consumer=_consumer_class(settings, plan, ledger, conveyor))
    app.service(conveyor)
    app.service(_Collection())
    if plan.housekeeping is not None:
        app.service(_Housekeeping(partial(plan.housekeeping, conveyor)))
    topic = SliceTopic(app, topics=list(plan.topics), key_serializer="raw", value_serializer="raw", internal=False)

    @app.agent(topic, name=plan.name)
    async def carry(stream: Any) -> None:  # faust.StreamT, untyped
        async for piece in stream:
            conveyor.submit(piece)

    observe(app, ledger, publisher, telemetry)
    serve_pages(app, Health(app, conveyor, live_s=settings.live_s), telemetry)
    return WorkerHandle(app, settings.drain_s + LEAVE_WITHIN_S)


def run(handle: WorkerHandle) -> None:
    """Run until a signal or a crash. A crash raises its reason."""
    keep_freed_memory()
    stop_collecting()  # `_Collection` finds cycles every few seconds instead
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(
        handle.app, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False, loglevel="WARNING"
    )
    worker.spinner = None
    worker.stop_within_s = handle.stop_within_s
    worker.execute_from_commandline()


class _Worker(faust.Worker):
    """Faust's worker, which stops in a stated time whatever its clients wait for."""

    stop_within_s: float

    async def stop(self) -> None:
        """Stop in order; where a client waits for a broker that is gone, give up: nothing is acknowledged wrongly."""
        deadline = threading.Timer(self.stop_within_s, _give_up)
        deadline.daemon = True
        deadline.start()
        await super().stop()


def _give_up() -> None:
    log.error("stop_timed_out", what="work in hand is read again by whoever gets the partitions")
    os._exit(STOP_TIMED_OUT)


class _App(faust.App):
    mundane_level = "debug"  # where it starts and stops is said once, by us

    async def on_first_start(self) -> None:
        """Make no folders for tables: there are none, and a container's working directory is often read-only."""


def _app(settings: Settings, plan: StagePlan) -> faust.App:
    return _App(
        f"{settings.group}-{plan.name}",
        broker="kafka://",  # replaced by `install`
        broker_credentials=_credentials(settings),
        broker_commit_interval=settings.commit_interval_s,
        broker_commit_every=None,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 5,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_request_timeout=settings.request_timeout_s,
        broker_max_poll_records=settings.buffer_max_records,  # in hand are twice as many at most
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=settings.max_partition_fetch_bytes,
        consumer_group_instance_id=settings.instance_id,
        producer_request_timeout=settings.request_timeout_s,
        producer_max_batch_size=settings.produce_batch_bytes,
        producer_max_request_size=settings.produce_batch_bytes,
        producer_linger=settings.linger_ms / 1000,
        producer_compression_type=None if settings.compression == "none" else settings.compression,
        stream_wait_empty=True,
        topic_allow_declare=False,
        topic_disable_leader=True,
        # Faust makes a folder for tables at its start, though there are none.
        datadir=str(Path(tempfile.gettempdir()) / f"fairway-{os.getpid()}"),
        # Without tables or standbys the group uses the round-robin assignor. Faust's own refuses a static member that
        # comes back under another address.
        table_standby_replicas=0,
        store="memory://",
        web_enabled=settings.web_port != 0,
        web_bind=settings.web_host,
        web_port=settings.web_port or 6066,
    )


def _consumer_class(settings: Settings, plan: StagePlan, ledger: Ledger, conveyor: Conveyor) -> type[SliceConsumer]:
    """Faust makes the consumer itself, from a class: what it needs is given as class attributes."""
    attributes = {
        "ledger": ledger,
        "slice_max_records": plan.max_records,
        "buffer_max_records": settings.buffer_max_records,
        "buffer_max_bytes": settings.buffer_max_bytes,
        "drain": staticmethod(conveyor.drain),
        "start_offsets": staticmethod(plan.start_offsets) if plan.start_offsets else None,
    }
    return type("WorkerConsumer", (SliceConsumer,), attributes)


def _credentials(settings: Settings) -> faust.SASLCredentials | faust.SSLCredentials | None:
    context = ssl_context(settings)
    if settings.sasl_password is not None and settings.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            mechanism=settings.sasl_mechanism,
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


class _Collection(Service):
    """Collects reference cycles on a schedule, in place of the automatic collector."""

    abstract = False
    mundane_level = "debug"

    @Service.task
    async def _run(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(COLLECT_EVERY_S)
            gc.collect()


class _Housekeeping(Service):
    abstract = False
    mundane_level = "debug"

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._work = work

    @Service.task
    async def _run(self) -> None:
        await self._work()
