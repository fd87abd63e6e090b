"""A number in [0, 1) per event that replays reproduce: a hash of its coordinates, not a random draw."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["uniform"]


def uniform(topic: str, partition: int, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hash `topic:partition:offset` to [0, 1); (m,) int64 in, (m,) float64 out.

    SplitMix64 (Steele, Lea & Flood 2014) of the offset, seeded by topic and partition: equidistributed over
    consecutive offsets, the same on every replay and every machine.
    """
    seed = np.uint64(zlib.crc32(f"{topic}:{partition}".encode()) << 32)
    with np.errstate(over="ignore"):
        state = (offsets.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + seed
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    # 53 bits: as many as a float64 in [0, 1) tells apart.
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
