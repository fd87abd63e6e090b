"""YAML made to harm its reader: each is refused, at once, with the reason."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream.errors import PolicyError
from stream.yamlfile import MAX_BYTES, MAX_DEPTH, load

BILLION_LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BILLION_LAUGHS, "anchors and aliases"),
        (b"a: {b: &x {c: 1}}", "anchors and aliases"),
        (b"&x a: 1", "anchors and aliases"),
        (b"a: *x", "anchors and aliases"),
        (b"a: 1\n*x : 2", "anchors and aliases"),
        (b"a: !!python/object/apply:os.system [echo]", "tags"),
        (b"a: !!python/name:os.system", "tags"),
        (b"!!set {a, b}", "tags"),
        (b"a: !!int no", "tags"),
        (b"a: ! 1", "tags"),
        (b"%TAG ! tag:x,2026:\n---\na: !y 1", "tags"),
        (b"a: " + b"[" * (MAX_DEPTH + 1), "nested more than"),
        (b"a: " + b"[" * 100_000, "nested more than"),
        (b"a: " + b"{b: " * 30_000, "nested more than"),
        (b"- " * 60_000, "the file must be fields and values"),
    ],
)
def test_hostile_yaml_is_refused_at_once(content: bytes, reason: str) -> None:
    """Expansion, construction and nesting are refused by name, in less than a second."""
    started = time.perf_counter()
    with pytest.raises(PolicyError, match=f"^policy:[0-9]+: {reason}"):
        load(content, what="policy")
    assert time.perf_counter() - started < 1


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    """A file above the bound is refused by its size, in bytes or on disk, however sparse."""
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PolicyError, match=f"{MAX_BYTES} bytes at most"):
        load(path, what="policy")
    with pytest.raises(PolicyError, match=f"{MAX_BYTES} bytes at most"):
        load(b"#" * (MAX_BYTES + 1), what="policy")


def test_the_largest_file_is_read_in_bounded_time() -> None:
    """A dense file of the largest size is read whole, in seconds."""
    lines = b"".join(b"k%05d: [1, 2.5, {a: b}, 'c']\n" % i for i in range(MAX_BYTES // 32))
    started = time.perf_counter()
    assert len(load(lines[:MAX_BYTES].rsplit(b"\n", 1)[0], what="policy").data) > 4000
    assert time.perf_counter() - started < 30
