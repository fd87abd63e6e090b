"""Files of labelled texts or images in, rows out as the worker would get them; a line that cannot be used is named.

Any file of JSON lines will do whose rows have `labels`, and `text` or `image`: the path of an image's own file, from
the folder of the file of lines and nowhere outside of it. What else is known is optional: `id`, `role` (post), `source`
(the file's name), `prompt`, `locale` or `lang`, `groups`, `silver`, `unsafe`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from export.data.content import Content, Text, event_of, read_picture
from export.data.dataset import BadLine
from export.errors import ExportError
from export.progress import Say
from stream.bundle.manifest import Modality
from stream.scoring.bare import PictureError

__all__ = [
    "MAX_CHUNK_ROWS",
    "MAX_ROWS",
    "Asking",
    "LabelledRow",
    "Numbered",
    "Unusable",
    "bounded",
    "chunks",
    "named_first",
    "read_rows",
    "tell_unusable",
]

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest line read: four times the largest record that Kafka takes by default. What is longer is skipped."""

MAX_ROWS = 1_000_000
"""Most rows of one evaluation: their scores and labels, some 300 bytes each, stay in memory; the rest does not."""

MAX_CHUNK_ROWS = 1024
"""Rows that are scored together, as in a worker."""

MAX_CHUNK_BYTES = 4 * 1024 * 1024
"""Of their texts or images, after which a chunk ends: as events they are some five times in memory, whatever their
number. Images are decoded one by one, so more of them together would gain nothing."""

MAX_NAMED = 1000
"""Unusable lines that are named; those after it are counted only."""

_SAID = 5
"""Unusable lines that are named on the terminal."""

Name = Annotated[str, Field(min_length=1, max_length=128)]


class LabelledRow(BaseModel):
    """One line: a labelled text, or where a labelled image is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Annotated[str, Field(min_length=1)] | None = None
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The path of its file, from the folder of the file of lines."""
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
    def _check_together(self) -> LabelledRow:
        if (self.text is None) == (self.image is None):
            raise ValueError("has neither text nor image" if self.text is None else "has both text and image; give one")
        harmful = sorted(harm for harm, label in self.labels.items() if label == 1)
        if self.unsafe == 0 and harmful:
            raise ValueError(f"unsafe is 0, but {harmful[0]} is 1")
        return self

    @property
    def modality(self) -> Modality:
        """Which of the two it is."""
        return "image" if self.text is None else "text"


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
    """A row, what it labels, and where it stands."""

    row: LabelledRow
    content: Content
    file: str
    line: int

    def event(self) -> bytes:
        """The record that a producer would send for it, without its labels and groups."""
        row = self.row
        return event_of(self.content, id=str(self.line), role=row.role, prompt=row.prompt, locale=row.locale)


@dataclass(frozen=True, slots=True)
class Asking:
    """The model that rows are read for."""

    name: str
    modality: Modality
    max_event_bytes: int
    """Of an event that it is given; an image's file that has more is not read."""


def read_rows(paths: Sequence[Path], unusable: Unusable, *, asking: Asking) -> Iterator[Numbered]:
    """Yield the rows of `*.jsonl` and `*.jsonl.gz` files, or of those in folders, and count in `unusable` the rest.

    An image is read when its row is asked for. Raises `ExportError` for a path that is not there or cannot be opened,
    before the first row, and for a text where the model reads images, or an image where it reads texts.
    """
    files = [file for path in paths for file in _files(path)]
    for path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ExportError(f"cannot read {path}: {error.strerror}; check --data") from None
    for path in files:
        yield from _read_file(path, unusable, asking)


def bounded(rows: Iterable[Numbered]) -> Iterator[Numbered]:
    """The same rows; `ExportError` where they are more than one evaluation can hold."""
    for count, numbered in enumerate(rows):
        if count == MAX_ROWS:
            raise ExportError(f"more than {MAX_ROWS:,} labelled rows: give fewer files, or a sample of them")
        yield numbered


def chunks(rows: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    """The same rows, as many at a time as are scored together, and none read ahead."""
    chunk: list[Numbered] = []
    size = 0
    for numbered in rows:
        chunk.append(numbered)
        size += numbered.content.held_bytes
        if len(chunk) == MAX_CHUNK_ROWS or size >= MAX_CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def tell_unusable(unusable: Unusable, say: Say) -> None:
    """Say how many lines could not be used, and name the first of them."""
    if unusable.count:
        say(f"{unusable.count:,} lines could not be used:")
        for bad in unusable.named[:_SAID]:
            say(f"  line {bad.line} of {bad.file}: {bad.why}")


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
        raise ExportError(f"there is no *.jsonl or *.jsonl.gz below {path}: give labelled rows as --data")
    return found


def _read_file(path: Path, unusable: Unusable, asking: Asking) -> Iterator[Numbered]:
    folder = path.parent.resolve()
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
                try:
                    row = _parse(line)
                    _refuse_other(row, asking, f"line {number} of {path.name}")
                    content = _content(row, folder, asking)
                except _UnusableError as error:
                    unusable.add(BadLine(path.name, number, str(error)))
                    continue
                yield Numbered(row, content, path.name, number)


def _read_line(lines: gzip.GzipFile | BufferedReader) -> bytes | None:
    """The next line, nothing at the end, None for a line that is too long and was skipped."""
    line = lines.readline(MAX_LINE_BYTES)
    if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
        return line
    while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass
    return None


class _UnusableError(Exception):
    """What is wrong with a line, without its content."""


def _parse(line: bytes) -> LabelledRow:
    try:
        return LabelledRow.model_validate_json(line)
    except ValidationError as error:
        problem: Mapping[str, object] = dict(error.errors(include_input=False, include_url=False)[0])
        where = problem["loc"]
        name = str(where[0]) if isinstance(where, tuple) and where else "line"
        raise _UnusableError(f"{name}: {str(problem['msg']).removeprefix('Value error, ')}") from None


def _refuse_other(row: LabelledRow, asking: Asking, where: str) -> None:
    if row.modality != asking.modality:
        raise ExportError(
            f"{where} labels {_ONE[row.modality]}, but {asking.name} reads {asking.modality}s: give it lines that have "
            f"`{asking.modality}`"
        )


_ONE: Mapping[Modality, str] = {"text": "a text", "image": "an image"}


def _content(row: LabelledRow, folder: Path, asking: Asking) -> Content:
    if row.image is None:
        return Text(row.text or "")
    try:
        return read_picture(folder, row.image, max_bytes=asking.max_event_bytes)
    except PictureError as error:
        raise _UnusableError(f"image: {error}") from None
