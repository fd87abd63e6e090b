"""Images made by hand, byte by byte: small sound ones of each kind, and ones that must be refused."""

from __future__ import annotations

import struct
import zlib

__all__ = ["BROKEN", "SOUND", "gif", "jpeg", "png", "png_chunk", "vp8_chunk", "webp", "webp_chunk"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GIF_FRAME = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its right checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def ihdr(width: int, height: int) -> bytes:
    """The header chunk of an 8-bit grey image."""
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def png(width: int = 1, height: int = 1, *, before: bytes = b"", pixels: bytes | None = None) -> bytes:
    """A grey PNG; `before` stands between header and pixels, `pixels` are compressed ones."""
    rows = zlib.compress(b"\0" * (1 + width) * height) if pixels is None else pixels
    return PNG_SIGNATURE + ihdr(width, height) + before + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def gif(frames: int = 1, *, screen: tuple[int, int] = (1, 1), frame: bytes = GIF_FRAME) -> bytes:
    """A GIF of two colours, all of its frames the same."""
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0" * 6 + frame * frames + b";"


def jpeg_segment(marker: int, content: bytes) -> bytes:
    """A segment with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(width: int = 1, height: int = 1, *, before: bytes = b"", headers: int = 1) -> bytes:
    """A grey baseline JPEG up to its first scan, which holds nothing that would decode."""
    frame = jpeg_segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    return b"\xff\xd8" + before + frame * headers + jpeg_segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\0\xff\xd9"


def webp_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk, padded to an even length."""
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def vp8_chunk(width: int = 1, height: int = 1) -> bytes:
    """A lossy frame's header and nothing to decode."""
    return webp_chunk(b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height))


