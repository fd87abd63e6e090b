"""What a running worker takes up of a changed policy file and bundle folder, with no Kafka in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from stream import wiring
from stream.bundle import BundleWatch
from stream.kafka.conveyor import Conveyor
from stream.kafka.moderate import ModerateStage, OutputTopics
from stream.policy import compile_policy
from stream.settings import Settings
from stream.telemetry import ModerateMetrics, Telemetry
from tests.bundles import KEYS, copy_of_lite, edit_manifest, replace_listed

ROOT = Path(__file__).parents[2]


class Heard:
    """A log that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **values: self.lines.append(f"{level} {event} {values}")


class FoundAnew:
    """Counts how often the conveyor is to find its pace anew; reloading asks nothing else of it."""

    times = 0

    def find_pace_anew(self) -> None:
        self.times += 1


class Worker:
    """The part of a worker that reloads, with a copy of the shipped bundle and policy of its own, looked at often."""

    def __init__(self, folder: Path) -> None:
        self.bundle, self.policy = copy_of_lite(folder / "bundle", signed=False), folder / "policy.yaml"
        self.policy.write_bytes((ROOT / "ops/policies/default.yaml").read_bytes())
        self.settings = Settings(
            bundle=self.bundle,
            policy=self.policy,
            trusted_keys=KEYS,
            unsigned_bundles="allow",
            policy_reload_s=0.02,
            bundle_reload_s=0.02,
        )
        watch = BundleWatch(self.bundle)
        self.first = wiring.load_model(self.settings)
        policy = compile_policy(self.policy, self.first.calibration)
        pipeline = wiring.build_pipeline(self.settings, self.first, policy)
        self.pace = FoundAnew()
        self.telemetry = Telemetry()
        metrics = ModerateMetrics(self.telemetry, harms=self.first.scorer.harms)
        encoder = wiring.build_encoder(self.settings, self.first, pipeline)
        self.stage = ModerateStage(pipeline, encoder, OutputTopics("d", "r", "l"), metrics, worker="w")
        self.reload = wiring.Reload(self.settings, self.stage, metrics, model=self.first, bundle_watch=watch)

    @property
    def registry(self) -> CollectorRegistry:
        return self.telemetry.registry

    def reloads(self, kind: str, result: str) -> float:
        """How often something was accepted or refused."""
        return self.registry.get_sample_value(f"fairway_{kind}_reloads_total", {"result": result}) or 0.0

    def serves_the_first(self) -> bool:
        return self.stage.pipeline.scorer is self.first.scorer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let it look until a condition holds."""
        running = asyncio.create_task(self.reload.run_for_ever(cast("Conveyor", self.pace)))
        try:
            while not condition():
                assert not running.done(), running
                await asyncio.sleep(0.01)
        finally:
            running.cancel()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """What is logged, however the log was set up by whoever came before."""
    heard = Heard()
    monkeypatch.setattr(wiring, "log", heard)
    return heard


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker for which a change has settled at once."""
    monkeypatch.setattr("stream.bundle.watch.SETTLE_S", 0.0)
    monkeypatch.setattr("stream.policy.watch.SETTLE_S", 0.0)
    return Worker(tmp_path)


def rename(worker: Worker) -> None:
    edit_manifest(worker.bundle, lambda manifest: manifest.__setitem__("version", "2"))


def test_another_bundle_is_put_in_force(worker: Worker) -> None:
    """A changed bundle is loaded, served, counted, and shown in the metrics with the time of its calibration."""
    rename(worker)
    asyncio.run(worker.until(lambda: worker.reloads("bundle", "accepted") == 1))
    assert not worker.serves_the_first()
    calibrated = worker.registry.get_sample_value("fairway_calibration_timestamp_seconds")
    assert calibrated == pytest.approx(worker.first.calibrated_at.timestamp() if worker.first.calibrated_at else None)
    assert b"fairway_model_info{bundle=" in worker.telemetry.exposition()
    assert worker.pace.times == 1


