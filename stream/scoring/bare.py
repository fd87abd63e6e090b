"""An image's bytes in, the same image without all that is not pixels out, and which way up it is.

Decoders are attacked where they read what nobody looks at: 700 kB of PNG make Pillow inflate colour profiles for 1.5 s,
and a JPEG may hold other images behind its own (measured with Pillow 13). So nothing but pixels and what they need
reaches the decoder. Of the metadata one number is read, here, by steps that are counted: the orientation of EXIF.

The bytes have been walked before (`stream.images.read_header`); what it did not look at is bounded here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["UPRIGHT", "Bare", "PictureError", "undress"]

UPRIGHT = 1
"""EXIF's word for an image that is to be shown as it is stored. The others, to 8, turn or mirror it."""

MAX_SCANS = 32
"""Passes over a progressive JPEG; encoders write about ten. Each goes over the whole image however little it says: 1000
of them, 60 bytes each, take 16 s at 36 million pixels (measured)."""

_ORIENTATION, _SHORT, _ENTRY_BYTES = 0x0112, 3, 12
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND"})
_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"})
_WEBP_META = 0x20 | 0x08 | 0x04
"""The bits of VP8X's flags that announce a profile, EXIF and XMP."""

_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_JPEG_KEPT = (frozenset(range(0xC0, 0xD0)) - {0xC8}) | {_SCAN, 0xDB, 0xDD, 0xE0, 0xEE}
"""Frames, tables, scans, and the two applications' segments that say how colours were coded (JFIF's and Adobe's)."""
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
"""What is no byte of a scan: there, 0xFF is followed by a zero or by a restart marker (T.81, B.1.1.2)."""
_MAX_SEGMENTS = 4096
"""Of a JPEG, all of its tables and scans; a large one has a hundred."""


class PictureError(Exception):
    """This image cannot be looked at; the text says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Bare:
    """An image of the same kind without metadata, and the orientation that its EXIF gave it, 1 to 8."""

    data: bytes
    orientation: int = UPRIGHT


def undress(data: bytes, media_type: str) -> Bare:
    """Keep of an image that `read_header` accepted what its pixels need. Raises `PictureError`."""
    return {"image/png": _png, "image/jpeg": _jpeg, "image/webp": _webp, "image/gif": _gif}[media_type](data)


def _png(data: bytes) -> Bare:
    kept, tiff, at = [data[:8]], b"", 8
    while at < len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + _number(data, at, 4, "big")
        if kind in _PNG_KEPT:
            kept.append(data[at:end])
        elif kind == b"eXIf":
            tiff = tiff or data[at + 8 : end - 4]
        at = end
    return Bare(b"".join(kept), _orientation(tiff))


def _jpeg(data: bytes) -> Bare:
    """All segments to the end of the first image. The header's walk went to the first scan only."""
    kept, tiff, at, scans = [data[:2]], b"", 2, 0
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            raise PictureError("the image is cut short")
        kept.append(data[at : found.start()] if scans else b"")
        marker, end = found[1][0], found.end() + max(2, _number(data, found.end(), 2, "big"))
        if marker == _END:
            return Bare(b"".join((*kept, b"\xff\xd9")), _orientation(tiff))
        if marker in _JPEG_KEPT:
            kept.append(data[found.start() : end])
        elif marker == _EXIF and data[found.end() + 2 : found.end() + 8] == b"Exif\0\0":
            tiff = tiff or data[found.end() + 8 : end]
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise PictureError(f"the image is coded in more than {MAX_SCANS} passes")
        at = end
    raise PictureError(f"the image has more than {_MAX_SEGMENTS} segments")


def _gif(data: bytes) -> Bare:
    at = 13 + _gif_colours(data[10])
    kept = [data[:at]]
    while data[at] != ord(";"):
        start = at
        is_frame = data[at] == ord(",")
        # A frame has a descriptor, perhaps colours, and the width of its codes before its blocks; an extension a label.
        at += 11 + _gif_colours(data[at + 9]) if is_frame else 2
        while size := data[at]:
            at += 1 + size
        at += 1
        if is_frame or data[start + 1] == 0xF9:  # noqa: PLR2004 - how long the frame is shown, and what is transparent
            kept.append(data[start:at])
    return Bare(b"".join((*kept, b";")))


def _gif_colours(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> Bare:
    kept, tiff, at = [b"WEBP"], b"", 12
    while at < len(data):
        kind, size = data[at : at + 4], _number(data, at + 4, 4, "little")
        end = at + 8 + size + size % 2
        if kind == b"VP8X":
            kept.append(data[at : at + 8] + bytes([data[at + 8] & ~_WEBP_META]) + data[at + 9 : end])
        elif kind in _WEBP_KEPT:
            kept.append(data[at:end])
        elif kind == b"EXIF":
            tiff = tiff or data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
        at = end
    content = b"".join(kept)
    return Bare(b"RIFF" + len(content).to_bytes(4, "little") + content, _orientation(tiff))


def _orientation(tiff: bytes) -> int:
    """The orientation in EXIF's first directory (CIPA DC-008, section 4.6); upright where it says nothing clear."""
    if tiff[:4] not in {b"II*\0", b"MM\0*"}:
        return UPRIGHT
    order: Literal["little", "big"] = "little" if tiff[:1] == b"I" else "big"
    at = _number(tiff, 4, 4, order) + 2
    end = min(len(tiff), at + _ENTRY_BYTES * _number(tiff, at - 2, 2, order))
    for entry in range(at, end, _ENTRY_BYTES):
        if _number(tiff, entry, 2, order) == _ORIENTATION and _number(tiff, entry + 2, 2, order) == _SHORT:
            value = _number(tiff, entry + 8, 2, order)
            return value if UPRIGHT <= value <= 8 else UPRIGHT  # noqa: PLR2004 - there are eight
    return UPRIGHT


def _number(data: bytes, at: int, size: int, order: Literal["little", "big"]) -> int:
    """The number at a place; beyond the end, of what bytes there are, which only makes the image end sooner."""
    return int.from_bytes(data[at : at + size], order)
