"""An image classifier of `transformers` in a local folder in, a converted model with its preprocessing out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from export.convert import convert_images
from export.errors import ExportError
from export.golden_images import golden_images
from export.importing.imported import Imported
from export.importing.preprocessing import FILE, read_preprocessing, read_processor
from export.parity import Parity, check_parity
from stream.bundle import ImageInput
from stream.bundle.manifest import Role
from stream.scoring.picture import PictureReader
from stream.scoring.session import open_session, reads_pixels

__all__ = ["HARMLESS", "MODEL", "PixelModel", "check_pixels", "import_image"]

HARMLESS = "harmless"
MODEL = "model.onnx"
ROLES: Final[tuple[Role, ...]] = ("output", "post")
"""A classifier of images knows no roles; people's images and models' are what it may be asked about."""

MAX_PIXEL_DIFFERENCE = 1e-5
"""Between our pixels and the processor's, which computes the same in another order of float32."""

Say = Callable[[str], None]


class PixelModel(nn.Module):
    """A classifier as it is served: `pixels` (n, 3, height, width) float32 to logits (n, h), one per harm.

    A harm may be several of the classifier's classes. Where one class is true of an image, its probability is their
    sum, and its logit the log of the odds, in logarithms throughout; where any number may be, it is the largest logit.
    """

    def __init__(self, classifier: nn.Module, classes: list[list[int]], *, of: int, exclusive: bool) -> None:
        """`classes` holds the numbers of each harm's classes, `of` so many in all."""
        super().__init__()
        self.classifier = classifier
        self.exclusive = exclusive
        self.classes = classes
        self.others = [sorted(set(range(of)) - set(members)) for members in classes]

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits of n images."""
        scores = self.classifier(pixel_values=pixels).logits
        if not self.exclusive:
            return torch.stack([scores[:, members].amax(dim=1) for members in self.classes], dim=1)
        odds = [
            torch.logsumexp(scores[:, members], dim=1) - torch.logsumexp(scores[:, others], dim=1)
            for members, others in zip(self.classes, self.others, strict=True)
        ]
        return torch.stack(odds, dim=1)


def import_image(
    checkpoint: Path,
    labels: Mapping[str, str],
    say: Say,
    *,
    exclusive: bool | None = None,
    roles: tuple[Role, ...] = ROLES,
) -> Imported:
    """Convert the image classifier in the folder `checkpoint`; `labels` maps each of its classes to a harm or HARMLESS.

    Harms are in the order in which the map names them. `exclusive` is whether one class alone is true of an image; None
    for what the checkpoint's `problem_type` says, and True where it says nothing, which is how such models are trained.

    Raises `ExportError` where weights are missing or pickled, a class is not mapped, the preprocessing cannot be
    written into a manifest, or what is converted computes something else.
    """
    _refuse_pickles(checkpoint)
    processor = read_processor(checkpoint)
    given = read_preprocessing(processor, checkpoint / FILE)
    classifier = _load(checkpoint)
    harms, classes = _grouped(_class_names(classifier, checkpoint), labels)
    exclusive = _is_exclusive(classifier, checkpoint) if exclusive is None else exclusive
    if exclusive and len(classes[0]) == classifier.config.num_labels:
        raise ExportError(
            f"every class of {checkpoint} is mapped to {harms[0]}, so it would always be found: map one to another "
            f"harm or to {HARMLESS}"
        )
    say(f"converting {type(classifier).__name__}, {given.height} x {given.width} pixels, to {', '.join(harms)}")
    module = PixelModel(classifier, classes, of=classifier.config.num_labels, exclusive=exclusive)
    pixels = _checked_pixels(processor, given)
    parity, model = check_pixels(module.eval(), given, pixels)
    say(f"the converted model's logits are within {parity.max_abs_logit:.1e} of the module's")
    return Imported(
        harms=harms,
        roles=roles,
        input=given,
        artefacts={"cpu": (MODEL, model)},
        tokenizer=None,
        parity=parity,
        about=(
            f"An image classifier, {type(classifier).__name__}, imported with its own preprocessing. "
            + ("Its classes exclude each other. " if exclusive else "Any number of its classes may hold. ")
            + "It looks at images alone: text beside one is not read."
        ),
    )


def check_pixels(module: nn.Module, given: ImageInput, pixels: NDArray[np.float32]) -> tuple[Parity, bytes]:
    """Convert `module`; raise `ExportError` where its logits on `pixels`, (n, 3, height, width), differ then."""
    with torch.no_grad():
        try:
            expected = module(torch.from_numpy(pixels)).numpy()
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"the model does not take images of {given.height} x {given.width}: {error}") from None
        model = convert_images(module, height=given.height, width=given.width)
    session = open_session(
        model, "cpu", signature=reads_pixels(expected.shape[1], height=given.height, width=given.width)
    )
    return check_parity(expected, session.call({"pixels": pixels})["logits"]), model


def _refuse_pickles(checkpoint: Path) -> None:
    if any(checkpoint.glob("*.safetensors")):
        return
    kinds = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
    pickled = sorted(path.name for kind in kinds for path in checkpoint.glob(kind))
    if pickled:
        raise ExportError(
            f"{checkpoint} has its weights in {pickled[0]} only, a pickle, which can run any code when it is read; "
            "convert it to model.safetensors where it may, with the safetensors package"
        )
    raise ExportError(f"{checkpoint} holds no *.safetensors: give the folder of a checkpoint")


def _load(checkpoint: Path) -> Any:  # Any: a class of transformers that its config names
    try:
        model, report = AutoModelForImageClassification.from_pretrained(
            str(checkpoint),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # noqa: BLE001 - whatever its loaders raise, this is no checkpoint for us
        raise ExportError(f"{checkpoint} is no image classifier that can be loaded: {error}") from None
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise ExportError(
            f"{checkpoint} lacks weights that its config.json asks for, {absent[0]} among them: they would be random"
        )
    return model.eval()


def _is_exclusive(classifier: Any, checkpoint: Path) -> bool:  # Any: as above
    kinds = {None: True, "single_label_classification": True, "multi_label_classification": False}
    kind = classifier.config.problem_type
    if kind not in kinds:
        raise ExportError(f"{checkpoint / 'config.json'}: problem_type is {kind}, and only classifiers are imported")
    return kinds[kind]


def _class_names(classifier: Any, checkpoint: Path) -> list[str]:  # Any: as above
    names = [str(classifier.config.id2label[number]) for number in range(classifier.config.num_labels)]
    if len(set(names)) != len(names):
        raise ExportError(f"{checkpoint / 'config.json'}: id2label has two classes of one name: rename one")
    return names


def _grouped(names: list[str], labels: Mapping[str, str]) -> tuple[tuple[str, ...], list[list[int]]]:
    """The harms in the order of the map, and the numbers of the classes of each."""
    unmapped = [name for name in names if name not in labels]
    unknown = sorted(set(labels) - set(names))
    if unmapped or unknown:
        problem = f"leaves {json.dumps(unmapped[:3])} unmapped" if unmapped else f"maps {json.dumps(unknown[:3])}"
        raise ExportError(
            f"the label map {problem}; the model's classes are {json.dumps(names[:10])}: map each of them"
        )
    harms = tuple(dict.fromkeys(harm for harm in labels.values() if harm != HARMLESS))
    if not harms:
        raise ExportError(f"the label map has no harm: map at least one class to something else than {HARMLESS}")
    return harms, [[number for number, name in enumerate(names) if labels[name] == harm] for harm in harms]


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
