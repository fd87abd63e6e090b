"""Mapping files: what each source gives, what a record lacks, and what is wrong with a file, by line."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stream.errors import MappingError
from stream.mapping import Mapping, Unmapped, load_mapping
from stream.mapping.path import parse_path
from tests.records import Record

HEAD = "schema_version: 1\nname: m\nkind: event\nfields:\n"
REQUIRED = "  id: id\n  created_at: {record: timestamp}\n  role: role\n  text: text\n"


def mapping(fields: str) -> Mapping:
    """A mapping with these fields and the required ones, each from the field of the same name."""
    required = [line for line in REQUIRED.splitlines() if line.split(":")[0] not in fields]
    return load_mapping((HEAD + "\n".join([fields, *required])).encode(), name="m.yaml")


def applied(fields: str, **document: Any) -> dict[str, Any] | Unmapped:
    """What a mapping makes of a record."""
    document = {"id": "e-1", "role": "post", "text": "hello"} | document
    return mapping(fields).apply(document, Record(b"{}", offset=7, timestamp=1767268800123, key=b"k"))


def field(fields: str, name: str, **document: Any) -> Any:
    """One field that a mapping gives."""
    found = applied(fields, **document)
    assert isinstance(found, dict)
    return found.get(name)


def lack(fields: str, **document: Any) -> str:
    """Why a record does not map."""
    found = applied(fields, **document)
    assert isinstance(found, Unmapped)
    return found.error


# --- Paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a", ("a",)),
        ("a.b.c", ("a", "b", "c")),
        ("a[0].b[-1]", ("a", 0, "b", -1)),
        ("[2]", (2,)),
        ("[2].a", (2, "a")),
        ('"a.b".c', ("a.b", "c")),
        ('a."[0]"', ("a", "[0]")),
        ("$a-b_c/d", ("$a-b_c/d",)),
        ("größe", ("größe",)),
        ("0", ("0",)),
    ],
)
def test_a_path_is_names_and_indices(path: str, steps: tuple[str | int, ...]) -> None:
    """Dots and brackets lead inwards, quotes hold a name that has either."""
    assert parse_path(path).steps == steps


@pytest.mark.parametrize(
    "path",
    ["", ".", "a.", ".a", "a..b", "a b", "a[", "a[x]", "a[]", "a[0]b", '"a', '""', "a]", '"a"b', ".".join("a" * 17)],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    """A path with a slip in it is refused rather than guessed at."""
    with pytest.raises(ValueError, match="must be a path"):
        parse_path(path)


@pytest.mark.parametrize(
    ("path", "document", "found"),
    [
        ("a", {"a": 1}, 1),
        ("a", {"b": 1}, None),
        ("a", [1], None),
        ("a", None, None),
        ("a.b", {"a": {"b": 1}}, 1),
        ("a.b", {"a": None}, None),
        ("a.b", {"a": "b"}, None),
        ("a.b", {"a": 5}, None),
        ("a[0]", {"a": ["x"]}, "x"),
        ("a[-1]", {"a": [1, 2]}, 2),
        ("a[1]", {"a": ["x"]}, None),
        ("a[0]", {"a": "text"}, None),
        ("a[0].b", {"a": ["text"]}, None),
        ("a[0]", {"a": {"0": 1}}, None),
        ("[0].a", [{"a": 1}], 1),
    ],
)
def test_a_path_leads_to_a_value_or_to_nothing(path: str, document: Any, found: Any) -> None:
    """Where a step has no such field or item, or what is there has neither, there is nothing."""
    assert parse_path(path).finder()(document) == found


# --- Sources ---------------------------------------------------------------------------------------------------------


def test_text_is_taken_as_it_is_and_integers_in_decimal() -> None:
    """Text is untouched, also where it is empty; an integer becomes its digits."""
    assert field("  author: a", "author", a=" ü ") == " ü "
    assert field("  author: a", "author", a="") == ""
    assert field("  author: a", "author", a=-12) == "-12"


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": 1}, 10**30])
def test_other_values_are_no_text(value: object) -> None:
    """What is neither text nor an integer of 64 bits does not map, and the error has the path and not the value."""
    assert lack("  author: a.b", a={"b": value}) == "`a.b`: should be text"


def test_a_default_stands_in_for_nothing_and_null() -> None:
    """Without a default the field is left out."""
    assert field("  surface: {path: a, default: chat}", "surface") == "chat"
    assert field("  surface: {path: a, default: chat}", "surface", a=None) == "chat"
    assert field("  surface: a", "surface", a=None) is None


def test_values_are_looked_up_as_json_writes_them() -> None:
    """A table has text, integers, true and false; what it does not name becomes `other`, or does not map."""
    table = '  surface: {path: a, values: {x: ex, "1": one, "true": yes}%s}'
    for value, word in (("x", "ex"), (1, "one"), ("1", "one"), (True, "yes"), ("true", "yes")):
        assert field(table % "", "surface", a=value) == word
    assert field(table % ", other: rest, default: none", "surface", a="y") == "rest"
    assert field(table % ", other: rest, default: none", "surface") == "none"
    assert lack(table % "", a="secret") == "`a`: its value is not among `values`, and there is no `other`"
    assert lack(table % "", a=[1]) == "`a`: should be text"


def test_a_constant_is_the_same_for_every_record() -> None:
    """A constant needs nothing in the record."""
    assert field("  role: {constant: output}", "role") == "output"


def test_fields_of_the_kafka_record_can_be_taken() -> None:
    """Key, offset, timestamp and the digest of the value are those of the record that carries it."""
    assert field("  author: {record: key}", "author") == "k"
    assert field("  id: {record: offset}", "id") == "7"
    assert field("  id: {record: digest}", "id") == "sha256:" + hashlib.sha256(b"{}").hexdigest()
    assert field("  created_at: {record: timestamp}", "created_at") == datetime(2026, 1, 1, 12, 0, 0, 123000, UTC)


def test_a_record_without_key_or_timestamp_has_none() -> None:
    """A key that is absent leaves the field out, one that is no text does not map, and a time is required."""
    found = mapping("  author: {record: key}")
    document = {"id": "a", "role": "post", "text": "x"}
    fields = found.apply(document, Record(b"{}", timestamp=1))
    assert isinstance(fields, dict)
    assert "author" not in fields
    assert found.apply(document, Record(b"{}", timestamp=1, key=b"\xff")) == Unmapped(
        "the record's key: should be UTF-8"
    )
    unmapped = found.apply(document, Record(b"{}"))
    assert unmapped == Unmapped("nothing for `created_at`, where the mapping says it is")


@pytest.mark.parametrize(
    ("how", "value", "seconds"),
    [
        ("rfc3339", "2026-01-01T12:00:00Z", 1767268800.0),
        ("rfc3339", "2026-01-01T13:30:00.5+01:30", 1767268800.5),
        ("epoch_s", 1767268800, 1767268800.0),
        ("epoch_s", 1767268800.25, 1767268800.25),
        ("epoch_ms", 1767268800123, 1767268800.123),
        ("epoch_ms", -1, -0.001),
    ],
)
def test_times_are_read_as_the_file_says(how: str, value: object, seconds: float) -> None:
    """Seconds, milliseconds and RFC 3339 text give the same aware time."""
    found = field(f"  created_at: {{path: a, time: {how}}}", "created_at", a=value)
    assert found.timestamp() == seconds
    assert found.tzinfo is not None


@pytest.mark.parametrize(
    ("how", "value", "problem"),
    [
        ("rfc3339", "2026-01-01T12:00:00", "should be RFC 3339 text with an offset"),
        ("rfc3339", "20260101", "should be RFC 3339 text with an offset"),
        ("rfc3339", "now", "should be RFC 3339 text with an offset"),
        ("rfc3339", 1767268800, "should be RFC 3339 text with an offset"),
        ("epoch_s", "1767268800", "should be a number"),
        ("epoch_s", True, "should be a number"),
        ("epoch_s", 10**30, "is no time that a calendar has"),
        ("epoch_ms", 10**300, "is no time that a calendar has"),
        ("epoch_ms", 10**400, "is no time that a calendar has"),
        ("epoch_ms", -1e300, "is no time that a calendar has"),
    ],
)
def test_what_is_no_time_does_not_map(how: str, value: object, problem: str) -> None:
    """A time in another form than the file says does not map; nothing is guessed from its size."""
    assert lack(f"  created_at: {{path: a.b, time: {how}}}", a={"b": value}) == f"`a.b`: {problem}"


def test_a_time_that_is_absent_is_named() -> None:
    """Required fields that a record lacks are named."""
    for how in ("rfc3339", "epoch_s"):
        error = lack(f"  created_at: {{path: a, time: {how}}}")
        assert error == "nothing for `created_at`, where the mapping says it is"


def test_groups_come_by_axis() -> None:
    """One name or a list of them, through a table or not; axes without any are left out."""
    fields = "  groups:\n    age: user.age\n    gender: {path: user.gender, values: {f: women, m: men}}"
    assert field(fields, "groups", user={"age": 30, "gender": ["f", "x"]}) == {"age": ["30"], "gender": ["women"]}
    assert field(fields, "groups", user={"gender": "x", "age": []}) is None
    assert field(fields, "groups") is None
    assert lack(fields, user={"age": [["old"]]}) == "`user.age`: should be text"


def test_groups_come_by_labels_that_name_their_axis() -> None:
    """Labels are split once, and add to an axis that has a source of its own."""
    fields = '  groups:\n    "*": {path: tags, split: ":"}\n    age: age'
    found = field(fields, "groups", tags=["gender:women", "gender:men", "age:old", "a:b:c"], age="30")
    assert found == {"age": ["30", "old"], "gender": ["women", "men"], "a": ["b:c"]}
    assert field(fields, "groups", tags=[]) is None
    assert lack(fields, tags=["gender:women", "old"]) == "`tags`: should be labels of the form axis:group"


def test_nested_fields_without_values_are_left_out() -> None:
    """A generator or image of which the record has nothing is none; of which it has a part, that part."""
    fields = "  generator: {name: model, version: release}"
    assert field(fields, "generator", model="m", release="1") == {"name": "m", "version": "1"}
    assert field(fields, "generator", release="1") == {"version": "1"}
    assert field(fields, "generator") is None


@pytest.mark.parametrize("document", [None, 1, "text", [], [{"id": "a"}], True])
def test_documents_that_are_no_object_do_not_map(document: Any) -> None:
    """JSON of another kind lacks the first required field."""
    assert isinstance(mapping("").apply(document, Record(b"", timestamp=1)), Unmapped)


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kind: evnt", "m.yaml:1: kind: must be one of event, decision; did you mean `event`?"),
        ("kind: [event]", "m.yaml:1: kind: must be one of event, decision"),
        ("name: x", "m.yaml:1: kind: must be one of event, decision"),
        (HEAD.replace("1", "2") + REQUIRED, "m.yaml:1: schema_version: this release reads schema version 1, not 2"),
        (
            HEAD + REQUIRED + "  txt: a",
            "m.yaml:9: fields.txt: there is no field of this name here; did you mean `text`?",
        ),
        (HEAD + "  id: id\n  text: a\n  role: b", "m.yaml:4: fields: needs a field `created_at`"),
        (HEAD + REQUIRED.replace("  text: text\n", ""), "m.yaml:4: fields: needs `text`, `image` or both"),
        (HEAD + REQUIRED + "  surface: 'a..b'", "m.yaml:9: fields.surface: must be a path such as"),
        (HEAD + REQUIRED + "  surface: {path: 5}", "m.yaml:9: fields.surface.path: must be a path; quote it"),
        (HEAD + REQUIRED + "  surface:", "m.yaml:9: fields.surface: has no value"),
        (HEAD + REQUIRED + "  surface: {}", "m.yaml:9: fields.surface: needs one of `path`, `constant` and `record`"),
        (HEAD + REQUIRED + "  surface: {path: a, constant: b}", "m.yaml:9: fields.surface: needs one of `path`"),
        (HEAD + REQUIRED + "  surface: {constant: a, default: b}", "m.yaml:9: fields.surface: `values`, `other` and"),
        (HEAD + REQUIRED + "  surface: {path: a, other: b}", "m.yaml:9: fields.surface: `other` goes with `values`"),
        (
            HEAD + REQUIRED + "  surface: {path: a, values: {x: 1}}",
            "m.yaml:9: fields.surface.values.x: should be a valid",
        ),
        (HEAD + REQUIRED + "  locale: {record: time}", "m.yaml:9: fields.locale.record: must be one of key, offset,"),
        (
            HEAD + REQUIRED.replace("role: role", "role: {constant: outptu}"),
            "m.yaml:7: fields.role.constant: must be one of prompt, output, post; did you mean `output`?",
        ),
        (
            HEAD + REQUIRED.replace("role: role", "role: {path: a, values: {x: post, y: promt}}"),
            "m.yaml:7: fields.role.values.y: must be one of prompt, output, post; did you mean `prompt`?",
        ),
        (
            HEAD + REQUIRED + "  image: {url: a, media_type: {constant: image/jpg}}",
            "m.yaml:9: fields.image.media_type.constant: must be one of image/png",
        ),
        (
            HEAD + REQUIRED.replace("{record: timestamp}", "{path: a, time: epoch_us}"),
            "m.yaml:6: fields.created_at.time: must be one of rfc3339, epoch_s, epoch_ms; did you mean `epoch_s`?",
        ),
        (
            HEAD + REQUIRED.replace("{record: timestamp}", "{record: timestamp, time: epoch_s}"),
            "m.yaml:6: fields.created_at: `time` goes with `path`",
        ),
        (HEAD + REQUIRED.replace("{record: timestamp}", "{}"), "m.yaml:6: fields.created_at: needs one of `path` and"),
        (HEAD + REQUIRED + '  groups: {"*": a}', "m.yaml:9: fields.groups.*: needs `split` where, and only where,"),
        (
            HEAD + REQUIRED + "  groups:\n    age: {path: a, split: ':'}",
            "m.yaml:10: fields.groups.age: needs `split` where",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_line(text: str, problem: str) -> None:
    """Every problem is said with file, line and field, and with what may have been meant."""
    with pytest.raises(MappingError) as refusal:
        load_mapping(text.encode(), name="m.yaml")
    assert any(line.startswith(problem) for line in str(refusal.value).splitlines())


def test_all_problems_are_said_at_once() -> None:
    """A file with several problems is mended in one go."""
    decisions = (
        "schema_version: 1\nname: d\nkind: decision\nfields:\n  created_at: {record: timestamp}\n"
        "  action: {path: a, default: blok}\n  decision_id: {record: offset}\n"
        "  harms: {hate: {path: h, values: {x: harmfull}}}"
    )
    with pytest.raises(MappingError) as refusal:
        load_mapping(decisions.encode(), name="d.yaml")
    assert [line.split(": ")[0] for line in str(refusal.value).splitlines()] == [f"d.yaml:{n}" for n in (5, 6, 7, 8)]


def test_a_mapping_has_the_digest_of_its_file(tmp_path: Path) -> None:
    """The digest is that of the bytes, so that a decision says which file mapped its event."""
    file = tmp_path / "m.yaml"
    file.write_text(HEAD + REQUIRED)
    found = load_mapping(file)
    assert found.digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert (found.name, found.kind) == (str(file), "event")
