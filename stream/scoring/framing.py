"""Sizes in, sizes and boxes out: to what size an image is brought, and which pieces of it a model looks at; pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream.bundle.manifest import ImageInput

__all__ = ["Box", "Framing", "chosen_frames", "frame"]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; it may reach beyond the image, where it is black."""

MAX_RATIO = 8
"""Of a longer side to a shorter one: what is beyond, equally at both ends, is cut away before resizing. An image of one
row of a million pixels would otherwise become 256 rows of 256 million."""

LEAST_SEEN = 1 / 3
"""Of an image that is resized, less than this in the pieces is too little to speak for the whole. A square cut out of a
telephone's picture, 20 to 9, at the usual 7/8 of its shorter side is still 0.34 of it."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What is done to an image: cut to `cut`, resized to `size` (width, height), and looked at in `boxes` of that."""

    cut: Box
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    whole: bool
    """False where the model sees less than it was made for: too small a part of the image, or too small an image."""


def frame(width: int, height: int, given: ImageInput) -> Framing:
    """How an image of this size is looked at: the centre, then the corners where a piece of them is another one."""
    cut = _narrowed(width, height) if given.resize == "shorter_side" else (0, 0, width, height)
    size = _resized(cut[2] - cut[0], cut[3] - cut[1], given)
    boxes = _boxes(*size, given)
    padded = given.resize == "none" and (width < given.width or height < given.height)
    seen = len(boxes) * given.width * given.height / (size[0] * size[1])
    seen *= (cut[2] - cut[0]) * (cut[3] - cut[1]) / (width * height)
    return Framing(cut, size, boxes, whole=not padded and (given.resize == "none" or seen >= LEAST_SEEN))


def chosen_frames(frames: int, *, at_most: int) -> list[int]:
    """Which of an animation's frames are looked at: the first, the last, and others evenly between them.

    >>> chosen_frames(10, at_most=4)
    [0, 3, 6, 9]
    """
    return np.linspace(0, frames - 1, min(frames, at_most)).round().astype(int).tolist()  # type: ignore[no-any-return]


def _narrowed(width: int, height: int) -> Box:
    across, down = min(width, MAX_RATIO * height), min(height, MAX_RATIO * width)
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _resized(width: int, height: int, given: ImageInput) -> tuple[int, int]:
    if given.resize == "none":
        return width, height
    to = given.resize_to
    if given.resize == "stretch" or to is None:
        return (given.width, given.height) if to is None else (to, to)
    if width <= height:
        return to, int(to * height / width)
    return int(to * width / height), to


def _boxes(width: int, height: int, given: ImageInput) -> tuple[Box, ...]:
    right, bottom = width - given.width, height - given.height
    # A row or column more of padding comes before the image, one more of what is cut away comes after it.
    places = [(right // 2, bottom // 2)]
    places += [(left, top) for top in (0, max(0, bottom)) for left in (0, max(0, right))] if given.crops > 1 else []
    places = [(left if right > 0 else right // 2, top if bottom > 0 else bottom // 2) for left, top in places]
    distinct = list(dict.fromkeys(places))[: given.crops]
    return tuple((left, top, left + given.width, top + given.height) for left, top in distinct)
