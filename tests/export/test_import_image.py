"""Image classifiers of `transformers`: each imported from a folder, packed, signed, served, and equal to torch."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessorPil,
    DeiTImageProcessorPil,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from export.errors import ExportError
from export.importing.image import import_image
from export.importing.preprocessing import read_preprocessing, read_processor
from stream.bundle import ImageInput
from stream.events import Image
from stream.scoring.golden import golden_of, refuse_other_logits
from stream.scoring.image import ImageScorer
from stream.scoring.picture import PictureReader
from stream.scoring.rehearsal import rehearse
from tests.importing import packed
from tests.pictures import drawn, encoded, events_with, image_of

pytestmark = pytest.mark.export

SIDE = 32
CLASSES = ("landscape", "gore", "fight", "nude", "portrait")
LABELS = {"landscape": "harmless", "gore": "violence", "fight": "violence", "nude": "sexual", "portrait": "harmless"}
VIOLENCE, SEXUAL = [1, 2], [3]

NAMED: dict[str, Any] = {
    "num_labels": 5,
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: at for at, name in enumerate(CLASSES)},
}

SIZES = ((50, 40), (40, 70), (32, 32), (20, 25), (333, 100))


def vit(**options: Any) -> tuple[Any, Any]:
    config = ViTConfig(
        **(NAMED | options), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=SIDE, patch_size=8, initializer_range=0.3,
    )  # fmt: skip
    return ViTForImageClassification(config), ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})


def convnext() -> tuple[Any, Any]:
    config = ConvNextConfig(**NAMED, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 2, 1], image_size=SIDE)
    return ConvNextForImageClassification(config), ConvNextImageProcessorPil(size={"shortest_edge": SIDE})


def resnet() -> tuple[Any, Any]:
    config = ResNetConfig(**NAMED, embedding_size=16, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1])
    size: dict[str, Any] = {"size": {"shortest_edge": 40}, "crop_size": {"height": SIDE, "width": SIDE}}
    return ResNetForImageClassification(config), CLIPImageProcessorPil(**size)


def clip() -> tuple[Any, Any]:
    small: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    vision = CLIPVisionConfig(**small, image_size=SIDE, patch_size=8)
    text = CLIPTextConfig(**small, vocab_size=99)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), **NAMED)
    size: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return CLIPForImageClassification(config), CLIPImageProcessorPil(**size)


ARCHITECTURES: Mapping[str, Callable[[], tuple[Any, Any]]] = {
    "vit": vit,
    "convnext": convnext,
    "resnet": resnet,
    "clip": clip,
}


def saved(made: tuple[Any, Any], folder: Path) -> Path:
    """A checkpoint's folder, of a model with random weights that differ from image to image."""
    model, processor = made
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" in name:
                parameter.normal_(std=1.0)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def silent(_: str) -> None:
    """Say nothing."""


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
    checkpoint = saved(made, tmp_path / "checkpoint")
    said: list[str] = []
    imported = import_image(checkpoint, LABELS, said.append)
    assert imported.harms == ("violence", "sexual")
    assert imported.parity.max_abs_logit <= 1e-4
    assert len(said) == 2
    bundle = packed(imported, tmp_path / "bundle")
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
    imported = import_image(saved(made, tmp_path / "checkpoint"), LABELS, silent, roles=("prompt",))
    assert imported.roles == ("prompt",)
    bundle = packed(imported, tmp_path / "bundle")
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
        import_image(saved(vit(), tmp_path), LABELS, silent)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (dict.fromkeys(CLASSES, "violence"), "mapped to violence, so it would always be found"),
        (dict.fromkeys(CLASSES, "harmless"), "has no harm"),
        ({name: LABELS[name] for name in CLASSES[1:]}, r"leaves \[.landscape.\] unmapped"),
        (LABELS | {"sunset": "harmless"}, r"maps \[.sunset.\]; the model.s classes are"),
    ],
)
def test_a_label_map_that_does_not_fit_is_refused(labels: dict[str, str], problem: str, tmp_path: Path) -> None:
    """Every class is mapped, nothing else is, and neither all of them to one harm nor none to any."""
    with pytest.raises(ExportError, match=problem):
        import_image(saved(vit(), tmp_path), labels, silent)


def test_a_model_that_classifies_nothing_is_refused(tmp_path: Path) -> None:
    """A regression is no classifier."""
    with pytest.raises(ExportError, match="problem_type is regression"):
        import_image(saved(vit(problem_type="regression"), tmp_path), LABELS, silent)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """A checkpoint with its weights in a pickle only is refused unread, saying what to do."""
    (saved(vit(), tmp_path) / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle at all")
    with pytest.raises(ExportError, match=r"pytorch_model.bin only, a pickle, which can run any code"):
        import_image(tmp_path, LABELS, silent)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ExportError, match=r"holds no .*safetensors"):
        import_image(tmp_path, LABELS, silent)


def test_weights_that_lack_are_not_made_up(tmp_path: Path) -> None:
    """A checkpoint without a head, which the library would fill with random numbers, is refused."""
    model, processor = vit()
    model.vit.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    named = {
        "id2label": {str(at): name for at, name in enumerate(CLASSES)},
        "architectures": ["ViTForImageClassification"],
    }
    (tmp_path / "config.json").write_text(json.dumps(config | named))
    with pytest.raises(ExportError, match=r"lacks weights that its config.json asks for, classifier.bias among them"):
        import_image(tmp_path, LABELS, silent)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """A folder without a processor, of another kind of model, or whose sizes do not fit, is refused in words."""
    checkpoint = saved(vit(), tmp_path)
    path = checkpoint / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"height": 64, "width": 64}}))
    with pytest.raises(ExportError, match="does not take images of 64 x 64"):
        import_image(checkpoint, LABELS, silent)
    (checkpoint / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ExportError, match="no image classifier that can be loaded"):
        import_image(checkpoint, LABELS, silent)
    path.unlink()
    with pytest.raises(ExportError, match=r"holds no preprocessor_config.json"):
        import_image(checkpoint, LABELS, silent)


def test_the_golden_images_of_any_size_fit_into_events(tmp_path: Path) -> None:
    """Golden events of a model of 512 x 512 that only cuts are small enough to be stored, and are read whole."""
    from export.golden_images import golden_images  # noqa: PLC0415
    from stream.scoring.golden import LIMITS  # noqa: PLC0415

    given = ImageInput(kind="image", height=512, width=512, resize="none")
    for golden in golden_images(given):
        assert len(golden.image.data or "") < LIMITS.max_event_bytes - 1000
        picture = PictureReader(given).read(golden.image)
        assert picture.whole
        assert np.ptp(picture.pieces) > 100
    assert tmp_path.is_dir()
