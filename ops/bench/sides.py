"""The sides of the comparisons, each a worker process: ours, a bare aiokafka loop, and stock Faust.

Usage: python -m ops.bench.sides SIDE BOOTSTRAP_SERVERS SOURCE_TOPIC SINK_TOPIC BUNDLE POLICY
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream import wiring
from stream.encode import DecisionEncoder
from stream.events import EventBatch, Scores, SourceRecord
from stream.kafka.ledger import Partition
from stream.kafka.publisher import Load, OutRecord
from stream.kafka.worker import StagePlan, build_worker, run
from stream.pipeline import Pipeline
from stream.policy import compile_policy
from stream.scoring import Scorer
from stream.settings import Settings, load_settings
from stream.telemetry import Telemetry, configure_logging

__all__ = ["SIDES"]

STOCK_TAKE = 256
SLOW_UNIT_S = 0.02
"""A model call of 20 ms on another device: what makes a worker latency-bound."""


class CopyStage:
    """Copies records to another topic: everything Fairway does around the work, and no work."""

    def __init__(self, sink: str) -> None:
        self._sink = sink

    def run(self, partition: Partition, records: Sequence[SourceRecord]) -> Mapping[Partition, Load]:
        """Copy key and value."""
        copies: list[OutRecord] = [(record.key, record.value, []) for record in records]
        return {Partition(self._sink, partition.partition): Load(copies, range(len(copies)))}

    def refused(
        self, record: SourceRecord, _output: OutRecord, *, source: Partition, destination: Partition
    ) -> tuple[Partition, OutRecord]:
        """Nothing is refused in a benchmark."""
        raise AssertionError(f"{destination} refused a copy of {source} {record.offset}")


@dataclass(frozen=True, slots=True)
class SlowScorer:
    """A scorer that waits as long as a model call on another device would."""

    scorer: Scorer

    @property
    def harms(self) -> tuple[str, ...]:
        """Those of the scorer behind it."""
        return self.scorer.harms

    @property
    def provider(self) -> str:
        """That of the scorer behind it."""
        return self.scorer.provider

    def score(self, events: EventBatch) -> Scores:
        """Wait, then score."""
        time.sleep(SLOW_UNIT_S)
        return self.scorer.score(events)


def copy_with_fairway(settings: Settings) -> None:
    """Our transport, copying."""
    plan = StagePlan(
        "moderate", [settings.events_topic], CopyStage(settings.decisions_topic), settings.slice_max_records
    )
    run(build_worker(settings, plan, Telemetry()))


def moderate_with_fairway(settings: Settings) -> None:
    """The moderate worker as shipped."""
    run(wiring.moderate_worker(settings, Telemetry()))


def moderate_slowly_with_fairway(settings: Settings) -> None:
    """The moderate worker with a scorer that waits: bound by latency, not by the processor."""
    model = wiring.load_model(settings)
    small = settings.model_copy(update={"slice_max_records": 64})
    run(wiring.moderate_worker(small, Telemetry(), model=replace(model, scorer=SlowScorer(model.scorer))))


def copy_with_aiokafka(settings: Settings) -> None:
    """The least Python can do: fetch, append to a batch per partition, send, wait for the acknowledgement."""

    async def copy() -> None:
        consumer = AIOKafkaConsumer(
            settings.events_topic,
            bootstrap_servers=settings.bootstrap_servers,
            group_id=f"{settings.group}-raw",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            max_batch_size=settings.produce_batch_bytes,
        )
        await consumer.start()
        await producer.start()
        while True:
            sent = []
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                batch = producer.create_batch()
                for record in records:
                    if batch.append(timestamp=None, key=record.key, value=record.value) is None:
                        sent.append(
                            await producer.send_batch(batch, settings.decisions_topic, partition=partition.partition)
                        )
                        batch = producer.create_batch()
                        batch.append(timestamp=None, key=record.key, value=record.value)
                sent.append(await producer.send_batch(batch, settings.decisions_topic, partition=partition.partition))
            if sent:
                await asyncio.gather(*sent)
                await consumer.commit()

    asyncio.run(copy())


def copy_with_faust(settings: Settings) -> None:
    """Stock Faust as its documentation shows it: `take`, then an awaited send per event."""
    app, source = _stock_app(settings)

    @app.agent(source)
    async def copy(stream: Any) -> None:  # faust.StreamT, untyped
        sink = app.topic(settings.decisions_topic, key_serializer="raw", value_serializer="raw")
        async for values in stream.take(STOCK_TAKE, within=0.1):
            await asyncio.gather(*[await sink.send(value=value) for value in values])

    _run_stock(app)


def moderate_with_faust(settings: Settings) -> None:
    """Stock Faust around the same spine: `take`, the pipeline on the whole list, an awaited send per decision."""
    app, source = _stock_app(settings)
    pipeline, encoder = _spine(settings)

    @app.agent(source)
    async def moderate(stream: Any) -> None:  # faust.StreamT, untyped
        sink = app.topic(settings.decisions_topic, key_serializer="raw", value_serializer="raw")
        async for events in stream.noack().take_events(STOCK_TAKE, within=0.1):
            records = [event.message for event in events]
            now = time.time()
            moderated = pipeline.run(records, topic=settings.events_topic, partition=0, now=now)
            decisions = encoder.decisions(moderated, topic=settings.events_topic, partition=0, now=now)
            encoder.reviews(moderated, decisions, records)
            await asyncio.gather(*[await sink.send(value=value) for value in decisions])
            for event in events:
                event.ack()

    _run_stock(app)


def _spine(settings: Settings) -> tuple[Pipeline, DecisionEncoder]:
    model = wiring.load_model(settings)
    pipeline = wiring.build_pipeline(settings, model, compile_policy(settings.policy, model.calibration))
    return pipeline, wiring.build_encoder(settings, model, pipeline)


def _stock_app(settings: Settings) -> tuple[faust.App, faust.Topic]:
    app = faust.App(
        f"{settings.group}-stock",
        broker=f"kafka://{settings.bootstrap_servers}",
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=str(Path(tempfile.gettempdir()) / "fairway-bench-stock"),
        broker_commit_interval=settings.commit_interval_s,
    )
    return app, app.topic(settings.events_topic, key_serializer="raw", value_serializer="raw")


def _run_stock(app: faust.App) -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    faust.Worker(app, loop=loop, loglevel="WARNING", quiet=True, redirect_stdouts=False).execute_from_commandline()


SIDES = {
    "copy-fairway": copy_with_fairway,
    "copy-raw": copy_with_aiokafka,
    "copy-faust": copy_with_faust,
    "full-fairway": moderate_with_fairway,
    "full-faust": moderate_with_faust,
    "slow-fairway": moderate_slowly_with_fairway,
}


def main() -> None:
    """Run one side until it is stopped."""
    side, servers, source, sink, bundle, policy = sys.argv[1:]
    settings, _ = load_settings(
        {
            "bootstrap_servers": servers,
            "events_topic": source,
            "decisions_topic": sink,
            "bundle": Path(bundle),
            "policy": Path(policy),
            "group": f"bench-{side}-{sink}",
        }
    )
    configure_logging("auto", "warning")
    SIDES[side](settings)


if __name__ == "__main__":
    main()
