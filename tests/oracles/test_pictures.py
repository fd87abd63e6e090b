"""Pictures as we decode them, against Pillow on the whole file with all of its metadata."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from stream.bundle import ImageInput
from stream.images import read_header
from stream.scoring.bare import MAX_SCANS, PictureError, undress
from stream.scoring.picture import PictureReader
from tests.hostile.images import BROKEN, SOUND, jpeg_segment, png, png_chunk
from tests.pictures import KINDS, drawn, encoded, image_of

WIDTH, HEIGHT = 40, 24

MODES = {
    "image/png": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "image/jpeg": ("L", "RGB", "CMYK"),
    "image/webp": ("RGB", "RGBA"),
    "image/gif": ("L", "P", "RGB"),
}


def reader(width: int = WIDTH, height: int = HEIGHT, **options: Any) -> PictureReader:
    """A reader that cuts a piece of this size and changes nothing."""
    fields = {"kind": "image", "height": height, "width": width, "resize": "none"} | options
    return PictureReader(ImageInput.model_validate(fields))


def on_white(picture: Pillow.Image) -> NDArray[np.uint8]:
    """What a page shows of a picture, (h, w, 3), by arithmetic."""
    colours = np.asarray(picture.convert("RGBA")).astype(float)
    alpha = colours[..., 3:] / 255
    return np.asarray((colours[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8))


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes])
def test_every_mode_is_read_as_rgb(kind: str, mode: str) -> None:
    """Grey, palette, alpha and print colours become what Pillow and arithmetic make of them, within one level."""
    data = encoded(drawn(WIDTH, HEIGHT, mode=mode), kind)
    expected = on_white(Pillow.open(io.BytesIO(data)))
    (piece,) = reader().read(image_of(data, kind)).pieces
    assert np.abs(piece.astype(int) - expected).max() <= 1
    assert np.ptp(piece) > 50


def test_sixteen_bits_lose_the_lower_eight() -> None:
    """A grey PNG of 16 bits has the upper 8 of each number, not white wherever there are more than 255."""
    grey = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 60
    (piece,) = reader().read(image_of(encoded(Pillow.fromarray(grey), "image/png"), "image/png")).pieces
    np.testing.assert_array_equal(piece, np.repeat((grey >> 8)[..., None], 3, axis=-1))


def test_a_transparent_colour_is_white() -> None:
    """The colour that a palette or a grey image names as transparent is shown on white."""
    for mode, level in (("P", 0), ("L", 7)):
        data = encoded(Pillow.new(mode, (WIDTH, HEIGHT), level), "image/png", transparency=level)
        assert (reader().read(image_of(data, "image/png")).pieces == 255).all()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/webp"])
def test_an_image_is_turned_as_its_exif_says(kind: str, orientation: int) -> None:
    """Each of the eight orientations shows what Pillow shows; another number is none."""
    exif = Pillow.Exif()
    exif[0x010F], exif[0x0112], exif[0x0132] = "maker", orientation, "2026:01:01 00:00:00"
    data = encoded(drawn(WIDTH, HEIGHT), kind, exif=exif, **({"lossless": True} if kind == "image/webp" else {}))
    expected = ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB")
    assert (expected.size == (WIDTH, HEIGHT)) == (orientation not in range(5, 9))
    (piece,) = reader(*expected.size).read(image_of(data, kind)).pieces
    np.testing.assert_array_equal(piece, np.asarray(expected))


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_either_byte_order_is_read(order: str) -> None:
    """The orientation is found in EXIF written by machines of either kind."""
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    data = encoded(drawn(WIDTH, HEIGHT), "image/jpeg")
    with_exif = data[:2] + jpeg_segment(0xE1, b"Exif\0\0" + tiff) + data[2:]
    assert undress(with_exif, "image/jpeg").orientation == 6
    assert undress(data, "image/jpeg").orientation == 1


@given(st.binary(max_size=80), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_no_exif_breaks_anything(rest: bytes, head: bytes) -> None:
    """Whatever stands where EXIF should be, there is an orientation from 1 to 8."""
    data = encoded(drawn(9, 9), "image/jpeg")
    found = undress(data[:2] + jpeg_segment(0xE1, b"Exif\0\0" + head + rest) + data[2:], "image/jpeg")
    assert found.orientation in range(1, 9)


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_never_reaches_the_decoder_and_changes_no_pixel(kind: str) -> None:
    """Comments, profiles, EXIF without orientation and XMP are gone from the bytes, and every pixel is as it was."""
    secret = b"SECRET" * 50
    exif = Pillow.Exif()
    exif[0x010E] = secret.decode()
    every: dict[str, dict[str, Any]] = {
        "image/png": {"icc_profile": secret, "exif": exif},
        "image/jpeg": {"icc_profile": secret, "exif": exif, "comment": secret, "quality": 90},
        "image/webp": {"icc_profile": secret, "exif": exif, "xmp": secret, "lossless": True},
        "image/gif": {"comment": secret},
    }
    options = every[kind]
    picture = drawn(WIDTH, HEIGHT, mode="P" if kind == "image/gif" else "RGB")
    data = encoded(picture, kind, **options)
    bare = undress(data, kind)
    assert secret[:12] not in bare.data
    assert len(bare.data) < len(data)
    plain = {name: value for name, value in options.items() if name in {"quality", "lossless"}}
    with_it, without = (reader().read(image_of(one, kind)) for one in (data, encoded(picture, kind, **plain)))
    np.testing.assert_array_equal(with_it.pieces, without.pieces)
    assert set(Pillow.open(io.BytesIO(bare.data)).info) <= {
        *("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"),
        *("loop", "background", "timestamp", "duration", "version", "transparency", "extension"),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"save_all": True}])
def test_what_is_left_is_a_sound_image_of_the_same_size(kind: str, options: dict[str, Any]) -> None:
    """After its metadata is gone an image has the header it had, still or moving."""
    more = {"append_images": [drawn(WIDTH, HEIGHT, seed=1)]} if options and kind != "image/jpeg" else {}
    data = encoded(drawn(WIDTH, HEIGHT), kind, **({} if kind == "image/jpeg" else options | more))
    assert read_header(undress(data, kind).data, kind) == read_header(data, kind)


def test_profiles_that_inflate_are_not_inflated() -> None:
    """Of a PNG with 700 profiles of a megabyte each, what is decoded is as small as without them."""
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))
    assert undress(png(before=profile * 700), "image/png").data == png()


def test_a_jpeg_of_very_many_passes_is_refused() -> None:
    """Every pass goes over all of the pixels, so a JPEG with more of them than encoders write is not read."""
    data = encoded(drawn(64, 64), "image/jpeg", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    usual = data.count(b"\xff\xda")
    assert reader(64, 64).read(image_of(data, "image/jpeg")).whole
    most = data[:-2] + scan * (MAX_SCANS - usual) + b"\xff\xd9"
    undress(most, "image/jpeg")
    with pytest.raises(PictureError, match="more than 32 passes"):
        undress(most[:-2] + scan + b"\xff\xd9", "image/jpeg")


def test_only_the_first_image_of_a_jpeg_file_is_decoded() -> None:
    """What cameras append behind an image never reaches the decoder, nor does the table that would name it."""
    data = encoded(drawn(WIDTH, HEIGHT), "image/jpeg")
    table = jpeg_segment(0xE2, b"MPF\0" + bytes(60))
    assert undress(data[:2] + table + data[2:] + encoded(drawn(99, 99), "image/jpeg"), "image/jpeg").data == data


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_is_cut_short_is_refused(kind: str) -> None:
    """An image of which a third of the pixels is missing is not looked at as if it were whole."""
    data = encoded(drawn(200, 200), kind)
    with pytest.raises(PictureError):
        reader(200, 200).read(image_of(data[: len(data) * 2 // 3], kind))


@pytest.mark.parametrize("name", [*SOUND, *BROKEN])
def test_handmade_images_are_read_or_refused(name: str) -> None:
    """Every handmade image, sound or hostile, gives a picture or a `PictureError`, and nothing else."""
    kind, data = (SOUND | BROKEN)[name]
    try:
        picture = reader(8, 8).read(image_of(data, kind))
    except PictureError:
        return
    assert picture.pieces.shape[1:] == (8, 8, 3)


FRAMES = [drawn(30, 20, seed=seed) for seed in range(3)]
SAMPLES = [
    *((kind, encoded(drawn(30, 20), kind)) for kind in KINDS),
    *(
        (kind, encoded(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:]))
        for kind in KINDS
        if kind != "image/jpeg"
    ),
    ("image/jpeg", encoded(drawn(30, 20), "image/jpeg", progressive=True)),
    ("image/png", encoded(drawn(30, 20, mode="P"), "image/png")),
]


@given(st.sampled_from(SAMPLES), st.integers(0, 2**32), st.integers(1, 4))
def test_no_damage_raises_anything_else(sample: tuple[str, bytes], seed: int, edits: int) -> None:
    """However an image is damaged, it is read or there is a `PictureError`."""
    kind, data = sample
    random, damaged = Random(seed), bytearray(data)
    for _ in range(edits):
        at = random.randrange(8, len(damaged) + 1)
        piece = random.choice((b"", b"\xff", b"\x00", bytes(damaged[: random.randrange(40)]), random.randbytes(4)))
        damaged[at : at + random.randrange(3)] = piece
    try:
        picture = reader(30, 20).read(image_of(bytes(damaged), kind))
    except PictureError:
        return
    assert picture.pieces.shape[1:] == (20, 30, 3)


@pytest.mark.parametrize("kind", ["image/png", "image/webp", "image/gif"])
@pytest.mark.parametrize(("frames", "chosen"), [(1, [0]), (3, [0, 1, 2]), (10, [0, 3, 6, 9])])
def test_frames_are_looked_at_from_the_first_to_the_last(kind: str, frames: int, chosen: list[int]) -> None:
    """Of an animation so many frames are looked at, evenly from first to last; where that is not all, it is said."""
    colours = [(25 * number, 255 - 25 * number, 0) for number in range(frames)]
    pictures = [Pillow.new("RGB", (16, 16), colour) for colour in colours]
    options = {"lossless": True} if kind == "image/webp" else {}
    data = encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    picture = reader(16, 16, max_frames=4).read(image_of(data, kind))
    assert picture.frames.tolist() == chosen
    assert picture.whole == (len(chosen) == frames)
    found = picture.pieces[:, 8, 8, :2].astype(int)
    assert np.abs(found - np.array(colours)[chosen][:, :2]).max() <= 3


def test_an_animation_of_large_frames_is_not_decoded_to_its_end() -> None:
    """Frames are decoded until they are 20 million pixels together, and what lies behind is said not to be seen."""
    pictures = [drawn(300, 200, seed=seed).resize((3000, 2000)).convert("P") for seed in range(6)]
    data = encoded(pictures[0], "image/gif", save_all=True, append_images=pictures[1:])
    picture = reader(max_frames=8).read(image_of(data, "image/gif"))
    assert picture.frames.tolist() == [0, 1, 2]
    assert not picture.whole


@pytest.mark.parametrize("kind", ["image/png", "image/webp", "image/gif"])
def test_an_image_of_next_to_nothing_is_not_blown_up(kind: str) -> None:
    """Forty million pixels in a few bytes are not decoded; a plain surface as large as a screen is."""
    options = {"lossless": True} if kind == "image/webp" else {}
    bomb = encoded(Pillow.new("1", (8000, 5000)), kind, **options)
    with pytest.raises(PictureError, match="a bomb or a blank"):
        reader().read(image_of(bomb, kind))
    assert reader().read(image_of(encoded(Pillow.new("RGB", (1280, 720)), kind, **options), kind)).whole
    assert reader().read(image_of(encoded(Pillow.new("RGB", (1920, 1080)), "image/png"), "image/png")).whole


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    """Whatever the worker lets in, an image of more than a hundred million pixels is refused before the decoder."""
    data = png(20_000, 5_001, pixels=zlib.compress(b""))
    with pytest.raises(PictureError, match="more than 100000000 pixels"):
        reader().read(image_of(data, "image/png"))
