"""Which part of an image is looked at, in which size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream.bundle import ImageInput
from stream.scoring.framing import chosen_frames, frame


def image_input(**fields: Any) -> ImageInput:
    return ImageInput.model_validate({"kind": "image", "height": 32, "width": 32, "resize": "none"} | fields)


@pytest.mark.parametrize(
    ("fields", "size", "resized", "boxes"),
    [
        ({"resize": "stretch"}, (100, 50), (32, 32), [(0, 0)]),
        ({"resize": "stretch", "resize_to": 40}, (100, 50), (40, 40), [(4, 4)]),
        ({"resize": "shorter_side", "resize_to": 40}, (100, 50), (80, 40), [(24, 4)]),
        ({"resize": "shorter_side", "resize_to": 40}, (50, 101), (40, 80), [(4, 24)]),
        ({"resize": "shorter_side", "resize_to": 40}, (10, 10), (40, 40), [(4, 4)]),
        ({}, (101, 50), (101, 50), [(34, 9)]),
        ({}, (9, 40), (9, 40), [(-12, 4)]),
        ({"crops": 5}, (100, 50), (100, 50), [(34, 9), (0, 0), (68, 0), (0, 18), (68, 18)]),
        ({"crops": 3}, (100, 50), (100, 50), [(34, 9), (0, 0), (68, 0)]),
        ({"crops": 5}, (100, 32), (100, 32), [(34, 0), (0, 0), (68, 0)]),
        ({"crops": 5}, (32, 32), (32, 32), [(0, 0)]),
        ({"crops": 5}, (9, 40), (9, 40), [(-12, 4), (-12, 0), (-12, 8)]),
    ],
)
def test_images_are_resized_and_cut_as_the_manifest_says(
    fields: dict[str, Any], size: tuple[int, int], resized: tuple[int, int], boxes: list[tuple[int, int]]
) -> None:
    """The centre comes first, then the corners that are other pieces; a small image lies in the middle of black."""
    framing = frame(*size, image_input(**fields))
    assert framing.size == resized
    assert framing.boxes == tuple((left, top, left + 32, top + 32) for left, top in boxes)


@pytest.mark.parametrize(
    ("fields", "size", "whole"),
    [
        ({}, (32, 32), True),
        ({}, (4000, 3000), True),
        ({}, (31, 500), False),
        ({"resize": "stretch"}, (1000, 10), True),
        ({"resize": "stretch"}, (3, 3), True),
        ({"resize": "shorter_side", "resize_to": 36}, (1080, 2400), True),
        ({"resize": "shorter_side", "resize_to": 36}, (1000, 3000), False),
        ({"resize": "shorter_side", "resize_to": 36, "crops": 5}, (1000, 3000), True),
        ({"resize": "shorter_side", "resize_to": 36, "crops": 5}, (100, 30000), False),
    ],
)
def test_too_little_of_an_image_is_said(fields: dict[str, Any], size: tuple[int, int], whole: bool) -> None:
    """Less than a third of an image, or an image smaller than the model's, is not the whole; a thumbnail resized is."""
    assert frame(*size, image_input(**fields)).whole == whole


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(["stretch", "shorter_side", "none"]))
def test_no_shape_asks_for_much(width: int, height: int, resize: str) -> None:
    """However long and thin an image is, it is resized to a bounded size, and its pieces have the model's."""
    fields: dict[str, Any] = {"stretch": {}, "none": {"crops": 5}, "shorter_side": {"crops": 5, "resize_to": 64}}[
        resize
    ]
    framing = frame(width, height, image_input(resize=resize, **fields))
    if resize != "none":
        assert framing.size[0] * framing.size[1] <= 64 * 64 * 8
    left, top, right, bottom = framing.cut
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert all((box[2] - box[0], box[3] - box[1]) == (32, 32) for box in framing.boxes)
    assert 1 <= len(framing.boxes) == len(set(framing.boxes)) <= 5


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_frames_are_spread(frames: int, at_most: int) -> None:
    """The frames that are looked at ascend from the first, reach the last where there are two, and none is twice."""
    chosen = chosen_frames(frames, at_most=at_most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(frames, at_most)
    assert chosen[0] == 0
    assert chosen[-1] == (frames - 1 if len(chosen) > 1 else 0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"resize": "shorter_side"}, "needs resize_to"),
        ({"resize_to": 40}, "resize_to belongs to"),
        ({"resize": "shorter_side", "resize_to": 31}, "at least height and width"),
        ({"resize": "stretch", "crops": 2}, "crops belong to"),
        ({"deviation": (1.0, 0.0, 1.0)}, "deviation must be above 0"),
        ({"height": 2048, "width": 2048, "crops": 5}, "must be at most 33554432"),
    ],
)
def test_an_input_that_makes_no_sense_is_refused(fields: dict[str, Any], problem: str) -> None:
    """A manifest whose sizes contradict each other, or ask for too much memory, is not valid."""
    with pytest.raises(ValidationError, match=problem):
        image_input(**fields)
