"""Image classifiers of `transformers`: each imported from a folder, packed, signed, served, and equal to torch."""

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
from numpy.typing import NDArray
from PIL import Image as Pillow
from transformers import (
    CLIPImageProcessorPil,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    ViTImageProcessorPil,
)

from export.bundling.golden_images import golden_images
from export.errors import ExportError
from export.importing.image import ROLES, import_image
from export.importing.labels import LabelMap, read_labels
from export.importing.preprocessing import read_preprocessing, read_processor
from stream.bundle import ImageInput
from stream.errors import ConfigError
from stream.events import Image
from stream.scoring.golden import LIMITS, golden_of, refuse_other_logits
from stream.scoring.image import ImageScorer
from stream.scoring.picture import PictureReader
from stream.scoring.rehearsal import rehearse
from tests.checkpoints import edit_config, label_map, signed_bundle
from tests.image_checkpoints import ARCHITECTURES, CLASSES, MEANINGS, SIDE, save_image_checkpoint, vit
from tests.pictures import drawn, encoded, events_with, image_of

pytestmark = pytest.mark.export

VIOLENCE, SEXUAL = [1, 2], [3]

SIZES = ((50, 40), (40, 70), (32, 32), (20, 25), (333, 100))


def silent(_: str) -> None:
    """Say nothing."""


def labels_in(folder: Path, classes: Mapping[str, str] = MEANINGS, **more: Any) -> LabelMap:
    """A label map without roles, of classes that exclude each other."""
    return read_labels(
        label_map(folder / "map.yaml", classes, **({"roles": None, "scores": "softmax"} | more)), roles=ROLES
    )


def odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Class scores (n, 5) to the log odds of violence and of sexual content, by plain softmax."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    p = np.stack([shares[:, VIOLENCE].sum(axis=1), shares[:, SEXUAL].sum(axis=1)], axis=1)
    return np.asarray(np.log(p / (1 - p)))


def shown(image: Image) -> Pillow.Image:
    """An image as Pillow decodes it."""
    return Pillow.open(io.BytesIO(base64.b64decode(image.data or ""))).convert("RGB")


