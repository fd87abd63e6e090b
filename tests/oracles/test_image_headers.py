"""Image headers as we read them, against Pillow: what we accept is what a decoder will see."""

from __future__ import annotations

import io
import warnings
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stream.images import ImageHeader, read_header
from tests.hostile.images import BROKEN, SOUND

KINDS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
MODES = {"image/png": "RGBA", "image/jpeg": "RGB", "image/webp": "RGBA", "image/gif": "P"}


def encoded(kind: str, width: int, height: int, **options: Any) -> bytes:
    """An image as Pillow writes it."""
    file = io.BytesIO()
    Image.new(MODES[kind], (width, height)).save(file, KINDS[kind], **options)
    return file.getvalue()


def seen_by_pillow(data: bytes) -> ImageHeader | None:
    """What Pillow sees of an image when it opens it, None where it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it repairs
        try:
            image = Image.open(io.BytesIO(data), formats=list(KINDS.values()))
            return ImageHeader(*image.size, getattr(image, "n_frames", 1))
        except Exception:  # noqa: BLE001 - whatever it raises, it does not see an image
            return None


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 300), st.integers(1, 300))
def test_images_that_pillow_writes_are_read_as_it_reads_them(kind: str, width: int, height: int) -> None:
    """Size and number of frames of a still image of any kind are what Pillow made."""
    assert read_header(encoded(kind, width, height), kind) == ImageHeader(width, height, 1)


@pytest.mark.parametrize("kind", ["image/png", "image/webp", "image/gif"])
@pytest.mark.parametrize("frames", [2, 5])
def test_animations_that_pillow_writes_have_all_their_frames(kind: str, frames: int) -> None:
    """Frames are counted without decoding one."""
    more = [Image.new("RGB", (9, 7), (50 * i, 0, 0)) for i in range(1, frames)]
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "white").save(file, KINDS[kind], save_all=True, append_images=more)
    assert read_header(file.getvalue(), kind) == ImageHeader(9, 7, frames)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("image/jpeg", {"progressive": True}),
        ("image/jpeg", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ("image/jpeg", {"icc_profile": b"x" * 100_000}),
        ("image/jpeg", {"comment": b"hello"}),
        ("image/png", {"optimize": True}),
        ("image/png", {"icc_profile": b"x" * 1000, "dpi": (72, 72)}),
        ("image/png", {"bits": 1}),
        ("image/webp", {"lossless": True}),
        ("image/webp", {"lossless": True, "exact": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ("image/gif", {"interlace": 1, "comment": b"c" * 1000, "transparency": 0}),
    ],
)
def test_options_of_the_encoder_change_nothing(kind: str, options: dict[str, Any]) -> None:
    """Profiles, comments, metadata, interlacing and lossless coding are passed over."""
    assert read_header(encoded(kind, 31, 17, **options), kind) == ImageHeader(31, 17, 1)


SAMPLES = [(kind, data) for kind, data in (*SOUND.values(), *BROKEN.values()) if len(data) < 10_000] + [
    (kind, encoded(kind, width, height)) for kind in KINDS for width, height in ((1, 1), (300, 200))
]


@given(st.sampled_from(SAMPLES), st.integers(0, 2**32), st.integers(0, 6))
def test_pillow_sees_no_more_than_we_do(sample: tuple[str, bytes], seed: int, edits: int) -> None:
    """However an image is damaged: where we accept it, no side and no number of frames is larger to Pillow."""
    kind, data = sample
    random, damaged = Random(seed), bytearray(data)
    for _ in range(edits):
        at = random.randrange(len(damaged) + 1)
        piece = random.choice((b"", b"\xff", b"\x00", bytes(damaged[: random.randrange(40)]), random.randbytes(4)))
        damaged[at : at + random.randrange(3)] = piece
    ours, theirs = read_header(bytes(damaged), kind), seen_by_pillow(bytes(damaged))
    if isinstance(ours, ImageHeader) and theirs is not None:
        assert theirs.width <= ours.width
        assert theirs.height <= ours.height
        assert theirs.frames <= ours.frames
