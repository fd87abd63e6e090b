"""The composition root: settings in, a pipeline or a worker out. The only place where concrete classes meet."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import structlog

from stream import bundle as bundles
from stream.bundle import BundleWatch, HarmCalibration
from stream.bundle.manifest import Modality
from stream.decode import DecodeLimits, Decoder
from stream.encode import DecisionEncoder, Provenance, ReviewOptions
from stream.errors import FairwayError, PolicyError, ProviderError
from stream.fairness import CountSettings, FairnessCounter, FairnessMerger, ReportSettings
from stream.kafka.conveyor import Conveyor
from stream.kafka.fairness import FairnessStage
from stream.kafka.moderate import ModerateStage, OutputTopics
from stream.kafka.pace import UNIT_S, UNITS_IN_DRAIN
from stream.kafka.worker import StagePlan, WorkerHandle, build_worker
from stream.mapping import Mapping as FieldMapping
from stream.mapping import load_mapping
from stream.mapping.decisions import decision_converter
from stream.pipeline import Pipeline
from stream.policy import CompiledPolicy, PolicyWatch, compile_policy, refuse_old_calibration
from stream.scoring import STUB_HARMS, Scorer, StubScorer
from stream.settings import Settings
from stream.telemetry import FairnessMetrics, ModerateMetrics, Telemetry
from stream.uncertainty import Calibrator

__all__ = [
    "Model",
    "Reload",
    "build_encoder",
    "build_pipeline",
    "decode_limits",
    "fairness_worker",
    "load_model",
    "moderate_worker",
    "refuse_old",
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
    calibrated_at: datetime | None = None
    """None for a calibration that does not age."""
    modality: Modality = "text"

    @property
    def calibrator(self) -> Calibrator:
        """The map from logits to probabilities, harms in the scorer's order."""
        harms = [self.calibration[harm] for harm in self.scorer.harms]
        return Calibrator(np.array([h.a for h in harms]), np.array([h.b for h in harms]))


def load_model(settings: Settings) -> Model:
    """Verify and load the bundle, tried out and warm. Raises `ConfigError`, `BundleError` or `ProviderError`."""
    if settings.bundle == STUB:
        if settings.provider != "cpu":
            raise ProviderError(
                f"provider is {settings.provider}, but bundle is {STUB}: the stub scores without a model and uses no "
                "GPU; set bundle to the folder of a model bundle, or provider to cpu"
            )
        return Model(StubScorer(), _stub_calibration(), "stub", "stub")
    bundle = bundles.load(settings.bundle, bundles.trust_of(settings))
    if bundle.signer is None:
        log.warning("bundle_unsigned", bundle=bundle.digest, path=str(settings.bundle), allowed_by="unsigned_bundles")
    # ONNX Runtime takes 0.2 s to import; the stub needs none.
    from stream.scoring.golden import golden_of, refuse_other_logits  # noqa: PLC0415
    from stream.scoring.opening import open_scorer  # noqa: PLC0415
    from stream.scoring.rehearsal import rehearse  # noqa: PLC0415

    rehearse(bundle)
    scorer = open_scorer(
        bundle,
        provider=settings.provider,
        max_batch_tokens=settings.max_batch_tokens,
        max_windows=settings.max_windows,
    )
    refuse_other_logits(scorer, golden_of(bundle), provider=settings.provider, name=str(settings.bundle))
    log.debug("bundle_loaded", bundle=bundle.digest, signer=bundle.signer)
    calibration = bundle.calibration
    return Model(
        scorer,
        calibration.harms,
        bundle.digest,
        bundle.calibration_digest,
        calibration.created_at,
        bundle.manifest.input.modality,
    )


def build_pipeline(settings: Settings, model: Model, policy: CompiledPolicy) -> Pipeline:
    """Put the spine together. Raises `MappingError`."""
    return Pipeline(Decoder(decode_limits(settings), _mapping(settings)), model.scorer, model.calibrator, policy)


