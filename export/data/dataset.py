"""Folders of labelled text in, columns out; a line that cannot be used is counted and named, never guessed at."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from export.errors import ExportError
from stream.bundle.manifest import TextForm
from stream.scoring.form import compose

__all__ = ["HARMS", "BadLine", "Dataset", "dataset_of", "join", "read_dataset"]

HARMS = ("sexual", "hate", "harassment", "dangerous", "violence", "self_harm")
"""Order of the label columns, and with it of the model's logits."""

_MAX_BAD_SHARE = 0.01
"""More bad lines than this mean that the folder is not what it is taken for, so nothing is trained on it."""

Label = Literal[0, 1]


class _Labels(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sexual: Label | None
    hate: Label | None
    harassment: Label | None
    dangerous: Label | None
    violence: Label | None
    self_harm: Label | None


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    role: Literal["prompt", "output", "post"]
    labels: _Labels
    split: str
    groups: tuple[str, ...] = ()
    silver: Annotated[bool, BeforeValidator(bool)] = False  # sources write 1, true, null or nothing
    unsafe: Label | None = None
    prompt: str | None = None

    def label_values(self) -> list[float]:
        values: list[Label | None] = [getattr(self.labels, harm) for harm in HARMS]
        return [np.nan if value is None else float(value) for value in values]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out, and why."""

    file: str
    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """n labelled texts as columns; row i of every column is the same text."""

    texts: tuple[str, ...]
    labels: NDArray[np.float32]
    """(n, h) float32: 1 harmful, 0 harmless, NaN unknown, in the order of `HARMS`."""
    sources: NDArray[np.str_]
    """(n,) name of the data set each text is from."""
    roles: NDArray[np.str_]
    """(n,) prompt, output or post."""
    silver: NDArray[np.bool_]
    """(n,) whether a rule, a keyword or another model gave the labels, not a person."""
    groups: tuple[tuple[str, ...], ...]
    """(n) groups that each text is about, as `axis:group`; by annotators, or by keyword where there were none."""
    unsafe: NDArray[np.float32]
    """(n,) float32: 1 harmful in some way, known to `labels` or not, 0 harmful in none, NaN unknown."""
    prompts: tuple[str, ...]
    """(n) what each text answers; empty where it answers nothing."""
    bad: tuple[BadLine, ...]
    held_out: int
    """Lines of another `split` than train, left for others to test on."""

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def human_labels(self) -> NDArray[np.float32]:
        """(n, h) float32: `labels`, NaN also where no person gave them."""
        return np.where(self.silver[:, None], np.float32(np.nan), self.labels)

    def as_read(self, form: TextForm) -> list[str]:
        """The n texts as a model of this form reads them, with role and prompt."""
        return compose(form, self.texts, roles=self.roles.tolist(), prompts=self.prompts)

    def take(self, rows: NDArray[np.int64]) -> Dataset:
        """The rows of these numbers, in this order."""
        return replace(
            self,
            texts=tuple(self.texts[row] for row in rows.tolist()),
            labels=self.labels[rows],
            sources=self.sources[rows],
            roles=self.roles[rows],
            silver=self.silver[rows],
            groups=tuple(self.groups[row] for row in rows.tolist()),
            unsafe=self.unsafe[rows],
            prompts=tuple(self.prompts[row] for row in rows.tolist()),
        )


def join(first: Dataset, second: Dataset) -> Dataset:
    """The rows of both, those of `first` first."""
    return Dataset(
        texts=first.texts + second.texts,
        labels=np.concatenate([first.labels, second.labels]),
        sources=np.concatenate([first.sources, second.sources]),
        roles=np.concatenate([first.roles, second.roles]),
        silver=np.concatenate([first.silver, second.silver]),
        groups=first.groups + second.groups,
        unsafe=np.concatenate([first.unsafe, second.unsafe]),
        prompts=first.prompts + second.prompts,
        bad=first.bad + second.bad,
        held_out=first.held_out + second.held_out,
    )


def read_dataset(folder: Path) -> Dataset:
    """Read every `*.jsonl.gz` and `*.jsonl` below `folder`, in the order of their names.

    Raises `ExportError` if there is none, if nothing is in them, or if more than one line in a hundred is bad.
    """
    paths = sorted([*folder.rglob("*.jsonl.gz"), *folder.rglob("*.jsonl")])
    if not paths:
        raise ExportError(f"there is no *.jsonl.gz below {folder}: give the folder of labelled text as --data")
    rows: list[_Row] = []
    bad: list[BadLine] = []
    for item in (item for path in paths for item in _read_file(path)):
        if isinstance(item, BadLine):
            bad.append(item)
        else:
            rows.append(item)
    _refuse_bad(bad, len(rows), folder)
    return _to_columns(rows, bad)


def dataset_of(lines: Iterable[bytes], *, name: str) -> Dataset:
    """Lines of such a file that were made, not read, and what to call them. Raises `ExportError` if one is bad."""
    items = [_parse(line, name, number) for number, line in enumerate(lines, start=1)]
    bad = next((item for item in items if isinstance(item, BadLine)), None)
    if bad is not None:
        raise ExportError(f"line {bad.line} of {name} cannot be used: {bad.why}")
    return _to_columns([item for item in items if isinstance(item, _Row)], [])


def _refuse_bad(bad: list[BadLine], good: int, folder: Path) -> None:
    if not good or len(bad) > _MAX_BAD_SHARE * (good + len(bad)):
        first = f"; the first is line {bad[0].line} of {bad[0].file}: {bad[0].why}" if bad else ""
        raise ExportError(f"{len(bad)} of {good + len(bad)} lines below {folder} cannot be used{first}")


def _read_file(path: Path) -> Iterator[_Row | BadLine]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield _parse(line, path.name, number)
    except (OSError, EOFError) as error:  # gzip's word for a damaged or truncated file
        raise ExportError(f"cannot read {path}: {error}; fetch the data again") from None


def _parse(line: bytes, file: str, number: int) -> _Row | BadLine:
    try:
        return _Row.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        return BadLine(file, number, f"{'.'.join(map(str, problem['loc'])) or 'line'}: {problem['msg']}")


def _to_columns(rows: list[_Row], bad: list[BadLine]) -> Dataset:
    kept = [row for row in rows if row.split == "train"]
    return Dataset(
        texts=tuple(row.text for row in kept),
        labels=np.array([row.label_values() for row in kept], dtype=np.float32).reshape(-1, len(HARMS)),
        sources=np.array([row.source for row in kept], dtype=np.str_),
        roles=np.array([row.role for row in kept], dtype=np.str_),
        silver=np.array([row.silver for row in kept], dtype=np.bool_),
        groups=tuple(row.groups for row in kept),
        unsafe=np.array([np.nan if row.unsafe is None else row.unsafe for row in kept], dtype=np.float32),
        prompts=tuple(row.prompt or "" for row in kept),
        bad=tuple(bad),
        held_out=len(rows) - len(kept),
    )
