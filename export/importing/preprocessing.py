"""The image processor of a checkpoint in, what a manifest says of it out; refused where a manifest cannot say it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import transformers
from pydantic import ValidationError
from transformers.image_processing_backends import PilBackend
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from export.errors import ExportError
from export.importing.checkpoint import MAX_CONFIG_BYTES, read_file
from stream.bundle import ImageInput

__all__ = ["read_preprocessing", "read_processor"]

FILE = "preprocessor_config.json"

_INTERPOLATIONS: Final = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which is how processors name them."""

_WARPED_FROM = 384
"""From this size on, `transformers` stretches images for ConvNeXT; below it cuts them."""

Processor = Any  # a class of transformers, whose fields have no types


class _Sizes(NamedTuple):
    resize: Literal["stretch", "shorter_side", "none"]
    resize_to: int | None
    height: int
    width: int


def read_processor(folder: Path) -> Processor:
    """The processor of a checkpoint's folder as Pillow computes it. Raises `ExportError` where it is none we know.

    `transformers` has each of them twice, for torchvision and for Pillow; it is Pillow that serves.
    """
    path = folder / FILE
    content = read_file(
        path,
        most=MAX_CONFIG_BYTES,
        advice="only that file tells how images are brought to size: fetch the whole checkpoint",
    )
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        raise ExportError(f"{path} is not JSON: fetch the checkpoint again") from None
    fields = config if isinstance(config, dict) else {}
    named = str(fields.get("image_processor_type") or fields.get("feature_extractor_type") or "nothing")
    kind = getattr(transformers, named.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast") + "Pil", None)
    if not (isinstance(kind, type) and issubclass(kind, PilBackend)):
        raise ExportError(f"{path}: image_processor_type is {named}, which transformers does not compute with Pillow")
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path} cannot be loaded: {error}") from None


def read_preprocessing(processor: Processor, path: Path) -> ImageInput:
    """What `processor`, read from `path`, does, as a manifest says it. Raises `ExportError` where it cannot."""
    is_convnext = type(processor) is ConvNextImageProcessorPil
    if not is_convnext and not _is_plain(type(processor)):
        raise ExportError(
            f"{path}: image_processor_type is {type(processor).__name__}, which does more than to resize, cut and "
            "normalise: import a model with another processor"
        )
    _refuse_what_cannot_be_said(processor, path)
    sizes = _convnext_sizes(processor, path) if is_convnext else _sizes(processor, path)
    normalises = bool(processor.do_normalize)
    try:
        return ImageInput(
            kind="image",
            **sizes._asdict(),
            interpolation=_interpolation(processor, path),
            mean=_colours(processor.image_mean, "image_mean", path) if normalises else (0.0, 0.0, 0.0),
            deviation=_colours(processor.image_std, "image_std", path) if normalises else (1.0, 1.0, 1.0),
        )
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise ExportError(f"{path} cannot be written into a manifest: {problem['msg']}") from None


def _is_plain(kind: type) -> bool:
    steps = ("_preprocess", "resize", "center_crop", "rescale", "normalize", "process_image")
    return issubclass(kind, PilBackend) and all(getattr(kind, step) is getattr(PilBackend, step) for step in steps)


def _refuse_what_cannot_be_said(processor: Processor, path: Path) -> None:
    if not processor.do_rescale or not math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-3):
        raise ExportError(f"{path}: do_rescale and rescale_factor other than 1/255 cannot be written into a manifest")
    if getattr(processor, "do_pad", None):
        raise ExportError(f"{path}: do_pad cannot be written into a manifest")


def _convnext_sizes(processor: Processor, path: Path) -> _Sizes:
    _refuse_unless(processor.do_resize and not processor.do_center_crop, "do_resize and do_center_crop", path)
    side = _whole(processor.size, "shortest_edge", path)
    if side >= _WARPED_FROM:
        return _Sizes("stretch", None, side, side)
    return _Sizes("shorter_side", int(side / processor.crop_pct), side, side)


def _sizes(processor: Processor, path: Path) -> _Sizes:
    size = dict(processor.size or {})
    if processor.do_center_crop:
        height, width = (_whole(processor.crop_size, side, path) for side in ("height", "width"))
        if not processor.do_resize:
            return _Sizes("none", None, height, width)
        if set(_given(size)) == {"shortest_edge"}:
            return _Sizes("shorter_side", _whole(size, "shortest_edge", path), height, width)
        to = _whole(size, "height", path)
        _refuse_unless(to == _whole(size, "width", path), "size of other height than width before a crop", path)
        return _Sizes("stretch", to, height, width)
    _refuse_unless(processor.do_resize, "do_resize: false without do_center_crop", path)
    return _Sizes("stretch", None, *(_whole(size, side, path) for side in ("height", "width")))


def _given(size: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in size.items() if value is not None}


def _whole(size: Any, side: str, path: Path) -> int:  # Any: a mapping of transformers' own
    given = _given(dict(size or {}))
    wanted = {"shortest_edge"} if side == "shortest_edge" else {"height", "width"}
    _refuse_unless(set(given) == wanted, f"a size of {' and '.join(sorted(given)) or 'nothing'}", path)
    return int(given[side])


def _interpolation(processor: Processor, path: Path) -> Literal["nearest", "bilinear", "bicubic", "lanczos"]:
    number = None if processor.resample is None else int(processor.resample)
    _refuse_unless(number is None or number in _INTERPOLATIONS, f"resample: {number}", path)
    return _INTERPOLATIONS[2 if number is None else number]  # type: ignore[return-value]


def _colours(values: Any, field: str, path: Path) -> tuple[float, float, float]:
    numbers = tuple(float(value) for value in values) if isinstance(values, list | tuple) else ()
    _refuse_unless(len(numbers) == 3, f"{field} of other than three colours", path)  # noqa: PLR2004
    return numbers  # type: ignore[return-value]


def _refuse_unless(fits: object, what: str, path: Path) -> None:
    if not fits:
        raise ExportError(f"{path}: {what} cannot be written into a manifest: import a model with other preprocessing")