PICTURES = [
    *(image_of(encoded(drawn(*size, seed=at), "image/png"), "image/png") for at, size in enumerate(SIZES)),
    image_of(encoded(drawn(64, 48), "image/jpeg", quality=90), "image/jpeg"),
    image_of(encoded(drawn(64, 48), "image/webp"), "image/webp"),
    image_of(encoded(drawn(64, 48), "image/gif"), "image/gif"),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_imported_model_is_served_as_torch_computes_it(architecture: str, tmp_path: Path) -> None:
    """Imported, packed, signed, tried in a process of its own and served, an image has torch's log odds per harm."""
    made = ARCHITECTURES[architecture]()
    checkpoint = save_image_checkpoint(made, tmp_path / "checkpoint")
    said: list[str] = []
    imported = import_image(checkpoint, labels_in(tmp_path), said.append)
    assert imported.harms == ("violence", "sexual")
    assert imported.roles == ROLES
    assert imported.parity.max_abs_logit <= 1e-4
    assert len(said) == 4
    bundle = signed_bundle(imported, tmp_path / "bundle")
    assert rehearse(bundle) <= 1e-4
    scorer = ImageScorer.from_bundle(bundle, provider="cpu")
    assert refuse_other_logits(scorer, golden_of(bundle), provider="cpu", name="it") <= 1e-4
    scores = scorer.score(events_with(*PICTURES))
    model, processor = made
    with torch.no_grad():
        pixels = [processor(images=shown(image), return_tensors="pt")["pixel_values"] for image in PICTURES]
        expected = odds(model(pixel_values=torch.cat(pixels)).logits.double().numpy())
    np.testing.assert_allclose(scores.logits, expected, atol=2e-4)
    assert np.ptp(expected, axis=0).min() > 0.01
    alone = [scorer.score(events_with(image)).logits[0] for image in PICTURES]
    assert np.array_equal(np.stack(alone), scores.logits)


def test_classes_that_do_not_exclude_each_other_keep_their_logits(tmp_path: Path) -> None:
    """Of a model with a sigmoid per class, a harm has the largest logit of its classes."""
    made = vit(problem_type="multi_label_classification")
    labels = labels_in(tmp_path, scores=None, roles=["prompt"])
    imported = import_image(save_image_checkpoint(made, tmp_path / "checkpoint"), labels, silent)
    assert imported.roles == ("prompt",)
    bundle = signed_bundle(imported, tmp_path / "bundle")
    scores = ImageScorer.from_bundle(bundle, provider="cpu").score(events_with(PICTURES[0]))
    with torch.no_grad():
        logits = made[0](**made[1](images=shown(PICTURES[0]), return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(scores.logits, [[logits[0, VIOLENCE].max(), logits[0, 3]]], atol=1e-4)


PROCESSORS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "stretch": (
        ViTImageProcessorPil(size={"height": 24, "width": 40}),
        {"resize": "stretch", "height": 24, "width": 40},
    ),
    "stretch bicubic": (
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=3),
        {"interpolation": "bicubic"},
    ),
    "stretch lanczos": (
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=1),
        {"interpolation": "lanczos"},
    ),
    "stretch nearest": (
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=0),
        {"interpolation": "nearest"},
    ),
    "no normalisation": (
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_normalize=False),
        {"mean": (0, 0, 0)},
    ),
    "shorter side": (
        CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": SIDE, "width": 30}),
        {"resize": "shorter_side", "resize_to": 36, "height": SIDE, "width": 30, "interpolation": "bicubic"},
    ),
    "stretch and cut": (
        DeiTImageProcessorPil(size={"height": 36, "width": 36}, crop_size={"height": SIDE, "width": SIDE}),
        {"resize": "stretch", "resize_to": 36},
    ),
    "cut": (
        CLIPImageProcessorPil(do_resize=False, crop_size={"height": SIDE, "width": SIDE}),
        {"resize": "none", "height": SIDE},
    ),
    "convnext": (ConvNextImageProcessorPil(size={"shortest_edge": SIDE}), {"resize": "shorter_side", "resize_to": 36}),
    "convnext warped": (ConvNextImageProcessorPil(size={"shortest_edge": 384}), {"resize": "stretch", "height": 384}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_is_the_processors(name: str, tmp_path: Path) -> None:
    """What a manifest says of a processor gives its pixels within 1e-6, for images of any shape."""
    processor, fields = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    given = read_preprocessing(read_processor(tmp_path), tmp_path)
    assert {field: getattr(given, field) for field in fields} == fields
    reader = PictureReader(given)
    for image in PICTURES[:6]:
        expected = processor(images=shown(image), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(reader.pixels(reader.read(image).pieces), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"do_rescale": False}, "do_rescale"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"do_pad": True}, "do_pad"),
        ({"resample": 5}, "resample: 5"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"do_resize": False}, "do_resize: false without do_center_crop"),
        ({"size": {"longest_edge": 40, "shortest_edge": 32}}, "a size of longest_edge and shortest_edge"),
        ({"size": {"height": 4000, "width": 4000}}, "less than or equal to 2048"),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "is EfficientNetImageProcessorPil"),
        ({"image_processor_type": "NoSuchProcessor"}, "NoSuchProcessor, which transformers does not compute"),
    ],
)
def test_preprocessing_that_no_manifest_can_say_is_refused(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    """A processor that does something else is refused at import, naming the field."""
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ExportError, match=problem):
        read_preprocessing(read_processor(tmp_path), path)


def test_pixels_other_than_the_processors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a processor's configuration misread, the import would see it in the pixels."""
    misread = ImageInput(kind="image", height=SIDE, width=SIDE, resize="stretch", mean=(0.5, 0.5, 0.49))
    monkeypatch.setattr("export.importing.image.read_preprocessing", lambda *_: misread)
    with pytest.raises(ExportError, match="gives other pixels than its"):
        import_image(save_image_checkpoint(vit(), tmp_path), labels_in(tmp_path), silent)


