"""YAML that people write by hand: read within bounds and without surprises, every value knowing the line it is on.

This is the only module that knows YAML. What it reads is plain data: no tags, no anchors and aliases (a few lines of
them expand to gigabytes), no duplicate keys (the last would win in silence), keys that are text. Plain words follow the
core schema of YAML 1.2, so that `no` is the Norwegian language and not false, and `1e-3` is a number.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from stream.errors import ConfigError, MappingError, PolicyError, RecipeError

__all__ = ["Document", "FieldPath", "Problem", "Section", "did_you_mean", "digest", "load", "read"]

# A policy of 500 overlays is about 60 kB; a dense file of this size takes about half a second to read.
MAX_BYTES = 128 * 1024
# Policies and mappings nest four deep; the bound keeps recursion far from the interpreter's limit.
MAX_DEPTH = 16
# More than a screen of problems is not read.
MAX_PROBLEMS = 40

FieldPath = tuple[str | int, ...]
S = TypeVar("S", bound=BaseModel)
What = Literal["policy", "mapping", "recipe", "label map", "template file", "templates"]

_ERRORS: Mapping[What, type[ConfigError]] = {
    "policy": PolicyError,
    "mapping": MappingError,
    "recipe": RecipeError,
    "label map": ConfigError,
    "template file": ConfigError,
    "templates": ConfigError,
}

_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\Z")
_PLAIN_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?\Z")
_PLAIN_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Section(BaseModel):
    """Base of the sections a hand-written file has: no field that nobody knows, and none left empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _has_a_value(cls, value: object) -> object:
        if value is None:
            raise ValueError("has no value; fill it in or remove the field")
        return value


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the value at `path`; the empty path is the whole file."""

    path: FieldPath
    message: str


@dataclass(frozen=True, slots=True)
class Document:
    """One file as read: its data, the digest of its bytes, and where each value stands."""

    name: str
    """The file's path, or `what` it is where it came as bytes: the first word of every message."""
    data: dict[str, Any]  # Any: whatever YAML says, until a schema has looked at it
    digest: str
    """`sha256:` and the hex digest of the bytes."""
    lines: Mapping[FieldPath, int]
    error: type[ConfigError]

    def line(self, path: Iterable[str | int]) -> int:
        """The 1-based line of the value at `path`, or of the nearest value around it where there is none."""
        return self.lines[self._known(tuple(path))]

    def validate(self, schema: type[S]) -> S:
        """The data as `schema` reads it. Raises the file's `ConfigError` naming line and field of all that is wrong."""
        try:
            return schema.model_validate(self.data)
        except ValidationError as error:
            raise self.refusal(self.problems(error, schema)) from None

    def problems(self, error: ValidationError, schema: type[BaseModel]) -> list[Problem]:
        """What pydantic found wrong when `schema` validated `data`, in this file's words."""
        return [
            Problem(self._known(problem["loc"]), _message(dict(problem), schema))
            for problem in error.errors(include_url=False)
        ]

    def refusal(self, problems: Iterable[Problem]) -> ConfigError:
        """The error to raise for `problems`: one line for each, `file:line: field: message`, in the file's order."""
        located = sorted((self.line(problem.path), _dotted(problem.path), problem.message) for problem in problems)
        lines = [f"{self.name}:{line}: {field}: {message}" for line, field, message in dict.fromkeys(located)]
        if len(lines) > MAX_PROBLEMS:
            lines[MAX_PROBLEMS:] = [f"... and {len(lines) - MAX_PROBLEMS} more"]
        return self.error("\n".join(lines))

    def _known(self, path: FieldPath) -> FieldPath:
        """The longest beginning of `path` that the file has a value for."""
        while path not in self.lines:
            path = path[:-1]
        return path