def test_a_bad_bundle_leaves_the_old_one_and_mending_it_ends_that(worker: Worker, heard: Heard) -> None:
    """A damaged bundle is refused once and said so, the old one serves; undamaged again, it is taken up."""
    model = (worker.bundle / "model.onnx").read_bytes()
    (worker.bundle / "model.onnx").write_bytes(model[:-1])
    asyncio.run(worker.until(lambda: worker.reloads("bundle", "refused") == 1))
    assert worker.serves_the_first()
    assert [line for line in heard.lines if line.startswith("error bundle_refused") and "model.onnx" in line]
    (worker.bundle / "model.onnx").write_bytes(model)
    asyncio.run(worker.until(lambda: worker.reloads("bundle", "accepted") == 1))


def rename_a_harm(worker: Worker) -> None:
    """A bundle that calls a harm something else, as a new model may."""
    calibration = (worker.bundle / "calibration.json").read_text().replace('"self_harm"', '"self_injury"')
    manifest = worker.bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"self_harm"', '"self_injury"'))
    replace_listed(worker.bundle, {"calibration.json": calibration.encode()})


def name_the_harm(worker: Worker) -> None:
    worker.policy.write_text(worker.policy.read_text().replace("self_harm:", "self_injury:"))


@pytest.mark.parametrize("order", [(rename_a_harm, name_the_harm), (name_the_harm, rename_a_harm)])
def test_a_bundle_with_other_harms_comes_with_its_policy_in_either_order(
    worker: Worker, order: tuple[Callable[[Worker], None], Callable[[Worker], None]]
) -> None:
    """Bundle and policy that fit only each other are refused one by one, and taken up when both are there."""
    before, after = order
    before(worker)
    kind = "bundle" if before is rename_a_harm else "policy"
    asyncio.run(worker.until(lambda: worker.reloads(kind, "refused") >= 1))
    assert worker.serves_the_first()
    after(worker)
    asyncio.run(worker.until(lambda: worker.reloads("bundle", "accepted") == 1))
    assert "self_injury" in worker.stage.pipeline.policy.harms


def test_a_policy_that_the_calibration_is_too_old_for(worker: Worker, heard: Heard) -> None:
    """A policy that allows less age than the calibration in force has is refused, one that allows it is taken up."""
    text = worker.policy.read_text()
    worker.policy.write_text(f"{text}\ncalibration: {{max_age_days: 0.000001}}\n")
    asyncio.run(worker.until(lambda: worker.reloads("policy", "refused") == 1))
    assert [line for line in heard.lines if line.startswith("error policy_refused") and "days ago" in line]
    assert worker.stage.pipeline.policy.max_calibration_age_days is None
    worker.policy.write_text(f"{text}\ncalibration: {{max_age_days: 36500}}\n")
    asyncio.run(worker.until(lambda: worker.reloads("policy", "accepted") == 1))


def test_a_bundle_calibrated_too_long_ago_is_refused(worker: Worker) -> None:
    """A bundle with a calibration older than the policy in force allows does not take the place of a young one."""
    worker.policy.write_text(f"{worker.policy.read_text()}\ncalibration: {{max_age_days: 3650}}\n")
    asyncio.run(worker.until(lambda: worker.reloads("policy", "accepted") == 1))
    calibration = json.loads((worker.bundle / "calibration.json").read_bytes())
    calibration["created_at"] = "2010-01-01T00:00:00Z"
    replace_listed(worker.bundle, {"calibration.json": json.dumps(calibration).encode()})
    asyncio.run(worker.until(lambda: worker.reloads("bundle", "refused") == 1))
    assert worker.serves_the_first()


def test_an_unsigned_bundle_is_a_warning(worker: Worker, heard: Heard) -> None:
    """Where unsigned bundles are allowed, each load of one says so in the log, with the setting that allows it."""
    wiring.load_model(worker.settings)
    assert [line for line in heard.lines if line.startswith("warning bundle_unsigned") and "unsigned_bundles" in line]
