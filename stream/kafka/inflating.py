"""Decompression of what anybody may have compressed: within a bound, beyond which it is an error."""

from __future__ import annotations

import gzip
from io import BytesIO

import cramjam
import numpy as np
from aiokafka.codec import snappy_decode
from aiokafka.errors import UnsupportedCodecError

__all__ = ["MAX_BYTES", "inflate"]

MAX_BYTES = 67_108_864
"""64 times the largest batch that a broker takes by default. Nine kilobytes of zstd may stand for 300 MB, and a worker
that they kill reads them again when it is started again."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4


def inflate(codec: int, data: memoryview) -> bytes:
    """What `data` stands for in one of Kafka's codecs, 1 to 4: gzip, snappy, lz4, zstd.

    Raises `UnsupportedCodecError` for another codec, and whatever the codec's library raises where the data is wrong or
    stands for more than `MAX_BYTES`.
    """
    if codec == GZIP:
        inflated: bytes = gzip.GzipFile(fileobj=BytesIO(data)).read(MAX_BYTES + 1)
    elif codec == SNAPPY:
        inflated = snappy_decode(data.tobytes())  # at most 64 bytes for three: the format has a bound of its own
    elif codec in {LZ4, ZSTD}:
        room = np.empty(MAX_BYTES, np.uint8)  # costs no memory until it is written to
        size = (cramjam.lz4 if codec == LZ4 else cramjam.zstd).decompress_into(data.tobytes(), room)
        inflated = room[:size].tobytes()
    else:
        raise UnsupportedCodecError(f"codec {codec}")
    if len(inflated) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return inflated
