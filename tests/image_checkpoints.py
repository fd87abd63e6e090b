"""Tiny models of images of random weights, saved as checkpoints with their preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessorPil,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from export.importing.detector import Detector

__all__ = [
    "ARCHITECTURES",
    "CLASSES",
    "MEANINGS",
    "SIDE",
    "save_detector",
    "save_image_checkpoint",
    "vit",
]

SIDE = 32
CLASSES = ("landscape", "gore", "fight", "nude", "portrait")
MEANINGS = {"landscape": "harmless", "gore": "violence", "fight": "violence", "nude": "sexual", "portrait": "harmless"}

NAMED: dict[str, Any] = {
    "num_labels": 5,
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: at for at, name in enumerate(CLASSES)},
}


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


def save_image_checkpoint(made: tuple[Any, Any], folder: Path) -> Path:
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


def save_detector(folder: Path) -> Path:
    """A checkpoint of the detector of synthetic images, with batch norms that are not the identity."""
    torch.manual_seed(0)
    detector = Detector()
    for name, tensor in detector.state_dict().items():
        if name.endswith(("running_mean", "bias")) and "bn" in name:
            tensor.normal_(std=0.1)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    folder.mkdir(exist_ok=True)
    save_file(detector.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"architectures": ["SafeDetector"]}')
    return folder
