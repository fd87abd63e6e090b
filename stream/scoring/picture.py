"""An event's image in, pieces of it as a model reads them out; the only use of Pillow in the service.

Pillow is given pixels of the kind that the event declares, never metadata (`stream.scoring.bare`), and no more of them
than the header's walk saw; no other of its decoders is asked. What cannot be read is a `PictureError`, whatever Pillow
raises. One image at a time is decoded, which takes about ten bytes for each of its pixels (measured: 410 MB for 40
million).
"""

from __future__ import annotations

import binascii
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL import Image as Pillow

from stream.bundle.manifest import ImageInput
from stream.events import Image
from stream.images import ImageHeader, read_header
from stream.scoring.bare import UPRIGHT, Bare, PictureError, undress
from stream.scoring.framing import Framing, chosen_frames, frame

__all__ = ["MAX_PIXELS", "Picture", "PictureReader"]

MAX_PIXELS = 100_000_000
"""Of an image that is decoded, whatever `max_image_pixels` lets in: it takes about 1 GB for a moment."""

FREE_PIXELS = 1_000_000
PIXELS_PER_BYTE = 500
"""So many pixels may any image have, and so many more for each byte that codes them. A WebP of 86 bytes can have 40
million, which take 2 s to decode (measured), and a thousand of them fit into what is scored together. Photographs have
up to 200 pixels for a byte, colour PNGs 344 at the utmost; beyond are surfaces of one colour, and bombs."""

MAX_FRAME_PIXELS = 20_000_000
"""Of the frames of an animation that are decoded, all together: GIF takes 30 ns for each, so 0.6 s (measured). A frame
is made from the ones before it, so that to look at the last one is to decode them all."""

# Registered by being imported. Pillow would else import all of its 40 formats at the first WebP.
_FORMATS: Final = {
    "image/png": PngImagePlugin.PngImageFile.format,
    "image/jpeg": JpegImagePlugin.JpegImageFile.format,
    "image/webp": WebPImagePlugin.WebPImageFile.format,
    "image/gif": GifImagePlugin.GifImageFile.format,
}

Pillow.MAX_IMAGE_PIXELS = MAX_PIXELS
"""Pillow's own guard, in case ours has a hole: it refuses twice as many."""

warnings.filterwarnings("ignore", module=r"PIL\.")
"""Pillow warns on standard error of what it repairs, which anybody can send."""

_TURNS: Final = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""What shows an image of each orientation of EXIF as it is meant."""

_RESAMPLING: Final = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a model looks at of one image.

    `pieces` is (k, height, width, 3) uint8, RGB; `frames` is (k,) int64, the number of each piece's frame, ascending;
    `whole` is False where there is more of the image, or where it is smaller than what the model was made for.
    """

    pieces: NDArray[np.uint8]
    frames: NDArray[np.int64]
    whole: bool


class PictureReader:
    """Reads images as one model's manifest says. Threads may share it."""

    def __init__(self, given: ImageInput, *, max_frames: int | None = None) -> None:
        """At most `max_frames` frames of an animation are looked at; None for as many as the evaluation did."""
        self.given = given
        self._max_frames = given.max_frames if max_frames is None else max_frames
        levels = np.arange(256)[None, :] / 255
        mean, deviation = np.array(given.mean)[:, None], np.array(given.deviation)[:, None]
        self._levels = ((levels - mean) / deviation).astype(np.float32)

    def read(self, image: Image) -> Picture:
        """Decode an image that has `data` and cut pieces out of it. Raises `PictureError`; no image raises another."""
        data = _content(image)
        header = _header(data, image.media_type)
        bare = undress(data, image.media_type)
        reachable = min(header.frames, _pixels_allowed(bare, header) // (header.width * header.height))
        wanted = chosen_frames(reachable, at_most=self._max_frames)
        pieces: list[NDArray[np.uint8]] = []
        frames: list[int] = []
        whole = len(wanted) == header.frames
        try:
            for number, picture in zip(wanted, _decode(bare, image.media_type, header, wanted), strict=False):
                framing = frame(*picture.size, self.given)
                whole &= framing.whole
                pieces += _cut(picture, framing, _RESAMPLING[self.given.interpolation])
                frames += [number] * len(framing.boxes)
        except PictureError:
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise what they like, struct.error and SyntaxError too
            raise PictureError(f"the image cannot be decoded ({type(error).__name__})") from None
        return Picture(np.stack(pieces), np.array(frames, dtype=np.int64), whole and len(set(frames)) == len(wanted))

    def pixels(self, pieces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The numbers of n pieces (n, height, width, 3) as the model takes them, (n, 3, height, width) float32."""
        red_green_blue = [self._levels[colour][pieces[..., colour]] for colour in range(3)]
        return np.stack(red_green_blue, axis=1)


def _content(image: Image) -> bytes:
    try:
        return binascii.a2b_base64(image.data or "")
    except ValueError:
        raise PictureError("the image is not base64") from None


def _header(data: bytes, media_type: str) -> ImageHeader:
    header = read_header(data, media_type)
    if isinstance(header, str):
        raise PictureError(f"the image {header}")
    if not 1 <= header.width * header.height <= MAX_PIXELS:
        raise PictureError(f"the image has more than {MAX_PIXELS} pixels, or none")
    return header


def _pixels_allowed(bare: Bare, header: ImageHeader) -> int:
    """How many pixels are decoded, of all frames together; raise `PictureError` where one frame has more."""
    paid_for = FREE_PIXELS + PIXELS_PER_BYTE * len(bare.data)
    pixels = header.width * header.height
    if pixels > paid_for:
        raise PictureError(f"the image has {pixels} pixels in {len(bare.data)} bytes, which is a bomb or a blank")
    return max(pixels, min(MAX_FRAME_PIXELS, paid_for))


def _decode(bare: Bare, media_type: str, header: ImageHeader, wanted: list[int]) -> Iterator[Pillow.Image]:
    """The wanted frames, in RGB and upright; fewer where the animation ends before it says."""
    with Pillow.open(io.BytesIO(bare.data), formats=(_FORMATS[media_type],)) as file:
        _refuse_larger(file, header)
        for number in range(wanted[-1] + 1):
            try:
                file.seek(number)
            except EOFError:
                if number == 0:
                    raise
                return
            file.load()
            _refuse_larger(file, header)
            if number in wanted:
                upright = _rgb(file)
                yield upright.transpose(_TURNS[bare.orientation]) if bare.orientation != UPRIGHT else upright


def _refuse_larger(file: Pillow.Image, header: ImageHeader) -> None:
    if file.width > header.width or file.height > header.height:
        raise PictureError("the image is larger than its header says")


def _rgb(image: Pillow.Image) -> Pillow.Image:
    """Any mode as RGB: alpha on white, as a page shows it; the upper 8 of 16 bits."""
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        return Pillow.fromarray((grey.astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Pillow.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _cut(image: Pillow.Image, framing: Framing, resampling: Pillow.Resampling) -> Iterator[NDArray[np.uint8]]:
    """The pieces of one frame, each (height, width, 3). What is beyond the image is black."""
    if framing.cut != (0, 0, *image.size):
        image = image.crop(framing.cut)
    if framing.size != image.size:
        image = image.resize(framing.size, resampling)
    return (np.asarray(image.crop(box)) for box in framing.boxes)
