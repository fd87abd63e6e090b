"""A checkpoint of an image classifier in, its ONNX model with its preprocessing and one logit per harm out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from export.bundling.golden_images import golden_images
from export.errors import ExportError
from export.graphs.convert import convert_images
from export.graphs.parity import check_parity
from export.importing.card import about_classes
from export.importing.checkpoint import Checkpoint, open_checkpoint
from export.importing.head import HarmLogits
from export.importing.imported import MODEL, Imported
from export.importing.labels import LABELS, ClassMap, LabelMap
from export.importing.loading import class_names, load_model, read_config
from export.importing.preprocessing import FILE, read_preprocessing, read_processor
from export.progress import Say
from stream.bundle import ImageInput
from stream.bundle.manifest import Role
from stream.scoring.picture import PictureReader
from stream.scoring.session import open_session, reads_pixels

__all__ = ["ROLES", "PixelModel", "import_image", "imported_pixels"]

ROLES: Final[tuple[Role, ...]] = ("output", "post")
"""A classifier of images knows no roles; people's images and models' are what it may be asked about."""

MAX_PIXEL_DIFFERENCE = 1e-5
"""Between our pixels and the processor's, which computes the same in another order of float32."""

_READS = "It looks at images alone: text beside one is not read."


def import_image(checkpoint: Path, labels: LabelMap, say: Say) -> Imported:
    """Convert the image classifier in the folder `checkpoint`; nothing is fetched, and no code of its own is run.

    Raises `ExportError` where it cannot be had as it is, its preprocessing cannot be written into a manifest, or what
    is converted computes something else, and `ConfigError` where `labels` does not fit it.
    """
    found = open_checkpoint(checkpoint)
    processor = read_processor(checkpoint)
    given = read_preprocessing(processor, checkpoint / FILE)
    say(f"loading {found.architecture}, which reads {given.width} x {given.height} pixels")
    model = load_model(found, AutoModelForImageClassification, read_config(found))
    classes = labels.match(class_names(model, found), problem_type=found.problem_type)
    module = PixelModel(_Scores(model), classes)
    return imported_pixels(module, found, labels, given, _checked_pixels(processor, given), about=_READS, say=say)


class PixelModel(nn.Module):
    """A classifier as it is served: `pixels` (n, 3, height, width) float32 to harm logits (n, h) float32.

    `scores` gives the logits of the classes, (n, c).
    """

    def __init__(self, scores: nn.Module, classes: ClassMap) -> None:
        super().__init__()
        self.scores = scores
        self.classes = classes
        self.head = HarmLogits(classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of n images."""
        return cast(Tensor, self.head(self.scores(pixels)))


def imported_pixels(
    module: PixelModel,
    checkpoint: Checkpoint,
    labels: LabelMap,
    given: ImageInput,
    pixels: NDArray[np.float32],
    *,
    about: str,
    say: Say,
) -> Imported:
    """Convert any model of pixels, and compare the two on `pixels`, (n, 3, height, width).

    Raises `ExportError` where they differ, or the model takes no images of that size.
    """
    classes = module.classes
    with torch.no_grad():
        try:
            expected = module.eval()(torch.from_numpy(pixels)).numpy()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"the model does not take images of {given.height} x {given.width}: {error}") from None
    say("converting to ONNX")
    content = convert_images(module, height=given.height, width=given.width)
    say("comparing the converted model with its module")
    signature = reads_pixels(len(classes.harms), height=given.height, width=given.width)
    session = open_session(content, "cpu", signature=signature)
    parity = check_parity(expected, session.call({"pixels": pixels})["logits"])
    say(f"largest difference of a logit: {parity.max_abs_logit:.2g} over {parity.texts} images")
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Imported(
        name=labels.name,
        version=labels.version,
        harms=classes.harms,
        roles=labels.roles,
        input=given,
        artefacts={"cpu": (MODEL, content)},
        tokenizer=None,
        parity=parity,
        about=about_classes(checkpoint.architecture, parameters, classes, source=labels.source, reads=about),
        weights=checkpoint.weights(),
        files={LABELS: labels.content},
    )


class _Scores(nn.Module):
    """A classifier of `transformers` as one that takes pixels, by position, and gives logits alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: nn.Module = model

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.model(pixel_values=pixels).logits)


def _checked_pixels(processor: Any, given: ImageInput) -> NDArray[np.float32]:  # Any: see read_processor
    """Golden images as we read them, (n, 3, height, width); raise `ExportError` unless the processor reads them so."""
    reader = PictureReader(given)
    ours, theirs = [], []
    for golden in golden_images(given):
        ours.append(reader.pixels(reader.read(golden.image).pieces[:1])[0])
        # The processor decodes nothing: it is given the whole image in RGB, as our decoder sees it.
        whole = PictureReader(ImageInput(kind="image", height=golden.height, width=golden.width, resize="none"))
        rgb = whole.read(golden.image).pieces[0]
        theirs.append(processor(images=rgb, input_data_format="channels_last", return_tensors="np")["pixel_values"][0])
    found, expected = np.stack(ours), np.stack(theirs)
    difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
    if difference > MAX_PIXEL_DIFFERENCE:
        raise ExportError(
            f"the checkpoint's image processor gives other pixels than its {FILE} says, by {difference:.3g}: import a "
            "model with other preprocessing"
        )
    return found
