"""Files of labelled texts in, rows out as the worker would get them; a line that cannot be used is counted and named.

Any file of JSON lines will do whose rows have `text` and `labels`. What else is known of a text is optional: `id`,
`role` (post), `source` (the file's name), `prompt`, `locale` or `lang`, `groups`, `silver`, `unsafe`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from export.dataset import BadLine
from export.errors import ExportError

__all__ = ["MAX_ROWS", "LabelledRow", "Numbered", "Unusable", "bounded", "chunks", "named_first", "read_rows"]

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest line read: four times the largest record that Kafka takes by default. What is longer is skipped."""

MAX_ROWS = 1_000_000
"""Most rows of one evaluation: their scores and labels, some 300 bytes each, stay in memory, texts do not."""

MAX_NAMED = 1000
"""Unusable lines that are named; those after it are counted only."""

Name = Annotated[str, Field(min_length=1, max_length=128)]


class LabelledRow(BaseModel):
    """One labelled text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Annotated[str, Field(min_length=1)]
    labels: dict[Name, Literal[0, 1] | None]
    """By harm: 1 harmful, 0 harmless, null unknown; a harm that is not there is unknown."""
    unsafe: Literal[0, 1] | None = None
    """Whether any harm at all applies."""
    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    source: Name | None = None
    role: Literal["prompt", "output", "post"] = "post"
    prompt: str | None = None
    locale: Annotated[str, Field(max_length=35)] | None = Field(
        default=None, validation_alias=AliasChoices("locale", "lang")
    )
    groups: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    silver: Annotated[bool, BeforeValidator(bool)] = False  # sources write 1, true, null or nothing

    @model_validator(mode="after")
    def _check_unsafe(self) -> LabelledRow:
        harmful = sorted(harm for harm, label in self.labels.items() if label == 1)
        if self.unsafe == 0 and harmful:
            raise ValueError(f"unsafe is 0, but {harmful[0]} is 1")
        return self

    def event(self, *, id: str, created_at: str) -> bytes:  # noqa: A002 - the field's name
        """The record that a producer would send for this text."""
        known = {"role": self.role, "text": self.text, "prompt": self.prompt, "locale": self.locale}
        return json.dumps(
            {"id": id, "created_at": created_at} | {name: value for name, value in known.items() if value is not None}
        ).encode()


@dataclass(slots=True)
class Unusable:
    """Lines that were left out: how many, and the first of them by file and line."""

    count: int = 0
    named: list[BadLine] = field(default_factory=list)

    def add(self, line: BadLine) -> None:
        """Count a line; name it if there is room."""
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append(line)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A row and where it stands."""

    row: LabelledRow
    file: str
    line: int


def read_rows(paths: Sequence[Path], unusable: Unusable) -> Iterator[Numbered]:
    """Yield the rows of `*.jsonl` and `*.jsonl.gz` files, or of those in folders, and count in `unusable` the rest.

    Raises `ExportError` for a path that is not there or cannot be opened, before the first row.
    """
    files = [file for path in paths for file in _files(path)]
    for path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror}; check --data") from None
    for path in files:
        yield from _read_file(path, unusable)


def bounded(rows: Iterable[Numbered]) -> Iterator[Numbered]:
    """The same rows; `ExportError` where they are more than one evaluation can hold."""
    for count, numbered in enumerate(rows):
        if count == MAX_ROWS:
            raise ExportError(f"more than {MAX_ROWS:,} labelled texts: give fewer files, or a sample of them")
        yield numbered


def chunks(rows: Iterator[Numbered], size: int) -> Iterator[list[Numbered]]:
    """The same rows, `size` at a time."""
    while chunk := list(islice(rows, size)):
        yield chunk


def named_first(unusable: Unusable) -> str:
    """The first line that could not be used, for the end of an error; nothing where there is none."""
    if not unusable.named:
        return ""
    bad = unusable.named[0]
    return f"; the first is line {bad.line} of {bad.file}: {bad.why}"


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted([*path.rglob("*.jsonl"), *path.rglob("*.jsonl.gz")])
    if not found:
        raise ExportError(f"there is no *.jsonl or *.jsonl.gz below {path}: give labelled texts as --data")
    return found


def _read_file(path: Path, unusable: Unusable) -> Iterator[Numbered]:
    number = 0
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as lines:
        while True:
            number += 1
            try:
                line = _read_line(lines)
            except (OSError, EOFError, zlib.error):  # what gzip says of a damaged or truncated file
                unusable.add(BadLine(path.name, number, "the file is damaged from here on; fetch it again"))
                return
            if line == b"":
                return
            if line is None:
                unusable.add(BadLine(path.name, number, f"longer than {MAX_LINE_BYTES} bytes"))
            elif not line.isspace():
                row = _parse(line)
                if isinstance(row, LabelledRow):
                    yield Numbered(row, path.name, number)
                else:
                    unusable.add(BadLine(path.name, number, row))


def _read_line(lines: gzip.GzipFile | BufferedReader) -> bytes | None:
    """The next line, nothing at the end, None for a line that is too long and was skipped."""
    line = lines.readline(MAX_LINE_BYTES)
    if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line
    while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass
    return None


def _parse(line: bytes) -> LabelledRow | str:
    """The row, or what is wrong with it, without its content."""
    try:
        return LabelledRow.model_validate_json(line)
    except ValidationError as error:
        problem: Mapping[str, object] = dict(error.errors(include_input=False, include_url=False)[0])
        where = problem["loc"]
        name = str(where[0]) if isinstance(where, tuple) and where else "line"
        return f"{name}: {str(problem['msg']).removeprefix('Value error, ')}"
