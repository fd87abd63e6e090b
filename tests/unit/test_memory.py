"""What a worker asks of the allocator."""

import platform

from stream.kafka.memory import keep_freed_memory


def test_glibc_keeps_what_is_asked() -> None:
    """Every option is one that glibc knows and takes; elsewhere nothing is asked and nothing fails."""
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
