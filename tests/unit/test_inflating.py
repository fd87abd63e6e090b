from __future__ import annotations

import gzip
import random
import tracemalloc
from collections.abc import Callable

import pytest
from aiokafka import codec
from aiokafka.errors import UnsupportedCodecError
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.inflating import MAX_BYTES, inflate

ENCODERS: dict[int, Callable[[bytes], bytes]] = {
    1: codec.gzip_encode,
    2: codec.snappy_encode,
    3: codec.lz4_encode,
    4: codec.zstd_encode,
}


@given(st.sampled_from(sorted(ENCODERS)), st.binary(min_size=1, max_size=2000), st.integers(1, 50))
def test_what_was_deflated_is_inflated(number: int, piece: bytes, times: int) -> None:
    """What aiokafka's producer compresses comes out as it went in."""
    data = piece * times
    assert inflate(number, memoryview(ENCODERS[number](data))) == data


def test_snappy_without_frames_is_read_too() -> None:
    """Some producers write one block of snappy without the frames of Java's library."""
    data = b"snappy " * 1000
    assert inflate(2, memoryview(codec.snappy_encode(data, xerial_compatible=False))) == data


@pytest.mark.parametrize("number", [1, 3, 4])
def test_nothing_is_inflated_beyond_the_bound(number: int) -> None:
    """A bomb is refused at the bound, whatever it says of its size, and what just fits is not."""
    encode = ENCODERS[number] if number != 1 else lambda data: gzip.compress(data, 1)
    assert len(inflate(number, memoryview(encode(bytes(MAX_BYTES))))) == MAX_BYTES
    bomb = memoryview(encode(bytes(3 * MAX_BYTES)))
    assert len(bomb) < MAX_BYTES / 50
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match=r"more than|whole buffer"):
            inflate(number, bomb)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * MAX_BYTES
    finally:
        tracemalloc.stop()


@given(st.integers(1, 4), st.binary(max_size=200))
def test_nonsense_is_an_error(number: int, data: bytes) -> None:
    """Bytes that no compressor wrote raise, and do not end the process."""
    noise = random.Random(0).randbytes(16) + data
    with pytest.raises(Exception):  # noqa: B017, PT011 - each library has errors of its own
        inflate(number, memoryview(noise))


@pytest.mark.parametrize("number", [0, 5, 6, 7])
def test_an_unknown_codec_is_named(number: int) -> None:
    """Kafka has four codecs; a batch in another one is not ours to read."""
    with pytest.raises(UnsupportedCodecError, match=str(number)):
        inflate(number, memoryview(b""))