def decode_limits(settings: Settings) -> DecodeLimits:
    """What is decoded at most."""
    return DecodeLimits(
        max_event_bytes=settings.max_event_bytes,
        max_json_depth=settings.max_json_depth,
        max_future_s=settings.max_future_s,
        max_image_pixels=settings.max_image_pixels,
        max_image_frames=settings.max_image_frames,
    )


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
    bundle_watch = BundleWatch(settings.bundle)  # before it is loaded
    model = model or load_model(settings)
    policy = compile_policy(settings.policy, model.calibration)
    refuse_old(settings, model, policy)
    pipeline = build_pipeline(settings, model, policy)
    topics = OutputTopics(settings.decisions_topic, settings.review_topic, settings.dead_letter_topic)
    metrics = ModerateMetrics(telemetry, harms=model.scorer.harms)
    stage = ModerateStage(
        pipeline, build_encoder(settings, model, pipeline), topics, metrics, worker=worker_name(settings)
    )
    reload = Reload(settings, stage, metrics, model=model, bundle_watch=bundle_watch)
    plan = StagePlan(
        name="moderate",
        topics=[settings.events_topic],
        stage=stage,
        max_records=settings.slice_max_records,
        unit_s=min(UNIT_S, settings.drain_s / UNITS_IN_DRAIN),
        housekeeping=reload.run_for_ever,
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


class Reload:
    """Watches the policy file and the bundle's folder; what is good is put in force between two units, the rest is not.

    A policy is judged with the bundle in force, a bundle with the policy file as it is then, and once more when that
    changes. So where both have to change, for a new harm say, the second to come brings the first with it.
    """

    def __init__(
        self,
        settings: Settings,
        stage: ModerateStage,
        metrics: ModerateMetrics,
        *,
        model: Model,
        bundle_watch: BundleWatch,
    ) -> None:
        self._settings, self._stage, self._metrics, self._bundle_watch = settings, stage, metrics, bundle_watch
        self._bundle_refused = False
        self._take(model)

    async def run_for_ever(self, conveyor: Conveyor) -> None:
        """Look now and then, for as long as the worker lives."""
        await asyncio.gather(self._watch_policy(), self._watch_bundle(conveyor))

    async def _watch_policy(self) -> None:
        settings = self._settings
        while True:
            await asyncio.sleep(settings.policy_reload_s)
            change = self._policy_watch.look(time.monotonic())
            if change is None:
                continue
            try:
                self._take_policy(change)
            except FairwayError as error:
                self._metrics.policy_reloads.labels("refused").inc()
                log.error(  # noqa: TRY400 - the text says it all
                    "policy_refused", error=str(error), in_force=self._stage.pipeline.policy.digest
                )
            if self._bundle_refused:
                self._bundle_watch.reconsider()

    def _take_policy(self, change: CompiledPolicy | PolicyError) -> None:
        if isinstance(change, PolicyError):
            raise change
        refuse_old(self._settings, self._model, change)
        self._stage.replace(replace(self._stage.pipeline, policy=change))
        self._metrics.policy.info({"name": change.name, "digest": change.digest})
        self._metrics.policy_reloads.labels("accepted").inc()
        log.info("policy_replaced", policy=change.digest)

    async def _watch_bundle(self, conveyor: Conveyor) -> None:
        settings = self._settings
        while settings.bundle != STUB:
            await asyncio.sleep(settings.bundle_reload_s)
            if not self._bundle_watch.look(time.monotonic()):
                continue
            try:
                # In a thread: it takes seconds, in which partitions have to be polled and outputs sent.
                self._take_bundle(await asyncio.to_thread(load_model, settings))
                conveyor.find_pace_anew()
            except FairwayError as error:
                self._bundle_refused = True
                self._metrics.bundle_reloads.labels("refused").inc()
                log.error(  # noqa: TRY400 - the text says it all
                    "bundle_refused", error=str(error), in_force=self._model.bundle_digest
                )

    def _take_bundle(self, model: Model) -> None:
        policy = compile_policy(self._settings.policy, model.calibration)
        refuse_old(self._settings, model, policy)
        pipeline = replace(self._stage.pipeline, scorer=model.scorer, calibrator=model.calibrator, policy=policy)
        self._stage.replace(pipeline, build_encoder(self._settings, model, pipeline))
        self._take(model)
        self._bundle_refused = False
        self._metrics.bundle_reloads.labels("accepted").inc()
        log.info("bundle_replaced", bundle=model.bundle_digest, policy=policy.digest)

    def _take(self, model: Model) -> None:
        """Remember and show what is in force."""
        policy = self._stage.pipeline.policy
        self._model = model
        self._policy_watch = PolicyWatch(self._settings.policy, model.calibration, policy)
        self._metrics.policy.info({"name": policy.name, "digest": policy.digest})
        self._metrics.model.info({"bundle": model.bundle_digest, "provider": model.scorer.provider})
        at = model.calibrated_at
        self._metrics.calibrated.set(math.nan if at is None else at.timestamp())


def refuse_old(settings: Settings, model: Model, policy: CompiledPolicy) -> None:
    """Raise `BundleError` where the model was calibrated longer ago than the policy allows."""
    is_fitted = any(harm.is_fitted for harm in model.calibration.values())
    now, bundle = datetime.now(UTC), str(settings.bundle)
    refuse_old_calibration(policy, model.calibrated_at, now=now, bundle=bundle, is_fitted=is_fitted)


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
