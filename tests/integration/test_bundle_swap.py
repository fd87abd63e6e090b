"""Bundles that change under a worker on a real Kafka: a good one is taken up, a bad one is not, nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream.bundle import Bundle, load
from stream.bundle.sign import sign
from stream.kafka import topics
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from tests.bundles import copy_of_lite, own_trust, replace_listed, signer, trust_own_key
from tests.conftest import own_settings
from tests.topics import records_of
from tests.traffic import Feed
from tests.workers import WorkerProcess, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "tests" / "golden" / "policy.yaml"


def recalibrated(folder: Path) -> Bundle:
    """A sound bundle with another calibration, so that its decisions show which one made them."""
    copy_of_lite(folder, signed=False)
    calibration = json.loads((folder / "calibration.json").read_bytes())
    calibration["harms"]["hate"]["b"] += 1.0
    replace_listed(folder, {"calibration.json": json.dumps(calibration).encode()})
    sign(folder, signer())
    return load(folder, own_trust())


def damaged(folder: Path) -> None:
    """A bundle signed as it should be, of which one bit of the model was changed since."""
    copy_of_lite(folder)
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)


def turn(link: Path, target: Path) -> None:
    """Let a link name another folder from one moment to the next, as a deployment does."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)


def test_a_bundle_is_swapped_under_load_and_a_bad_one_is_not(broker: LocalBroker, tmp_path: Path) -> None:
    """A damaged bundle is refused while the old one serves on; a good one decides from one event on; none is lost."""
    first, link = load(copy_of_lite(tmp_path / "one"), own_trust()), tmp_path / "current"
    damaged(tmp_path / "bad")
    second = recalibrated(tmp_path / "two")
    link.symlink_to(first.path)
    settings = own_settings(
        broker,
        bundle=link,
        trusted_keys=trust_own_key(tmp_path / "keys"),
        policy=POLICY,
        bundle_reload_s=0.5,
        partitions=2,
        log_format="json",
    )
    topics.create(settings)
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    try:
        with Feed(settings, rate=300):
            worker.wait_ready()
            turn(link, tmp_path / "bad")
            until(
                lambda: 'fairway_bundle_reloads_total{result="refused"} 1.0' in worker.page("/metrics")[1], within_s=60
            )
            done = worker.metric("fairway_events_total")
            until(lambda: worker.metric("fairway_events_total") > done + 300, within_s=60)
            assert f'bundle="{first.digest}"' in worker.page("/metrics")[1]
            turn(link, tmp_path / "two")
            until(lambda: f'bundle="{second.digest}"' in worker.page("/metrics")[1], within_s=60)
            done = worker.metric("fairway_events_total")
            until(lambda: worker.metric("fairway_events_total") > done + 300, within_s=60)
        report = audit(settings, wait_s=60.0)
        assert report.lag == 0
        assert report.is_sound, report.total
    finally:
        worker.close()
    (refused,) = (json.loads(line) for line in worker.log().splitlines() if "bundle_refused" in line)
    assert (refused["level"], refused["in_force"]) == ("error", first.digest)
    assert "model.onnx" in refused["error"]
    assert "damaged or changed" in refused["error"]
    calibrations = {bundle.digest: bundle.calibration_digest for bundle in (first, second)}
    for records in records_of(settings, settings.decisions_topic).values():
        decisions = [json.loads(record.value) for record in records]
        used = [decision["bundle"] for decision in decisions]
        assert used == sorted(used, key=[first.digest, second.digest].index)
        assert set(used) == set(calibrations)
        assert all(decision["calibration"] == calibrations[decision["bundle"]] for decision in decisions)
        assert all("fail:scorer_error" not in decision["reasons"] for decision in decisions)
