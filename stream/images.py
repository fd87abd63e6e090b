"""An event's image, looked at without decoding it: what kind it is, how large, how many frames, and where it ends.

The headers are walked here rather than by a library, because opening is where image libraries are attacked: a PNG of
700 kB costs Pillow 0.6 s (every colour profile is inflated), and opening a WebP enters C code. This walk allocates
nothing that the image asks for, and is stricter than decoders are, so that none of them sees more than it did; the
tests hold it against Pillow.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Literal

from stream.events import Image

__all__ = ["ImageHeader", "ImageLimits", "image_problem", "media_type_of", "read_header"]

# What a model server may be told to fetch. `file:`, `data:` and the rest have no business in an event.
_ADDRESS = re.compile(r"(https?|s3|gs)://[^\s\x00-\x20\x7f/?#]+([/?#][^\s\x00-\x20\x7f]*)?", re.IGNORECASE)

_MAGIC = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/gif": re.compile(rb"GIF8[79]a"),
}

_JPEG_FILL = 0xFF
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Tables, frames, scans, applications' and comments: all markers that a length follows (T.81, table B.1).
_JPEG_SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDA))

# Images have a chunk, segment or block per 255 bytes at the least (GIF's). These bound one made of empty parts.
_MIN_PARTS = 1024
_BYTES_PER_PART = 64


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds on one image: bytes once out of base64, pixels of its canvas, frames."""

    max_bytes: int
    max_pixels: int
    max_frames: int


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says it is; the larger where it says so twice."""

    width: int
    height: int
    frames: int


def image_problem(image: Image, limits: ImageLimits) -> str | None:
    """What is wrong with an image, as `field: problem`; None where nothing is. A `url` is looked at, never fetched."""
    if image.url is not None and image.data is not None:
        return "image: has both data and url; send one"
    if image.url is not None:
        return None if _ADDRESS.fullmatch(image.url) else "image.url: must be an http, https, s3 or gs address"
    if image.data is not None:
        problem = _data_problem(image.data, image.media_type, limits)
        return problem and f"image.data: {problem}"
    return "image: has neither data nor url"


def media_type_of(data: bytes) -> str | None:
    """What kind of image these bytes begin as; None where it is none that the service knows."""
    return next((name for name, magic in _MAGIC.items() if magic.match(data)), None)


def read_header(data: bytes, media_type: str) -> ImageHeader | str:
    """Walk an image to its end (a JPEG to its first scan); text says what is wrong where something is."""
    found = media_type_of(data)
    if found != media_type:
        return f"says {media_type}, begins as {found or 'nothing this service knows'}"
    walk = {"image/png": _png, "image/jpeg": _jpeg, "image/webp": _webp, "image/gif": _gif}[media_type]
    try:
        return walk(_Bytes(data))
    except _BrokenError as broken:
        return str(broken)


def _data_problem(data: str, media_type: str, limits: ImageLimits) -> str | None:
    if len(data) > (limits.max_bytes + 2) // 3 * 4:
        return f"more than {limits.max_bytes} bytes"
    try:
        content = binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        content = None
    if content is None or (len(content) + 2) // 3 * 4 != len(data):  # Python accepts padding where none belongs
        return "not base64 (RFC 4648 section 4, padded, no line breaks)"
    header = read_header(content, media_type)
    if isinstance(header, str):
        return header
    if not 1 <= header.width * header.height <= limits.max_pixels:
        return f"{header.width} x {header.height} pixels; 1 to {limits.max_pixels} are read (max_image_pixels)"
    if header.frames > limits.max_frames:
        return f"{header.frames} frames; {limits.max_frames} are read (max_image_frames)"
    return None


class _BrokenError(Exception):
    """What is wrong with an image; caught in `read_header`."""


class _Bytes:
    """An image's bytes, taken from the front in a bounded number of parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._parts = _MIN_PARTS + len(data) // _BYTES_PER_PART

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise _BrokenError("cut short")
        return self._data[start : self._at]

    def number(self, size: int, order: Literal["big", "little"]) -> int:
        return int.from_bytes(self.take(size), order)

    def part(self) -> None:
        """Count a part. Called once in every turn of every loop, which is why all of them end."""
        self._parts -= 1
        if self._parts < 0:
            raise _BrokenError("made of too many small parts")

    def is_left(self) -> bool:
        return self._at < len(self._data)

    def end(self) -> None:
        """Refuse what follows: it is there for another reader, which finds an archive or a script in it."""
        if self.is_left():
            raise _BrokenError("goes on after its end")


def _png(image: _Bytes) -> ImageHeader:
    """PNG (W3C, third edition, section 5): IHDR, other chunks, IEND. An animation says in acTL how many frames it has.

    Its first frame is the still image where an fcTL stands before the pixels; else the still image is one more.
    """
    image.take(8)
    chunks = [_png_chunk(image)]
    while chunks[-1][0] != b"IEND":
        chunks.append(_png_chunk(image))
    image.end()
    kinds = [kind for kind, _ in chunks]
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") != 1 or b"IDAT" not in kinds:
        raise _BrokenError("does not have one header and then pixels")
    header = _Bytes(chunks[0][1])
    announced = [_Bytes(content).number(4, "big") for kind, content in chunks if kind == b"acTL"]
    still = b"fcTL" not in kinds[: kinds.index(b"IDAT")]
    frames = max(0, kinds.count(b"fcTL"), *announced) + still
    return ImageHeader(header.number(4, "big"), header.number(4, "big"), frames)