def load(source: Path | bytes, *, what: What, name: str | None = None) -> Document:
    """Read a file, or the bytes of one; `name` is what messages call it, by default its path or `what` it is.

    Raises:
        ConfigError: a PolicyError, a MappingError or a RecipeError where it is one: the file cannot be read, is too
            large, or is not the plain YAML described above. The text names file and line.
    """
    error = _ERRORS[what]
    name = name or (what if isinstance(source, bytes) else str(source))
    content = source if isinstance(source, bytes) else read(source, what=what)
    if len(content) > MAX_BYTES:
        raise error(f"{name}: a {what} may have {MAX_BYTES} bytes at most, this has more; split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        raise error(f"{name}:{line}: byte {wrong.start} is not UTF-8; save the file as UTF-8") from None
    lines: dict[FieldPath, int] = {(): 1}
    try:
        data = _Reader(text, lines).document()
    except yaml.reader.ReaderError as wrong:
        line = text.count("\n", 0, wrong.position) + 1
        raise error(f"{name}:{line}: a control character, which YAML does not allow") from None
    except yaml.MarkedYAMLError as wrong:
        raise error(f"{name}:{_line(wrong.problem_mark)}: {wrong.problem}") from None
    return Document(name=name, data=data, digest=digest(content), lines=lines, error=error)


def read(path: Path, *, what: What) -> bytes:
    """The bytes of a file: one more than is allowed at most, enough to see that it is too large. Raises as `load`."""
    try:
        if path.exists() and not path.is_file():
            raise _ERRORS[what](f"{path}: not a file; name the {what} file itself")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as wrong:
        raise _ERRORS[what](f"{path}: cannot read the {what}: {wrong.strerror}") from None


def digest(content: bytes) -> str:
    """`sha256:` and the hex digest."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """`; did you mean ...?` where one of the choices looks like the word, else nothing."""
    close = difflib.get_close_matches(str(word).lower(), list(choices), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


class _Reader:
    """Builds plain data from the parser's events; nothing is constructed by tag, so nothing can be."""

    def __init__(self, text: str, lines: dict[FieldPath, int]) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._lines = lines

    def document(self) -> dict[str, Any]:
        """The one mapping that the file is."""
        next(self._events)  # the start of the stream
        start = next(self._events)
        if not isinstance(start, yaml.DocumentStartEvent):
            _refuse("the file is empty", start)
        root = next(self._events)
        if not isinstance(root, yaml.MappingStartEvent):
            _refuse("the file must be fields and values, `name: value`", root)
        data = self._value(root, ())
        next(self._events)  # the end of the document
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            _refuse("a second document begins here; a file holds one", after)
        return data  # type: ignore[no-any-return]  # a mapping, by the check of `root`

    def _value(self, event: yaml.Event, path: FieldPath) -> Any:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            _refuse("anchors and aliases (`&`, `*`) are not used here; write the value out", event)
        if getattr(event, "tag", None) is not None:
            _refuse("tags (`!`) are not used here; quote the value if it begins with one", event)
        self._lines.setdefault(path, _line(event.start_mark))
        if isinstance(event, yaml.ScalarEvent):
            return _plain(event.value) if event.implicit[0] else event.value
        if len(path) >= MAX_DEPTH:
            _refuse(f"nested more than {MAX_DEPTH} deep", event)
        return self._list(path) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(path)

    def _list(self, path: FieldPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: FieldPath) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key := self._value(event, path), str):
                _refuse("the name of a field must be text; quote it", event)
            if key in fields:
                _refuse(f"`{key}` is here for the second time, first on line {self._lines[*path, key]}", event)
            self._lines[*path, key] = _line(event.start_mark)
            fields[key] = self._value(next(self._events), (*path, key))
        return fields


def _plain(word: str) -> str | float | bool | None:
    """The value of a word without quotes, by YAML 1.2's core schema (10.3), without octal, hex, .inf and .nan."""
    if word in _PLAIN_WORDS:
        return _PLAIN_WORDS[word]
    if _PLAIN_INT.match(word):
        return int(word)
    return float(word) if _PLAIN_FLOAT.match(word) else word


def _refuse(problem: str, event: yaml.Event) -> NoReturn:
    mark: Any = event.start_mark  # Any: the stubs have two classes of marks where there is one
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _line(mark: Any) -> int:
    """1-based; `Any` because the stubs allow no mark at all, which the parser never does."""
    return int(mark.line) + 1


def _dotted(path: FieldPath) -> str:
    """`overlays[2].harms.hate`, as one would say it."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return steps.removeprefix(".") or "the file"


def _message(problem: dict[str, Any], schema: type[BaseModel]) -> str:
    """One of pydantic's problems in our words, with a guess at what was meant."""
    kind, name = problem["type"], str(problem["loc"][-1]) if problem["loc"] else ""
    if kind == "extra_forbidden":
        return f"there is no field of this name here{did_you_mean(name, _field_names(schema))}"
    if kind == "missing":
        return f"needs a field `{name}`"
    if kind in {"dict_type", "model_type"}:
        return "must be fields and values, `name: value`"
    if kind in {"enum", "literal_error"} and (choices := re.findall(r"'([^']*)'", problem["ctx"]["expected"])):
        return f"must be one of {', '.join(choices)}{did_you_mean(problem['input'], choices)}"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    return f"{message}; quote it" if kind == "string_type" and isinstance(problem["input"], int | float) else message


def _field_names(schema: type[BaseModel]) -> set[str]:
    """Every field name anywhere in a schema."""
    described = schema.model_json_schema()
    return {name for part in (described, *described.get("$defs", {}).values()) for name in part.get("properties", {})}
