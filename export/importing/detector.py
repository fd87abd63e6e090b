"""The slot for a detector of synthetic images [S38]: SAFE's architecture, for weights that are trained elsewhere.

What generators leave behind is in the finest detail, so the network is given nothing else: the diagonal band of one
step of a wavelet, computed within the graph. For the same reason images are cut, never resized: to make an image
smaller averages away what is looked for. The network is a ResNet-50 without its last two stages.

No weights ship and none were trained here; the shapes and their names are those of the published ones. A checkpoint is
a folder with `model.safetensors` and a `config.json` of `{"architectures": ["SafeDetector"]}`; its classes are `real`
and `fake`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from export.bundling.golden_images import golden_images
from export.errors import ExportError
from export.importing.checkpoint import open_checkpoint
from export.importing.image import PixelModel, imported_pixels
from export.importing.imported import Imported
from export.importing.labels import LabelMap
from export.models.weights import SAFETENSORS
from export.progress import Say
from stream.bundle import ImageInput
from stream.scoring.picture import PictureReader

__all__ = ["DETECTOR_INPUT", "Detector", "DiagonalDetail", "import_detector", "read_detector"]

CLASSES: Final = ("real", "fake")

SIDE = 256

DETECTOR_INPUT = ImageInput(kind="image", height=SIDE, width=SIDE, resize="none", crops=5)
"""Pieces as they are, neither resized nor normalised: the centre, and of larger images the corners [S38]."""

_ABOUT = (
    "It reads the finest diagonal detail of up to five pieces of an image, with the first half of a ResNet-50. It says "
    "that an image looks made, not by what, and not that it is harmful. Resizing and strong compression hide what it "
    "looks for."
)

_BLOCKS: Final = (3, 4)
_EXPANSION = 4

HIGH_PASS: Final = (0.0, 0.0, -0.7071067811865476, 0.7071067811865476, 0.0, 0.0)
"""Bior1.3's decomposition filter for detail. Its zeros matter at the borders: they make it as long as the other one."""


class DiagonalDetail(nn.Module):
    """Images (n, 3, s, s) to their diagonal detail (n, 3, s, s): level 1 of bior1.3, symmetric, resized back.

    The third detail band of PyWavelets' `dwt2` with mode `symmetric`: the border is mirrored with its own pixels
    repeated, and both directions are filtered and every second result is kept.
    """

    def __init__(self, side: int = SIDE) -> None:
        super().__init__()
        taps = torch.tensor(HIGH_PASS, dtype=torch.float64).flip(0)
        kernel = torch.outer(taps, taps).float()[None, None].repeat(3, 1, 1, 1)
        self.register_buffer("kernel", kernel, persistent=False)
        # ONNX pads by reflection, which leaves the border's own pixels out; so the mirrored places are looked up.
        reach = len(HIGH_PASS) - 2
        places = np.concatenate([np.arange(reach)[::-1], np.arange(side), np.arange(side)[::-1][: reach + 1]])
        self.register_buffer("places", torch.from_numpy(places.copy()), persistent=False)
        self.side = side

    def band(self, images: Tensor) -> Tensor:
        """The band itself, (n, 3, b, b) with b = (side + 5) // 2."""
        places, kernel = cast(Tensor, self.places), cast(Tensor, self.kernel)
        mirrored = images.index_select(2, places).index_select(3, places)
        # The first result is of the second place on: that is where PyWavelets begins to keep.
        length = 2 * ((self.side + len(HIGH_PASS) - 1) // 2) + len(HIGH_PASS) - 2
        return functional.conv2d(mirrored[:, :, :length, :length], kernel, stride=2, groups=3)

    def forward(self, images: Tensor) -> Tensor:
        """The band in the size of the images."""
        size = (self.side, self.side)
        return functional.interpolate(self.band(images), size=size, mode="bilinear", align_corners=False)


class _Bottleneck(nn.Module):
    def __init__(self, before: int, planes: int, stride: int) -> None:
        super().__init__()
        after = planes * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(before, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, after, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(after))

    def forward(self, states: Tensor) -> Tensor:
        past = states if self.downsample is None else self.downsample(states)
        states = torch.relu(self.bn1(self.conv1(states)))
        states = torch.relu(self.bn2(self.conv2(states)))
        return torch.relu(self.bn3(self.conv3(states)) + past)


class Detector(nn.Module):
    """SAFE: images (n, 3, 256, 256) float32 in [0, 1] to scores (n, 2), of being real and of being fake."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = DiagonalDetail()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, _BLOCKS[0], stride=1)
        self.layer2 = _stage(256, 128, _BLOCKS[1], stride=2)
        self.fc1 = nn.Linear(512, 2)

    def forward(self, images: Tensor) -> Tensor:
        """The scores of n pieces."""
        states = torch.relu(self.bn1(self.conv1(self.detail(images))))
        states = functional.max_pool2d(states, 3, stride=2, padding=1)
        return cast(Tensor, self.fc1(self.layer2(self.layer1(states)).mean(dim=(2, 3))))


def read_detector(folder: Path) -> Detector:
    """The detector with the weights in `folder`, named as the published ones. Raises `ExportError`."""
    weights = folder / SAFETENSORS
    detector = Detector()
    try:
        detector.load_state_dict(load_file(weights))
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot read the weights {weights}: {error}") from None
    except RuntimeError as error:
        raise ExportError(f"{weights} is not of the detector's architecture: {error}") from None
    return detector.eval()


def import_detector(checkpoint: Path, labels: LabelMap, say: Say) -> Imported:
    """Convert the detector in the folder `checkpoint`.

    Raises `ExportError` where its weights are others, and `ConfigError` where `labels` does not fit it.
    """
    found = open_checkpoint(checkpoint)
    say(f"loading {found.architecture}, which reads {SIDE} x {SIDE} pixels, cut and not resized")
    classes = labels.match(CLASSES, problem_type=found.problem_type or "single_label_classification")
    module = PixelModel(read_detector(checkpoint), classes)
    reader = PictureReader(DETECTOR_INPUT)
    pieces = [reader.read(golden.image).pieces for golden in golden_images(DETECTOR_INPUT)]
    pixels = reader.pixels(np.concatenate(pieces))
    return imported_pixels(module, found, labels, DETECTOR_INPUT, pixels, about=_ABOUT, say=say)


def _stage(before: int, planes: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = _Bottleneck(before, planes, stride)
    return nn.Sequential(first, *(_Bottleneck(planes * _EXPANSION, planes, 1) for _ in range(blocks - 1)))
