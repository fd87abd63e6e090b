"""The slot for a detector of synthetic images: its wavelet against PyWavelets, random weights against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pywt
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from safetensors.torch import save_file

from export.errors import ExportError
from export.graphs.convert import operators
from export.importing.detector import (
    DETECTOR_INPUT,
    HIGH_PASS,
    SIDE,
    Detector,
    DiagonalDetail,
    import_detector,
    read_detector,
)
from export.importing.image import PixelModel
from export.importing.labels import ClassMap, LabelMap, read_labels
from stream.errors import ConfigError
from stream.events import FailCondition
from stream.scoring.image import ImageScorer
from stream.scoring.rehearsal import rehearse
from tests.checkpoints import label_map, signed_bundle
from tests.image_checkpoints import save_detector
from tests.pictures import drawn, encoded, events_with, image_of

pytestmark = pytest.mark.export


def silent(_: str) -> None:
    """Say nothing."""


def labels_in(folder: Path, **more: Any) -> LabelMap:
    classes = {"real": "harmless", "fake": "synthetic"}
    return read_labels(label_map(folder / "map.yaml", classes, **more))


@pytest.mark.parametrize("side", [16, 17, 255, 256])
def test_the_band_is_the_wavelets(side: int) -> None:
    """The diagonal detail is the third band of PyWavelets' bior1.3 with mirrored borders, every border row included."""
    images = np.random.default_rng(side).random((2, 3, side, side), dtype=np.float32)
    expected = pywt.dwt2(images, "bior1.3", mode="symmetric", axes=(2, 3))[1][2]
    found = DiagonalDetail(side).band(torch.from_numpy(images)).numpy()
    assert found.shape == expected.shape == (2, 3, (side + 5) // 2, (side + 5) // 2)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(expected[:, :, 0]).max() > 0.01
    np.testing.assert_allclose(pywt.Wavelet("bior1.3").dec_hi, HIGH_PASS, atol=1e-12)


def test_the_band_is_brought_back_to_size_as_pillow_would() -> None:
    """The band in the size of the image is Pillow's bilinear enlargement of it, the borders included."""
    images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(4))
    detail = DiagonalDetail()
    bands = [Pillow.fromarray(band) for band in detail.band(images)[0].numpy()]
    expected = [np.asarray(band.resize((SIDE, SIDE), Pillow.Resampling.BILINEAR)) for band in bands]
    np.testing.assert_allclose(detail(images)[0], np.stack(expected), atol=1e-5)