def _png_chunk(image: _Bytes) -> tuple[bytes, bytes]:
    image.part()
    size = image.number(4, "big")
    kind, content = image.take(4), image.take(size)
    image.take(4)  # the checksum, which is for decoders
    return kind, content


def _jpeg(image: _Bytes) -> ImageHeader:
    """JPEG (ITU-T T.81, annex B): segments up to the first scan; the rest is not looked at, cameras append to it."""
    image.take(2)
    frames = []
    while (marker := _jpeg_marker(image)) != _JPEG_SCAN:
        segment = image.take(max(0, image.number(2, "big") - 2))
        if marker in _JPEG_FRAMES:
            frames.append(_Bytes(segment))
    if len(frames) != 1:
        raise _BrokenError("does not have one header and then pixels")
    frames[0].take(1)  # bits per sample
    height, width = frames[0].number(2, "big"), frames[0].number(2, "big")
    return ImageHeader(width, height, 1)


def _jpeg_marker(image: _Bytes) -> int:
    """The next marker, which must be one that a length follows; any number of 0xFF may stand before it."""
    image.part()
    if image.number(1, "big") != _JPEG_FILL:
        raise _BrokenError("has bytes between its segments")
    while (marker := image.number(1, "big")) == _JPEG_FILL:
        image.part()
    if marker not in _JPEG_SEGMENTS:
        raise _BrokenError("has a marker where a segment should be")
    return marker


def _gif(image: _Bytes) -> ImageHeader:
    """GIF (CompuServe, 89a): a screen, then extensions and frames up to the trailer; frames may exceed the screen."""
    image.take(6)
    width, height = image.number(2, "little"), image.number(2, "little")
    _gif_colours(image, flags=image.number(1, "big"), after=2)
    frames = 0
    while (block := image.take(1)) != b";":
        image.part()
        if block == b",":
            left, top = image.number(2, "little"), image.number(2, "little")
            width = max(width, left + image.number(2, "little"))
            height = max(height, top + image.number(2, "little"))
            _gif_colours(image, flags=image.number(1, "big"), after=1)
            frames += 1
        elif block == b"!":
            image.take(1)
        else:
            raise _BrokenError("has a block of no known kind")
        while size := image.number(1, "big"):
            image.part()
            image.take(size)
    image.end()
    if not frames:
        raise _BrokenError("has no pixels")
    return ImageHeader(width, height, frames)


def _gif_colours(image: _Bytes, *, flags: int, after: int) -> None:
    """Pass so many bytes, and a table of 3 bytes for each of 2 to 256 colours where the flags say there is one."""
    image.take(after)
    if flags & 0x80:
        image.take(3 * 2 ** ((flags & 7) + 1))


def _webp(image: _Bytes) -> ImageHeader:
    """WebP (RFC 9649): one RIFF chunk; the canvas in VP8X, the pixels in VP8, VP8L or, animated, in ANMF chunks."""
    image.take(4)
    content = _Bytes(image.take(image.number(4, "little")))
    image.end()
    content.take(4)
    chunks = [_webp_chunk(content)]
    while content.is_left():
        chunks.append(_webp_chunk(content))
    sizes = [_WEBP_SIZES[kind](_Bytes(chunk)) for kind, chunk in chunks if kind in _WEBP_SIZES]
    kinds = [kind for kind, _ in chunks]
    if not {b"VP8 ", b"VP8L", b"ANMF"}.intersection(kinds):
        raise _BrokenError("has no pixels")
    return ImageHeader(max(w for w, _ in sizes), max(h for _, h in sizes), max(1, kinds.count(b"ANMF")))


def _webp_chunk(content: _Bytes) -> tuple[bytes, bytes]:
    content.part()
    kind, size = content.take(4), content.number(4, "little")
    chunk = content.take(size)
    content.take(size % 2)
    return kind, chunk


def _vp8(chunk: _Bytes) -> tuple[int, int]:
    """RFC 6386, section 9.1: three bytes of frame tag, three of start code, and twice 14 bits of size."""
    chunk.take(6)
    return chunk.number(2, "little") & 0x3FFF, chunk.number(2, "little") & 0x3FFF


def _vp8l(chunk: _Bytes) -> tuple[int, int]:
    """RFC 9649, section 3.4: a signature byte, and twice 14 bits of size less one."""
    chunk.take(1)
    bits = chunk.number(4, "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _vp8x(chunk: _Bytes) -> tuple[int, int]:
    """RFC 9649, section 2.7: four bytes of flags, and twice 24 bits of size less one."""
    chunk.take(4)
    return chunk.number(3, "little") + 1, chunk.number(3, "little") + 1


def _anmf(chunk: _Bytes) -> tuple[int, int]:
    """RFC 9649, section 2.7.1.1: where the frame is, halved, and its size less one: how far it reaches."""
    left, top = 2 * chunk.number(3, "little"), 2 * chunk.number(3, "little")
    return left + chunk.number(3, "little") + 1, top + chunk.number(3, "little") + 1


_WEBP_SIZES = {b"VP8 ": _vp8, b"VP8L": _vp8l, b"VP8X": _vp8x, b"ANMF": _anmf}