def test_a_label_map_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A class that is not mapped, and scores that nobody states, are refused with the line of the map."""
    checkpoint = save_image_checkpoint(vit(), tmp_path)
    rest = {name: MEANINGS[name] for name in CLASSES[1:]}
    with pytest.raises(ConfigError, match=r"map.yaml:1: classes: the class `landscape` is not mapped"):
        import_image(checkpoint, labels_in(tmp_path, rest), silent)
    with pytest.raises(ConfigError, match=r"has no problem_type, so the map has to say"):
        import_image(checkpoint, labels_in(tmp_path, scores=None), silent)


def test_what_could_run_code_is_refused(tmp_path: Path) -> None:
    """A checkpoint with its weights in a pickle only, or that names code of its own, is refused unread."""
    checkpoint = save_image_checkpoint(vit(), tmp_path)
    weights = (checkpoint / "model.safetensors").rename(checkpoint / "aside")
    (checkpoint / "pytorch_model.bin").write_bytes(b"no pickle at all")
    with pytest.raises(ExportError, match=r"pytorch_model.bin only, a pickle, which can run any code"):
        import_image(checkpoint, labels_in(tmp_path), silent)
    weights.rename(checkpoint / "model.safetensors")
    edit_config(checkpoint, auto_map={"AutoModelForImageClassification": "modeling.Model"})
    with pytest.raises(ExportError, match=r"code of its own \(auto_map\)"):
        import_image(checkpoint, labels_in(tmp_path), silent)


def test_a_model_too_large_for_a_bundle_is_refused_unread(tmp_path: Path) -> None:
    """The size is told from the config: a model of gigabytes is refused before its weights are looked at."""
    checkpoint = save_image_checkpoint(vit(), tmp_path)
    edit_config(checkpoint, hidden_size=8192, intermediate_size=32768)
    with pytest.raises(ExportError, match=r"has 6\.. GB of weights, a bundle's file may have 2\.1 GB: import one of"):
        import_image(checkpoint, labels_in(tmp_path), silent)


def test_weights_that_lack_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without a head, which the library would fill with random numbers, is refused."""
    model, processor = vit()
    model.vit.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    names = {str(at): name for at, name in enumerate(CLASSES)}
    edit_config(tmp_path, id2label=names, architectures=["ViTForImageClassification"])
    with pytest.raises(
        ExportError, match=r"lacks 2 of the weights of a ViTForImageClassification, .* classifier\.bias first"
    ):
        import_image(tmp_path, labels_in(tmp_path), silent)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """A folder without a processor, of another kind of model, or whose sizes do not fit, is refused in words."""
    checkpoint = save_image_checkpoint(vit(), tmp_path)
    path = checkpoint / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"height": 64, "width": 64}}))
    with pytest.raises(ExportError, match="does not take images of 64 x 64"):
        import_image(checkpoint, labels_in(tmp_path), silent)
    edit_config(checkpoint, model_type="bert")
    with pytest.raises(ExportError, match=r"cannot load .*BertConfig"):
        import_image(checkpoint, labels_in(tmp_path), silent)
    path.unlink()
    with pytest.raises(ExportError, match=r"preprocessor_config.json: No such file .*brought to size"):
        import_image(checkpoint, labels_in(tmp_path), silent)


def test_the_golden_images_of_any_size_fit_into_events() -> None:
    """Golden events of a model of 512 x 512 that only cuts are small enough to be stored, and are read whole."""
    given = ImageInput(kind="image", height=512, width=512, resize="none")
    for golden in golden_images(given):
        assert len(golden.image.data or "") < LIMITS.max_event_bytes - 1000
        picture = PictureReader(given).read(golden.image)
        assert picture.whole
        assert np.ptp(picture.pieces) > 100