def test_what_is_smooth_has_no_detail() -> None:
    """A plain surface and a straight edge have no diagonal detail; a checkerboard has nothing else."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    patterns = np.stack([np.full((SIDE, SIDE), 0.7), x > 99, (x + y) % 2]).astype(np.float32)
    band = DiagonalDetail().band(torch.from_numpy(patterns)[:, None].repeat(1, 3, 1, 1)).numpy()
    assert np.abs(band[0]).max() < 1e-6
    assert np.abs(band[1]).max() < 1e-6
    np.testing.assert_allclose(np.abs(band[2, :, 3:-3, 3:-3]), 1.0, atol=1e-5)


def test_the_architecture_has_the_published_names_and_shapes() -> None:
    """The weights are those of a ResNet-50's first two stages with a stem of 3 x 3 and a head of two, and no others."""
    shapes = {name: tuple(tensor.shape) for name, tensor in Detector().state_dict().items()}
    assert shapes["conv1.weight"] == (64, 3, 3, 3)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.2.conv3.weight"] == (256, 64, 1, 1)
    assert shapes["layer2.0.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["layer2.3.bn3.running_var"] == (512,)
    assert (shapes["fc1.weight"], shapes["fc1.bias"]) == ((2, 512), (2,))
    assert {name.split(".")[0] for name in shapes} == {"conv1", "bn1", "layer1", "layer2", "fc1"}
    assert sum(1 for name in shapes if name.endswith("conv2.weight")) == 7
    assert sum(parameter.numel() for parameter in Detector().parameters()) == 1_438_274


def pieces_of(picture: Pillow.Image, boxes: list[tuple[int, int]]) -> torch.Tensor:
    """Pieces of a picture in [0, 1] as tensors, (n, 3, 256, 256), nothing else done to them."""
    cut = [np.asarray(picture.crop((left, top, left + SIDE, top + SIDE))) for left, top in boxes]
    return torch.from_numpy(np.stack(cut).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def fake(scores: torch.Tensor) -> NDArray[np.float64]:
    """The mean probability of being fake, by softmax, as a logit."""
    p = torch.softmax(scores.double(), dim=1)[:, 1].mean()
    return np.asarray(torch.log(p / (1 - p)).numpy())


def test_random_weights_are_served_as_torch_computes_them(tmp_path: Path) -> None:
    """Imported, packed, signed and served, an image has the mean probability of its five pieces."""
    checkpoint = save_detector(tmp_path / "checkpoint")
    imported = import_detector(checkpoint, labels_in(tmp_path), silent)
    assert imported.harms == ("synthetic",)
    assert imported.parity.max_abs_logit <= 1e-4
    found = operators(imported.artefacts["cpu"][1])
    assert found["Pad"] == 0
    assert found["Conv"] == 1 + 1 + 3 * 7 + 2  # the wavelet, the stem, the bottlenecks, two shortcuts
    bundle = signed_bundle(imported, tmp_path / "bundle")
    assert rehearse(bundle) <= 1e-4
    scorer = ImageScorer.from_bundle(bundle, provider="cpu")
    large, exact, small = drawn(700, 401), drawn(SIDE, SIDE, seed=1), drawn(100, 80, seed=2)
    images = [image_of(encoded(picture, "image/png"), "image/png") for picture in (large, exact, small)]
    scores = scorer.score(events_with(*images))
    detector = read_detector(checkpoint)
    five = [(222, 72), (0, 0), (444, 0), (0, 145), (444, 145)]
    with torch.no_grad():
        expected = [
            fake(detector(pieces_of(large, five))),
            fake(detector(pieces_of(exact, [(0, 0)]))),
            fake(detector(pieces_of(small, [(-78, -88)]))),
        ]
    np.testing.assert_allclose(scores.logits[:, 0], expected, atol=2e-4)
    assert scores.windows.tolist() == [5, 1, 1]
    assert scores.conditions.tolist() == [0, 0, 1 << FailCondition.TRUNCATED]
    for row, image in enumerate(images):
        assert np.array_equal(scorer.score(events_with(image)).logits[0], scores.logits[row])
    described = encoded(exact, "image/png", exif=_without_orientation(), icc_profile=b"profile", dpi=(72, 72))
    same = scorer.score(events_with(image_of(described, "image/png")))
    assert np.array_equal(same.logits[0], scores.logits[1])


def _without_orientation() -> Any:
    exif = Pillow.Exif()
    exif[0x0110], exif[0x9003] = "A camera", "2026:01:01 00:00:00"
    return exif


def test_images_are_cut_and_never_resized() -> None:
    """To make a picture smaller takes away what is looked for, so its detail within a cut is kept to the last level."""
    checked = drawn(640, 640)
    noise = np.random.default_rng(3).integers(-20, 21, (640, 640, 3))
    noisy = Pillow.fromarray((np.asarray(checked).astype(int) + noise).clip(0, 255).astype(np.uint8))
    detail = DiagonalDetail()
    cut = float(detail(pieces_of(noisy, [(192, 192)])).abs().mean())
    resized = float(detail(pieces_of(noisy.resize((SIDE, SIDE), Pillow.Resampling.BILINEAR), [(0, 0)])).abs().mean())
    assert resized < 0.6 * cut
    assert (DETECTOR_INPUT.resize, DETECTOR_INPUT.height, DETECTOR_INPUT.width) == ("none", SIDE, SIDE)
    assert (DETECTOR_INPUT.mean, DETECTOR_INPUT.deviation) == ((0, 0, 0), (1, 1, 1))


def test_the_logit_is_the_odds_of_fake() -> None:
    """The one logit that is served is the score of fake less that of real."""
    torch.manual_seed(1)
    detector = Detector().eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        scores = detector(images)
        logits = PixelModel(detector, ClassMap("softmax", ("synthetic",), ((1,),), ()))(images)
    np.testing.assert_allclose(logits[:, 0], scores[:, 1] - scores[:, 0], atol=1e-5)


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    """A pickle is refused unread, and so are torn weights, those of another architecture, and other classes."""
    checkpoint, labels = save_detector(tmp_path / "checkpoint"), labels_in(tmp_path)
    with pytest.raises(ConfigError, match="is single_label_classification, which is softmax"):
        import_detector(checkpoint, labels_in(tmp_path, scores="sigmoid"), silent)
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(b"torn")
    with pytest.raises(ExportError, match="cannot read the weights"):
        import_detector(checkpoint, labels, silent)
    save_file({"fc1.weight": torch.zeros(2, 512)}, weights)
    with pytest.raises(ExportError, match="not of the detector's architecture"):
        import_detector(checkpoint, labels, silent)
    weights.rename(checkpoint / "safe.pth")
    with pytest.raises(ExportError, match="can run any code"):
        import_detector(checkpoint, labels, silent)