def vp8l_chunk(width: int = 1, height: int = 1) -> bytes:
    """A lossless frame's header and nothing to decode."""
    return webp_chunk(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def vp8x_chunk(width: int, height: int, *, flags: int = 2) -> bytes:
    """The header of an extended file: flags and canvas."""
    return webp_chunk(b"VP8X", struct.pack("<I", flags) + _24(width - 1) + _24(height - 1))


def anmf_chunk(width: int, height: int, *, left: int = 0) -> bytes:
    """A frame of an animation."""
    return webp_chunk(b"ANMF", _24(left // 2) + _24(0) + _24(width - 1) + _24(height - 1) + bytes(4) + vp8_chunk())


def webp(*chunks: bytes) -> bytes:
    """A file of these chunks."""
    content = b"WEBP" + b"".join(chunks or (vp8_chunk(),))
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _24(number: int) -> bytes:
    return number.to_bytes(3, "little")


SOUND: dict[str, tuple[str, bytes]] = {
    "png": ("image/png", png()),
    "png with a text": ("image/png", png(before=png_chunk(b"tEXt", b"Comment\0hello"))),
    "png animated": ("image/png", png(before=png_chunk(b"acTL", struct.pack(">II", 2, 0)))),
    "jpeg": ("image/jpeg", jpeg(640, 480)),
    "jpeg with fill bytes": ("image/jpeg", jpeg(before=b"\xff\xff" + jpeg_segment(0xFE, b"comment"))),
    "jpeg with a thumbnail behind": ("image/jpeg", jpeg() + jpeg()),
    "gif": ("image/gif", gif()),
    "gif of 64 frames": ("image/gif", gif(64)),
    "gif with a comment": ("image/gif", gif(frame=b"!\xfe\x05hello\x00" + GIF_FRAME)),
    "webp lossy": ("image/webp", webp()),
    "webp lossless": ("image/webp", webp(vp8l_chunk(3, 5))),
    "webp extended": ("image/webp", webp(vp8x_chunk(20, 30, flags=0), webp_chunk(b"ICCP", b"x"), vp8_chunk(20, 30))),
    "webp animated": ("image/webp", webp(vp8x_chunk(4, 4), anmf_chunk(2, 2), anmf_chunk(2, 2, left=2))),
}
"""Name to media type and bytes, all within the default limits."""

BROKEN: dict[str, tuple[str, bytes]] = {
    "png that claims 60000 x 60000": ("image/png", png(60000, 60000, pixels=b"x")),
    "png that claims no pixels": ("image/png", png(0, 1, pixels=b"x")),
    "png with two headers": ("image/png", png(before=ihdr(60000, 60000))),
    "png without a header": ("image/png", PNG_SIGNATURE + png_chunk(b"IDAT", b"x") + png_chunk(b"IEND", b"")),
    "png with a short header": ("image/png", PNG_SIGNATURE + png_chunk(b"IHDR", b"\0\0\0\1") + png()[33:]),
    "png without pixels": ("image/png", PNG_SIGNATURE + ihdr(1, 1) + png_chunk(b"IEND", b"")),
    "png without an end": ("image/png", png()[:-12]),
    "png cut in its header": ("image/png", png()[:20]),
    "png of one signature": ("image/png", PNG_SIGNATURE),
    "png whose chunk is longer than the file": ("image/png", png(before=struct.pack(">I", 2**31) + b"tEXt")),
    "png of 40000 empty chunks": ("image/png", png(before=png_chunk(b"tEXt", b"") * 40000)),
    "png of 65 frames": ("image/png", png(before=png_chunk(b"fcTL", bytes(26)) * 65)),
    "png that announces a million frames": ("image/png", png(before=png_chunk(b"acTL", struct.pack(">II", 10**6, 0)))),
    "png with a zip behind": ("image/png", png() + b"PK\x05\x06" + bytes(18)),
    "png whose pixels inflate to 100 MB": (
        "image/png",
        png(9000, 11000, pixels=zlib.compress(bytes(10**8), 9)),
    ),
    "gif of 5000 frames": ("image/gif", gif(5000)),
    "gif of 60000 x 60000": ("image/gif", gif(screen=(60000, 60000))),
    "gif whose frame is larger than its screen": (
        "image/gif",
        gif(frame=b"," + struct.pack("<HHHHB", 60000, 60000, 5000, 5000, 0) + b"\x02\x02\x44\x01\x00"),
    ),
    "gif without frames": ("image/gif", gif(0)),
    "gif without an end": ("image/gif", gif()[:-1]),
    "gif whose colours are cut": ("image/gif", gif()[:15]),
    "gif with an unknown block": ("image/gif", gif(frame=b"?" + GIF_FRAME)),
    "gif with a script behind": ("image/gif", gif() + b"<script>1</script>"),
    "gif of one-byte blocks": ("image/gif", gif(frame=GIF_FRAME[:-1] + b"\x01x" * 100000 + b"\0")),
    "gif that is a script": ("image/gif", b"GIF89a/*" + b"*/=1;//" * 10),
    "jpeg of 65535 x 65535": ("image/jpeg", jpeg(65535, 65535)),
    "jpeg whose height comes later": ("image/jpeg", jpeg(10, 0)),
    "jpeg with two headers": ("image/jpeg", jpeg(headers=2)),
    "jpeg without a header": ("image/jpeg", jpeg(headers=0)),
    "jpeg with a short header": ("image/jpeg", jpeg(before=jpeg_segment(0xC2, b"\x08"), headers=0)),
    "jpeg cut in a segment": ("image/jpeg", jpeg()[:8]),
    "jpeg of one marker": ("image/jpeg", b"\xff\xd8\xff"),
    "jpeg with bytes between segments": ("image/jpeg", jpeg(before=jpeg_segment(0xFE, b"comment") + b"\0")),
    "jpeg that ends before its pixels": ("image/jpeg", jpeg(before=b"\xff\xd9")),
    "jpeg with a segment of length 0": ("image/jpeg", jpeg(before=b"\xff\xe0\x00\x00")[:8]),
    "jpeg of 40000 empty segments": ("image/jpeg", jpeg(before=jpeg_segment(0xFE, b"") * 40000)),
    "jpeg of fill bytes": ("image/jpeg", b"\xff\xd8" + b"\xff" * 100000),
    "webp of 16384 x 16384": ("image/webp", webp(vp8l_chunk(16384, 16384))),
    "webp with a canvas of 16777216 x 1000": ("image/webp", webp(vp8x_chunk(2**24, 1000), anmf_chunk(1, 1))),
    "webp whose frame is larger than its canvas": ("image/webp", webp(vp8x_chunk(1, 1), anmf_chunk(9000, 9000))),
    "webp of 65 frames": ("image/webp", webp(vp8x_chunk(1, 1), *[anmf_chunk(1, 1)] * 65)),
    "webp without pixels": ("image/webp", webp(vp8x_chunk(1, 1))),
    "webp without chunks": ("image/webp", b"RIFF\x04\0\0\0WEBP"),
    "webp with a short header": ("image/webp", webp(webp_chunk(b"VP8 ", b"\x10"))),
    "webp shorter than it says": ("image/webp", webp()[:-2]),
    "webp with a zip behind": ("image/webp", webp() + b"PK\x05\x06"),
    "webp of 20000 empty chunks": ("image/webp", webp(*[webp_chunk(b"XXXX", b"")] * 20000, vp8_chunk())),
    "svg that says png": ("image/png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'),
    "html that says gif": ("image/gif", b"<!doctype html><script>1</script>"),
    "gif that says png": ("image/png", gif()),
    "png that says jpeg": ("image/jpeg", png()),
    "tiff that says webp": ("image/webp", b"II*\0" + bytes(100)),
    "nothing": ("image/png", b""),
}
"""Name to media type and bytes, each refused within the default limits."""
