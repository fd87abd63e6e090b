"""What a worker asks of the collector and the C allocator, both tuned for programs that do little at once."""

from __future__ import annotations

import ctypes
import gc

__all__ = ["keep_freed_memory", "stop_collecting"]

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

KEPT_BYTES = 64 * 2**20
"""Freed memory that is kept at the end of the heap: the outputs of some publishing rounds. Less is given back to the
system batch by batch and taken again page by page: half a page fault an event, a twentieth of the processor time."""

TAKEN_BYTES = 4 * 2**20
"""Memory is taken from the system in pieces of this size."""

OWN_MAPPING_BYTES = 32 * 2**20
"""Blocks from this size on get a mapping of their own, glibc's maximum: a batch of outputs is a few megabytes."""


def stop_collecting() -> None:
    """Take what there is for permanent, and collect no cycles from now on unless asked.

    Tens of thousands of records are in hand under load, and the automatic collector walks all of them again and again:
    it takes 40 % of the throughput.
    """
    gc.freeze()
    gc.disable()


def keep_freed_memory() -> bool:
    """Let freed memory be used again rather than be given back; True where there is such an allocator (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, TAKEN_BYTES), (M_MMAP_THRESHOLD, OWN_MAPPING_BYTES))
    return all(mallopt(option, value) == 1 for option, value in wanted)
