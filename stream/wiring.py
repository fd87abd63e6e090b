"""The composition root: settings in, a pipeline or a worker out. The only place where concrete classes meet."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog

from stream import bundle as bundles
from stream.bundle import HarmCalibration
from stream.decode import DecodeLimits, Decoder
from stream.encode import DecisionEncoder, Provenance, ReviewOptions
from stream.errors import ProviderError
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.kafka.conveyor import Conveyor
from stream.kafka.fairness import FairnessStage
from stream.kafka.moderate import ModerateStage, OutputTopics
from stream.kafka.worker import StagePlan, WorkerHandle, build_worker
from stream.mapping import Mapping as FieldMapping
from stream.mapping import load_mapping
from stream.mapping.decisions import decision_converter
from stream.pipeline import Pipeline
from stream.policy import CompiledPolicy, PolicyWatch, compile_policy
from stream.scoring import STUB_HARMS, Scorer, StubScorer
from stream.settings import Settings
from stream.telemetry import FairnessMetrics, ModerateMetrics, Telemetry
from stream.uncertainty import Calibrator

__all__ = [
    "Model",
    "build_encoder",
    "build_pipeline",
    "fairness_worker",
    "load_model",
    "moderate_worker",
    "worker_name",
]

log = structlog.get_logger(__name__)

STUB = Path("stub")


@dataclass(frozen=True, slots=True)
class Model:
    """A scorer with its calibration and the digests that go into every decision made with it."""

    scorer: Scorer
    calibration: Mapping[str, HarmCalibration]
    bundle_digest: str
    calibration_digest: str

    @property
    def calibrator(self) -> Calibrator:
        """The map from logits to probabilities, harms in the scorer's order."""
        harms = [self.calibration[harm] for harm in self.scorer.harms]
        return Calibrator(np.array([h.a for h in harms]), np.array([h.b for h in harms]))


def load_model(settings: Settings) -> Model:
    """Verify and load the bundle, warm. Raises `BundleError` or `ProviderError`."""
    if settings.bundle == STUB:
        if settings.provider != "cpu":
            raise ProviderError(
                f"provider is {settings.provider}, but bundle is {STUB}: the stub scores without a model and uses no "
                "GPU; set bundle to the folder of a model bundle, or provider to cpu"
            )
        return Model(StubScorer(), _stub_calibration(), "stub", "stub")
    bundle = bundles.load(settings.bundle)
    from stream.scoring.onnx import OnnxScorer  # noqa: PLC0415 - ONNX Runtime takes 0.2 s to import; the stub needs none

    scorer = OnnxScorer.from_bundle(
        bundle,
        provider=settings.provider,
        max_batch_tokens=settings.max_batch_tokens,
        max_windows=settings.max_windows,
    )
    return Model(scorer, bundle.calibration.harms, bundle.digest, bundle.calibration_digest)


def build_pipeline(settings: Settings, model: Model, policy: CompiledPolicy) -> Pipeline:
    """Put the spine together. Raises `MappingError`."""
    limits = DecodeLimits(
        max_event_bytes=settings.max_event_bytes,
        max_json_depth=settings.max_json_depth,
        max_future_s=settings.max_future_s,
        max_image_pixels=settings.max_image_pixels,
        max_image_frames=settings.max_image_frames,
    )
    return Pipeline(Decoder(limits, _mapping(settings)), model.scorer, model.calibrator, policy)


def build_encoder(settings: Settings, model: Model, pipeline: Pipeline) -> DecisionEncoder:
    """Make the encoder that writes where the pipeline's decisions come from."""
    provenance = Provenance(
        bundle=model.bundle_digest,
        calibration=model.calibration_digest,
        mapping=pipeline.decoder.mapping_digest,
        provider=model.scorer.provider,
        harms=model.scorer.harms,
    )
    review = ReviewOptions(with_event=settings.review_event, event_max_bytes=settings.review_event_max_bytes)
    return DecisionEncoder(provenance, review)


