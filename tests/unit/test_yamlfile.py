"""Hand-written YAML: plain data with lines, and every problem said in the file's words."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stream.errors import ConfigError, MappingError, PolicyError
from stream.yamlfile import Document, FieldPath, Problem, did_you_mean, load

TEXT = b"""\
name: default
harms:
  hate: {action: block, rate: 0.05}
  violence:
    action: label
overlays:
  - surface: chat
  - surface: [a,
      b]
"""


class Harm(BaseModel):
    """One entry of the schema below."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["label", "block"]
    rate: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("rate")
    @classmethod
    def _not_a_half(cls, rate: float) -> float:
        if rate == 0.5:
            raise ValueError("a half is no rate")
        return rate


class Schema(BaseModel):
    """A schema with a problem of every kind to offer."""

    harms: dict[str, Harm]


def refused(content: bytes) -> str:
    """The error of a file that is not read."""
    with pytest.raises(ConfigError) as caught:
        load(content, what="policy")
    return str(caught.value)


def problems(content: bytes) -> list[str]:
    """The lines of the error of a file that `Schema` does not accept."""
    document = load(content, what="policy")
    with pytest.raises(ValidationError) as caught:
        Schema.model_validate(document.data)
    return str(document.refusal(document.problems(caught.value, Schema))).splitlines()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("name",), 1),
        (("harms", "hate", "rate"), 3),
        (("harms", "violence"), 4),
        (("harms", "violence", "action"), 5),
        (("overlays", 1), 8),
        (("overlays", 1, "surface", 1), 9),
        (("harms", "hate", "absent", "deeper"), 3),
        (("nothing",), 1),
    ],
)
def test_every_value_knows_its_line(path: FieldPath, line: int) -> None:
    """A path has the line its value is on, and an absent one the line of the nearest value around it."""
    assert load(TEXT, what="policy").line(path) == line


def test_a_file_and_its_bytes_read_alike(tmp_path: Path) -> None:
    """A file gives the data and digest of its bytes, under its own name."""
    path = tmp_path / "policy.yaml"
    path.write_bytes(TEXT)
    from_file, from_bytes = load(path, what="policy"), load(TEXT, what="policy")
    assert (from_file.data, from_file.digest) == (from_bytes.data, from_bytes.digest)
    assert from_file.digest == "sha256:" + hashlib.sha256(TEXT).hexdigest()
    assert (from_file.name, from_bytes.name) == (str(path), "policy")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("010", "010"),
        ("9" * 19, "9" * 19),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5", -1.5),
        ("1e-3", 0.001),
        ("1.5E+2", 150.0),
        ("1e9999", "1e9999"),
        (".", "."),
        ("e3", "e3"),
        ("1:30", "1:30"),
        ("2026-11-20", "2026-11-20"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("<<", "<<"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_plain_words_follow_yaml_1_2(word: str, value: object) -> None:
    """A word without quotes is null, a boolean or a decimal number by YAML 1.2's core schema, and text otherwise."""
    read = load(f"value: {word}".encode(), what="policy").data["value"]
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**17), 10**17))
def test_numbers_survive(number: float) -> None:
    """Every number that Python writes is read back as it was."""
    assert load(f"value: {number!r}".encode(), what="policy").data["value"] == number


def test_a_byte_order_mark_is_no_content() -> None:
    """A file that begins with a byte order mark reads like one that does not."""
    assert load(b"\xef\xbb\xbfname: x", what="mapping").data == {"name": "x"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "policy:1: the file is empty"),
        (b"\n# nothing\n", "policy:3: the file is empty"),
        (b"- a", "policy:1: the file must be fields and values, `name: value`"),
        (b"word", "policy:1: the file must be fields and values, `name: value`"),
        (b"a: 1\nb:\n  c: 1\n  c: 2", "policy:4: `c` is here for the second time, first on line 3"),
        (b"a: 1\n2: x", "policy:2: the name of a field must be text; quote it"),
        (b"? [a]\n: 1", "policy:1: the name of a field must be text; quote it"),
        (b"a: 1\n---\nb: 2", "policy:2: a second document begins here; a file holds one"),
        (b"a: 1\nb: c: d", "policy:2: mapping values are not allowed here"),
        (b"a: [1,", "policy:1: expected the node content, but found '<stream end>'"),
        (b"a: 1\nb: \x07", "policy:2: a control character, which YAML does not allow"),
        (b"a: 1\nb: \xff", "policy:2: byte 8 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(content: bytes, expected: str) -> None:
    """A file that is not one mapping of plain values is refused, naming the line."""
    assert refused(content).startswith(expected)


def test_the_error_is_of_what_was_read() -> None:
    """A policy raises `PolicyError` and a mapping `MappingError`."""
    with pytest.raises(PolicyError):
        load(b"", what="policy")
    with pytest.raises(MappingError):
        load(b"", what="mapping")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file and a folder are refused by name."""
    with pytest.raises(PolicyError, match=r"absent\.yaml: cannot read the policy: No such file or directory"):
        load(tmp_path / "absent.yaml", what="policy")
    with pytest.raises(PolicyError, match="not a file; name the policy file itself"):
        load(tmp_path, what="policy")


def test_problems_speak_of_the_file() -> None:
    """What a schema finds is reported per field, in the file's order, with a guess where one is close."""
    assert problems(
        b"""\
harms:
  hate:
    rate: 1.5
    action: blok
  b: {action: block, rate: 0.5}
  c:
    rte: 0.1
"""
    ) == [
        "policy:3: harms.hate.rate: should be less than or equal to 1",
        "policy:4: harms.hate.action: must be one of label, block; did you mean `block`?",
        "policy:5: harms.b.rate: a half is no rate",
        "policy:6: harms.c: needs a field `action`",
        "policy:7: harms.c.rte: there is no field of this name here; did you mean `rate`?",
    ]
    assert problems(b"other: 1") == ["policy:1: the file: needs a field `harms`"]


def test_a_screen_of_problems_is_enough() -> None:
    """No more than 40 problems are listed; the rest are counted."""
    lines = problems(b"harms: {" + b", ".join(b"h%d: {}" % i for i in range(50)) + b"}")
    assert len(lines) == 41
    assert lines[-1] == "... and 10 more"


def test_a_problem_is_said_once() -> None:
    """Two findings of the same problem are one line."""
    document = load(TEXT, what="policy")
    assert str(document.refusal([Problem(("name",), "bad")] * 2)) == "policy:1: name: bad"


def test_a_list_item_is_named_by_its_index() -> None:
    """A field inside a list is written with the index in brackets."""
    document = load(TEXT, what="policy")
    assert str(document.refusal([Problem(("overlays", 1, "surface"), "bad")])) == "policy:8: overlays[1].surface: bad"


@pytest.mark.parametrize(("word", "hint"), [("blok", "; did you mean `block`?"), ("zzz", ""), (3, "")])
def test_a_guess_is_made_only_where_one_is_close(word: object, hint: str) -> None:
    """A word close to a choice gets a suggestion; anything else gets none."""
    assert did_you_mean(word, ["block", "label"]) == hint


def test_reading_never_fails_otherwise() -> None:
    """Any bytes are a document or a `ConfigError`, never another exception."""

    @given(st.binary(max_size=200) | st.text("ab:-[]{}#&*!|>'\"%@`?, \n\t01.e", max_size=60).map(str.encode))
    def check(content: bytes) -> None:
        try:
            document: Any = load(content, what="mapping")
        except MappingError as error:
            assert str(error).startswith("mapping:")  # noqa: PT017 - success is as good as this error
        else:
            assert isinstance(document, Document)

    check()
