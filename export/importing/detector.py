"""The slot for a detector of synthetic images [S38]: SAFE's architecture, for weights that are trained elsewhere.

What generators leave behind is in the finest detail, so the network is given nothing else: the diagonal band of one
step of a wavelet, computed within the graph. For the same reason images are cut, never resized: to make an image
smaller averages away what is looked for. The network is a ResNet-50 without its last two stages.

No weights ship and none were trained here; the shapes and their names are those of the published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from export.errors import ExportError
from export.golden_images import golden_images
from export.importing.image import MODEL, ROLES, check_pixels
from export.importing.imported import Imported
from stream.bundle import ImageInput
from stream.scoring.picture import PictureReader

__all__ = ["DETECTOR_INPUT", "Detector", "DiagonalDetail", "SyntheticLogit", "import_detector", "read_detector"]

SYNTHETIC = "synthetic"
SIDE = 256

DETECTOR_INPUT = ImageInput(kind="image", height=SIDE, width=SIDE, resize="none", crops=5)
"""Pieces as they are, neither resized nor normalised: the centre, and of larger images the corners [S38]."""

_BLOCKS: Final = (3, 4)
_EXPANSION = 4
_REAL, _FAKE = 0, 1

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


class SyntheticLogit(nn.Module):
    """The detector as it is served: `pixels` to one logit (n, 1), of being synthetic."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> Tensor:
        """The log of the odds of fake against real."""
        scores = self.detector(pixels)
        return cast(Tensor, scores[:, _FAKE : _FAKE + 1] - scores[:, _REAL : _REAL + 1])


def read_detector(weights: Path) -> Detector:
    """The detector with the weights of a safetensors file, named as the published ones. Raises `ExportError`."""
    if weights.suffix != ".safetensors":
        raise ExportError(
            f"{weights} is no safetensors file, and other files of weights can run any code when they are read: "
            "convert it where it may, with the safetensors package"
        )
    try:
        tensors = load(weights.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot read the weights {weights}: {error}") from None
    detector = Detector()
    try:
        detector.load_state_dict(tensors)
    except RuntimeError as error:
        raise ExportError(f"{weights} is not of the detector's architecture: {error}") from None
    return detector.eval()


def import_detector(weights: Path, say: Callable[[str], None]) -> Imported:
    """Convert the detector with these weights. Raises `ExportError`."""
    module = SyntheticLogit(read_detector(weights)).eval()
    say(f"converting the detector of synthetic images, {SIDE} x {SIDE} pixels, cut and not resized")
    reader = PictureReader(DETECTOR_INPUT)
    pieces = [reader.read(golden.image).pieces for golden in golden_images(DETECTOR_INPUT)]
    parity, model = check_pixels(module, DETECTOR_INPUT, reader.pixels(np.concatenate(pieces)))
    say(f"the converted model's logits are within {parity.max_abs_logit:.1e} of the module's")
    return Imported(
        harms=(SYNTHETIC,),
        roles=ROLES,
        input=DETECTOR_INPUT,
        artefacts={"cpu": (MODEL, model)},
        tokenizer=None,
        parity=parity,
        about=(
            "A detector of synthetic images of SAFE's architecture: the finest diagonal detail of up to five pieces of "
            "256 x 256 pixels, read by the first half of a ResNet-50. It says that an image looks made, not by what, "
            "and not that it is harmful. Resizing and strong compression hide what it looks for."
        ),
    )


def _stage(before: int, planes: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = _Bottleneck(before, planes, stride)
    return nn.Sequential(first, *(_Bottleneck(planes * _EXPANSION, planes, 1) for _ in range(blocks - 1)))