def moderate_worker(settings: Settings, telemetry: Telemetry, *, model: Model | None = None) -> WorkerHandle:
    """Build a worker of the moderate stage, model warm. Raises `ConfigError`, `BundleError` or `ProviderError`.

    `model` is used in place of the one that the settings name.
    """
    model = model or load_model(settings)
    policy = compile_policy(settings.policy, model.calibration)
    pipeline = build_pipeline(settings, model, policy)
    topics = OutputTopics(settings.decisions_topic, settings.review_topic, settings.dead_letter_topic)
    metrics = ModerateMetrics(telemetry, harms=model.scorer.harms)
    stage = ModerateStage(
        pipeline, build_encoder(settings, model, pipeline), topics, metrics, worker=worker_name(settings)
    )
    metrics.model.info({"bundle": model.bundle_digest, "provider": model.scorer.provider})
    metrics.policy.info({"name": policy.name, "digest": policy.digest})
    plan = StagePlan(
        name="moderate",
        topics=[settings.events_topic],
        stage=stage,
        max_records=settings.slice_max_records,
        housekeeping=_reload_policy(settings, model, stage, metrics),
    )
    return build_worker(settings, plan, telemetry)


def fairness_worker(settings: Settings, telemetry: Telemetry) -> WorkerHandle:
    """Build a worker of the fairness stage. Raises `ConfigError`."""
    counting = CountSettings(
        pane_s=settings.pane_s,
        lateness_s=settings.lateness_s,
        max_groups=settings.max_groups,
        max_future_s=settings.max_future_s,
    )
    reporting = ReportSettings(
        min_group_n=settings.min_group_n, group_meaning=settings.group_meaning, idle_s=settings.idle_s
    )
    mapping = None
    if settings.mapping is not None:
        mapping = decision_converter(settings.mapping, max_depth=settings.max_json_depth)
    stage = FairnessStage(
        settings,
        FairnessMetrics(telemetry),
        counter=lambda name, state: FairnessCounter(name, counting, state, mapping=mapping),
        merger=lambda names: FairnessMerger(counting, reporting, partitions=names),
    )

    plan = StagePlan(
        name="fairness",
        topics=[settings.decisions_topic, settings.fairness_state_topic],
        stage=stage,
        max_records=settings.buffer_max_records,
        gather_s=settings.snapshot_s,
        start_offsets=stage.start_offsets,
        housekeeping=stage.report_for_ever,
    )
    return build_worker(settings, plan, telemetry)


def worker_name(settings: Settings) -> str:
    """How this worker signs dead letters: its static id where it has one, else host and process."""
    return settings.instance_id or f"{socket.gethostname()}-{os.getpid()}"


def _mapping(settings: Settings) -> FieldMapping | None:
    return None if settings.mapping is None else load_mapping(settings.mapping)


def _reload_policy(
    settings: Settings, model: Model, stage: ModerateStage, metrics: ModerateMetrics
) -> Callable[[Conveyor], Awaitable[None]]:
    """Look at the policy file now and then; put a good one in force between two units, leave a bad one out."""
    watch = PolicyWatch(settings.policy, model.calibration, stage.pipeline.policy)

    async def reload_for_ever(_conveyor: Conveyor) -> None:
        while True:
            await asyncio.sleep(settings.policy_reload_s)
            change = watch.look(time.monotonic())
            if change is None:
                continue
            if isinstance(change, CompiledPolicy):
                stage.pipeline = replace(stage.pipeline, policy=change)
                metrics.policy.info({"name": change.name, "digest": change.digest})
                metrics.policy_reloads.labels("accepted").inc()
                log.info("policy_replaced", policy=change.digest)
            else:
                metrics.policy_reloads.labels("refused").inc()
                log.error("policy_refused", error=str(change), in_force=stage.pipeline.policy.digest)

    return reload_for_ever


def _stub_calibration() -> Mapping[str, HarmCalibration]:
    """A calibration for the stub that any policy can be derived from: as if it were a middling model.

    10,000 items per label: enough for a risk of one in ten thousand.
    """
    bins = np.arange(1024)
    harmful, harmless = np.exp(bins / 256), np.exp(-bins / 64)
    counts = {
        label: tuple(float(c) for c in np.round(weights / weights.sum() * 10_000))
        for label, weights in (("harmful", harmful), ("harmless", harmless))
    }
    return {
        harm: HarmCalibration(
            a=1.0,
            b=0.0,
            n_harmful=sum(counts["harmful"]),
            n_harmless=sum(counts["harmless"]),
            ece=0.0,
            ece_null=0.0,
            harmful=counts["harmful"],
            harmless=counts["harmless"],
        )
        for harm in STUB_HARMS
    }
