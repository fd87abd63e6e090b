from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from export.data.content import Text
from export.data.labelled import MAX_LINE_BYTES, MAX_NAMED, Asking, LabelledRow, Numbered, Unusable, read_rows
from export.errors import ExportError

TEXTS = Asking("a model", "text", max_event_bytes=1_000_000)
GOOD = {"text": "a quiet morning", "labels": {"hate": 0, "violence": None}}


def read(*paths: Path) -> tuple[list[Numbered], Unusable]:
    unusable = Unusable()
    return list(read_rows(paths, unusable, asking=TEXTS)), unusable


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_what_is_not_said_has_a_default(tmp_path: Path) -> None:
    """Text and labels are enough; `lang` is read as the locale."""
    rows, unusable = read(write(tmp_path / "a.jsonl", GOOD, {**GOOD, "lang": "en", "role": "prompt", "silver": 1}))
    assert unusable.count == 0
    assert [(row.line, row.row.role, row.row.locale, row.row.silver) for row in rows] == [
        (1, "post", None, False),
        (2, "prompt", "en", True),
    ]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "line: Invalid JSON"),
        ("[]", "line: "),
        ({**GOOD, "text": ""}, "text: "),
        ({"text": "secret words"}, "labels: Field required"),
        ({"labels": {}}, "line: has neither text nor image"),
        ({**GOOD, "image": "1.png"}, "line: has both text and image"),
        ({**GOOD, "labels": {"hate": 2}}, "labels: "),
        ({**GOOD, "labels": "secret words"}, "labels: "),
        ({**GOOD, "role": "secret words"}, "role: "),
        ({**GOOD, "unsafe": 0, "labels": {"hate": 1}}, "line: unsafe is 0, but hate is 1"),
        ('{"text": "\\ud800", "labels": {}}', "line: Invalid JSON"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_is_read(tmp_path: Path, bad: object, why: str) -> None:
    """A line that cannot be used is counted and named by file, line and field, never by its content."""
    rows, unusable = read(write(tmp_path / "a.jsonl", GOOD, bad, "", GOOD))
    assert [row.line for row in rows] == [1, 4]
    (line,) = unusable.named
    assert (unusable.count, line.file, line.line) == (1, "a.jsonl", 2)
    assert line.why.startswith(why)
    assert "secret words" not in line.why


def test_a_damaged_file_ends_where_the_damage_begins(tmp_path: Path) -> None:
    """Of a truncated gzip file the lines before the damage are read, and the next file is read as ever."""
    whole = gzip.compress("".join(json.dumps({**GOOD, "id": str(n) * 9}) + "\n" for n in range(5000)).encode())
    damaged = tmp_path / "a.jsonl.gz"
    damaged.write_bytes(whole[: len(whole) // 2])
    rows, unusable = read(damaged, write(tmp_path / "b.jsonl", GOOD))
    assert 0 < len(rows) < 5001
    assert rows[-1].file == "b.jsonl"
    assert [(bad.file, bad.line) for bad in unusable.named] == [("a.jsonl.gz", len(rows))]


def test_a_file_that_is_no_gzip_is_one_bad_line(tmp_path: Path) -> None:
    """A file that only claims to be compressed crashes nothing."""
    (tmp_path / "a.jsonl.gz").write_bytes(b"not compressed")
    rows, unusable = read(tmp_path)
    assert (rows, unusable.count) == ([], 1)


def test_a_line_that_is_too_long_is_skipped(tmp_path: Path) -> None:
    """A line longer than the bound is named and not kept in memory, and the line after it is read."""
    long = json.dumps({**GOOD, "text": "x" * (2 * MAX_LINE_BYTES + 5)})
    rows, unusable = read(write(tmp_path / "a.jsonl", long, GOOD))
    assert [row.line for row in rows] == [2]
    assert unusable.named[0].line == 1
    assert str(MAX_LINE_BYTES) in unusable.named[0].why


def test_bad_lines_beyond_a_bound_are_counted_only(tmp_path: Path) -> None:
    """A file of nothing but bad lines is counted whole and named in part."""
    _, unusable = read(write(tmp_path / "a.jsonl", *["{"] * (MAX_NAMED + 7)))
    assert (unusable.count, len(unusable.named)) == (MAX_NAMED + 7, MAX_NAMED)


def test_paths_that_are_not_there_stop_before_the_first_row(tmp_path: Path) -> None:
    """A file that cannot be opened, or a folder with nothing to read, is an error and not an empty result."""
    good = write(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(ExportError, match=r"cannot read .*b\.jsonl"):
        read(good, tmp_path / "b.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="there is no"):
        read(tmp_path / "empty")


def test_the_record_is_what_a_producer_sends() -> None:
    """The record has what is known of the text, and none of its labels or groups."""
    row = LabelledRow(text="Zürich", labels={"hate": 1}, role="output", prompt="Where?", groups=("gender:women",))
    assert json.loads(Numbered(row, Text("Zürich"), file="a.jsonl", line=7).event()) == {
        "id": "7",
        "created_at": "2026-01-01T00:00:00Z",
        "role": "output",
        "text": "Zürich",
        "prompt": "Where?",
    }
