"""Imported classifiers on a real Kafka: a worker serves them, and decides by what the checkpoint itself says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.importing.classifier import import_classifier
from export.importing.labels import read_labels
from export.importing.texts import texts_of_lengths
from stream.bundle.sign import sign
from stream.kafka import topics
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from tests.bundles import replace_listed, signer, trust_own_key
from tests.checkpoints import MEANINGS, class_logits, harm_logits, label_map, save_checkpoint, signed_bundle
from tests.conftest import own_settings
from tests.policies import HEAD, RULES
from tests.topics import records_of, send
from tests.workers import WorkerProcess

pytestmark = [pytest.mark.export, pytest.mark.kafka, pytest.mark.timeout(300)]

SLOPE, INTERCEPT = 0.7, -0.3


def silent(_: str) -> None:
    """Say nothing."""


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "deberta-v3"])
def test_a_worker_decides_by_what_the_checkpoint_says(kind: str, broker: LocalBroker, tmp_path: Path) -> None:
    """The probabilities in decisions of a signed import are those of transformers' logits behind its calibration."""
    model = save_checkpoint(tmp_path / "checkpoint", kind)
    labels = read_labels(label_map(tmp_path / "map.yaml", MEANINGS | {"rude": "hate", "insult": "hate"}))
    imported = import_classifier(tmp_path / "checkpoint", labels, silent)
    out = tmp_path / "bundle"
    bundle = signed_bundle(imported, out)
    calibration = json.loads(bundle.read("calibration.json"))
    for harm in calibration["harms"].values():
        harm |= {"a": SLOPE, "b": INTERCEPT}
    replace_listed(out, {"calibration.json": json.dumps(calibration).encode()})
    signed = sign(out, signer())
    (tmp_path / "policy.yaml").write_text(HEAD + RULES)
    settings = own_settings(
        broker,
        bundle=out,
        trusted_keys=trust_own_key(tmp_path / "keys"),
        policy=tmp_path / "policy.yaml",
        partitions=1,
    )
    topics.create(settings)
    texts = [text for text in texts_of_lengths(64) if len(text) < 50]
    events = [
        {"id": str(number), "created_at": "2026-01-01T12:00:00Z", "role": "post", "text": text}
        for number, text in enumerate(texts)
    ]
    send(settings, settings.events_topic, [(0, None, json.dumps(event).encode(), []) for event in events])
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    try:
        worker.wait_ready()
        report = audit(settings, wait_s=60.0)
        assert report.lag == 0
        assert report.is_sound, report.total
    finally:
        worker.close()
    decisions = [json.loads(record.value) for record in records_of(settings, settings.decisions_topic)[0]]
    assert [decision["content_id"] for decision in decisions] == [event["id"] for event in events]
    assert {decision["bundle"] for decision in decisions} == {signed.digest}
    found = [[decision["harms"][harm]["probability"] for harm in ("hate", "violence")] for decision in decisions]
    logits = harm_logits(class_logits(model, tmp_path / "checkpoint", texts))
    expected = 1 / (1 + np.exp(-(SLOPE * logits + INTERCEPT)))
    assert np.abs(np.array(found) - expected).max() <= 1e-4
