from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stream.commands.load import read_events
from stream.errors import ConfigError

Events = list[tuple[int, bytes | None, bytes]]


def read(path: Path, *, repeat: int = 1, key_field: str = "id", time_field: str | None = None) -> Events:
    return list(read_events(path, 4, repeat=repeat, key_field=key_field, time_field=time_field))


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    """Without a time to set, the bytes of every line are sent unchanged, bad ones too; empty lines are not."""
    lines = [b'{"id": "a",   "x": 1}', b"not json", b"[1]", b"\xff"]
    path = write(tmp_path / "e.jsonl", *lines, b"")

    events = read(path, repeat=2)

    assert [value for _, _, value in events] == lines * 2
    assert [key for _, key, _ in events[:4]] == [b"a", None, None, None]


def test_a_key_has_one_partition_and_keyless_events_take_turns(tmp_path: Path) -> None:
    """Events of one key are always in one partition; events without key are spread over all."""
    keyed = read(write(tmp_path / "k.jsonl", *[b'{"id": "same"}'] * 8))
    keyless = read(write(tmp_path / "n.jsonl", *[b"{}"] * 8))

    assert len({partition for partition, _, _ in keyed}) == 1
    assert [partition for partition, _, _ in keyless] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_fields_may_be_nested(tmp_path: Path) -> None:
    """The key is found inside nested objects, and numbers are keys too."""
    path = write(tmp_path / "e.jsonl", b'{"post": {"id": 17}}', b'{"post": 3}', b"{}")

    assert [key for _, key, _ in read(path, key_field="post.id")] == [b"17", None, None]


def test_the_time_is_set_to_now(tmp_path: Path) -> None:
    """With a time field, each event says the present; lines that are no objects stay as they are."""
    path = write(tmp_path / "e.jsonl", b'{"id":"a","meta":{"at":"1999-01-01T00:00:00Z"}}', b"broken")

    (_, _, value), (_, _, broken) = read(path, time_field="meta.at")

    age = datetime.now(UTC) - datetime.fromisoformat(json.loads(value)["meta"]["at"])
    assert timedelta(0) <= age < timedelta(seconds=10)
    assert broken == b"broken"


@pytest.mark.parametrize("content", [None, b"", b"\n\n"])
def test_a_file_without_events_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """A file that is absent or has no lines is named."""
    path = tmp_path / "empty.jsonl"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"empty\.jsonl"):
        read(path)
