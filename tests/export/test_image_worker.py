"""A worker on a real Kafka that serves an image classifier: images in, torch's scores in decisions out."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageOps
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from export.importing.image import import_image
from export.importing.labels import read_labels
from stream.kafka import topics
from stream.kafka.audit import audit
from stream.kafka.broker import LocalBroker
from tests.bundles import trust_own_key
from tests.checkpoints import label_map, signed_bundle
from tests.conftest import own_settings
from tests.hostile.images import SOUND
from tests.pictures import KINDS, drawn, encoded
from tests.topics import records_of
from tests.traffic import produce
from tests.workers import WorkerProcess, until

pytestmark = [pytest.mark.kafka, pytest.mark.export, pytest.mark.timeout(300)]

SIDE = 32
POLICY = """\
schema_version: 1
name: images
version: "1"
severity: [allow, label, review, restrict, block]
harms:
  violence: {action: restrict, act_at: 0.9, allow_below: 0.1}
fail: {scorer_error: review, unsupported: closed, truncated: review}
"""


def classifier(folder: Path) -> Any:
    """A tiny model with random weights, in a checkpoint's folder."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=SIDE,
        patch_size=8, initializer_range=0.3, id2label={0: "calm", 1: "fight"}, label2id={"calm": 0, "fight": 1},
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.normal_()
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return model


def event(name: str, **fields: Any) -> bytes:
    return json.dumps({"id": name, "created_at": "2026-01-01T00:00:00Z", "role": "output"} | fields).encode()


def picture_field(data: bytes, kind: str) -> dict[str, str]:
    return {"media_type": kind, "data": base64.b64encode(data).decode()}


def readable() -> Mapping[str, tuple[str, bytes]]:
    """Images of every kind, several of some, one of them turned by its EXIF."""
    turned = Pillow.Exif()
    turned[0x0112] = 6
    made = {
        f"{name} {seed}": (kind, encoded(drawn(60 + 9 * seed, 44, seed=seed), kind))
        for kind, name in KINDS.items()
        for seed in range(3)
    }
    return made | {"turned": ("image/jpeg", encoded(drawn(80, 40), "image/jpeg", exif=turned))}


def test_a_worker_decides_on_images_as_torch_scores_them(broker: LocalBroker, tmp_path: Path) -> None:
    """Images of all four kinds have torch's probabilities; whatever else comes is decided by rule; none is lost."""
    model = classifier(tmp_path / "checkpoint")
    classes = label_map(tmp_path / "map.yaml", {"calm": "harmless", "fight": "violence"}, scores="softmax")
    imported = import_image(tmp_path / "checkpoint", read_labels(classes), lambda _: None)
    bundle = signed_bundle(imported, tmp_path / "bundle")
    (tmp_path / "policy.yaml").write_text(POLICY)
    settings = own_settings(
        broker,
        bundle=bundle.path,
        trusted_keys=trust_own_key(tmp_path / "keys"),
        policy=tmp_path / "policy.yaml",
        partitions=2,
        log_format="json",
    )
    images = readable()
    address = {"media_type": "image/png", "url": "https://images.example/1"}
    some_kind, some_data = images["PNG 0"]
    torn = encoded(drawn(300, 300), "image/jpeg")[:-1000]
    other = {
        "text alone": event("text alone", text="hello"),
        "address alone": event("address alone", image=address),
        "text and image": event("text and image", text="hello", image=picture_field(some_data, some_kind)),
        "torn": event("torn", image=picture_field(torn, "image/jpeg")),
    }
    hostile = {f"hostile {name}": event(f"hostile {name}", image=picture_field(d, k)) for name, (k, d) in SOUND.items()}
    sound = {name: event(name, image=picture_field(data, kind)) for name, (kind, data) in images.items()}
    values = [*hostile.values(), *sound.values(), *other.values()]
    topics.create(settings)
    produce(settings, values)
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    try:
        worker.wait_ready()
        until(lambda: worker.metric("fairway_events_total") >= len(values), within_s=60)
        report = audit(settings, wait_s=60.0)
        assert report.is_sound, report.total
    finally:
        worker.close()
    records = [record for part in records_of(settings, settings.decisions_topic).values() for record in part]
    decisions = {decision["content_id"]: decision for decision in map(json.loads, (record.value for record in records))}
    assert decisions.keys() == (hostile | sound | other).keys()
    found = [decisions[name]["harms"]["violence"]["probability"] for name in images]
    np.testing.assert_allclose(found, [torch_probability(model, data) for _, data in images.values()], atol=2e-4)
    assert np.ptp(found) > 0.05
    assert all(decisions[name]["moderated"] for name in images)
    for name in other:
        assert decisions[name]["action"] == "block", name
        assert "fail:unsupported" in decisions[name]["reasons"]
    alone, beside = (decisions[name]["harms"]["violence"]["probability"] for name in ("PNG 0", "text and image"))
    assert alone == beside
    assert decisions["text alone"]["harms"] == decisions["torn"]["harms"] == {}
    assert all("fail:scorer_error" not in decision["reasons"] for decision in decisions.values())


def torch_probability(model: Any, data: bytes) -> float:
    """What `transformers` makes of an image, decoded and turned by Pillow."""
    shown = ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB")
    pixels = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})(images=shown, return_tensors="pt")
    with torch.no_grad():
        return float(torch.softmax(model(**pixels).logits.double(), dim=1)[0, 1])
