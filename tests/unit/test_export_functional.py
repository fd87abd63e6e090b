"""Functional templates: what ships, how they are expanded, and which files are refused."""

import json
import re
from collections import Counter
from collections.abc import Set as AbstractSet
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from export.data.dataset import HARMS
from export.data.splits import text_digest
from export.errors import ExportError
from export.functional import FunctionalText, Library, expand, read_library, to_dataset, to_lines
from export.functional.library import MAX_PER_TEMPLATE

TERMS = """terms:
  - {group: "gender:women", people: "women", person: "a woman", adjective: "female"}
  - {group: "age:old", people: "old people", person: "an old person", adjective: "elderly"}
"""
TEMPLATE = """slots:
  insult: ["idiot", "fool"]
templates:
  - id: one
    function: insult
    harmful: [harassment]
    unknown: [hate]
    texts: ["You are {an_insult}.", "{People} say so."]
"""


@cache
def shipped() -> Library:
    return read_library()


@cache
def texts(*, evaluation_only: bool) -> tuple[FunctionalText, ...]:
    return expand(shipped(), evaluation_only=evaluation_only, per_template=100)


def library(folder: Path, templates: str = TEMPLATE, terms: str = TERMS) -> Library:
    (folder / "terms.yaml").write_text(terms)
    (folder / "a.yaml").write_text(templates)
    return read_library(folder)


def test_enough_is_written() -> None:
    """There are 80 templates and more, a fifth of them for evaluation, and 40 terms of seven axes."""
    templates = shipped().templates
    assert len(templates) >= 80
    assert sum(template.evaluation_only for template in templates) >= len(templates) / 5
    assert len({term.people for term in shipped().terms}) >= 40
    axes = {term.group.partition(":")[0] for term in shipped().terms}
    assert axes == {"gender", "religion", "race", "nationality", "orientation", "disability", "age"}


@pytest.mark.parametrize("evaluation_only", [False, True])
@pytest.mark.parametrize("harm", HARMS)
def test_every_harm_has_both_sides(harm: str, *, evaluation_only: bool) -> None:
    """To train on and to evaluate on, several templates of each harm are harmful, and more are not."""
    labels = Counter(
        template.labels[harm] for template in shipped().templates if template.evaluation_only == evaluation_only
    )
    assert labels[0] > labels[1] >= 3


def test_functions_are_on_both_sides() -> None:
    """Nearly all that is evaluated is a function that was trained on, in other words."""
    functions = [
        {template.function for template in shipped().templates if template.evaluation_only == evaluation_only}
        for evaluation_only in (False, True)
    ]
    assert functions[1] <= functions[0]


def test_pairs_are_labelled_otherwise() -> None:
    """A template and its pair differ in a harm that one has and the other has not."""
    templates = {template.id: template for template in shipped().templates}
    pairs = [(template, templates[template.pair]) for template in templates.values() if template.pair]
    assert len(pairs) >= 40
    assert [one.id for one, other in pairs if bool(one.harmful) == bool(other.harmful)] == []


def test_no_evaluation_text_is_trained_on() -> None:
    """No text of a template for evaluation is among those to train on, not even in other letters."""
    training = {text_digest(text.text) for text in texts(evaluation_only=False)}
    evaluation = {text_digest(text.text) for text in texts(evaluation_only=True)}
    assert min(len(training), len(evaluation)) > 100
    assert training & evaluation == set()


def shingles(words: str) -> AbstractSet[tuple[str, ...]]:
    """Every two neighbouring words of a text."""
    found = re.findall(r"[a-z']+", words.lower())
    return set(pairwise(found))


def test_no_two_sides_say_the_same() -> None:
    """Of the word pairs of a text for evaluation and one that is trained on, less than half are in both."""
    training, evaluation = (
        [(text.text, shingles(text.text)) for text in expand(shipped(), evaluation_only=side, per_template=40)]
        for side in (False, True)
    )
    having: dict[tuple[str, ...], list[int]] = {}
    for number, (_, theirs) in enumerate(training):
        for pair in theirs:
            having.setdefault(pair, []).append(number)
    near = []
    for one, ours in evaluation:
        shared = Counter(number for pair in ours for number in having.get(pair, ()))
        for number, count in shared.items():
            other, theirs = training[number]
            if count > (len(ours) + len(theirs) - count) / 2:
                near.append((one, other))
    assert near == []


def test_what_is_kept_is_refused_to_training() -> None:
    """Whoever asks to train on a text that is kept for evaluation is told its template."""
    with pytest.raises(ExportError, match=r"the template eval_\w+ is kept for evaluation"):
        to_dataset(texts(evaluation_only=True))


def test_texts_become_a_dataset() -> None:
    """Row by row, a dataset has the text, its labels with NaN for unknown, its role and its group."""
    training = texts(evaluation_only=False)
    data = to_dataset(training)
    assert data.texts == tuple(text.text for text in training)
    assert set(data.sources.tolist()) == {"fairway_functional"}
    assert data.roles.tolist() == [text.role for text in training]
    for text, row in zip(training, data.labels, strict=True):
        expected = [np.nan if (label := text.template.labels[harm]) is None else label for harm in HARMS]
        assert row.tolist() == pytest.approx(expected, nan_ok=True)
    assert {groups for groups in data.groups if groups} == {(term.group,) for term in shipped().terms}


def test_lines_say_which_side_they_are_on() -> None:
    """The lines of a text have its function, template and split; unsafe is known where the labels tell."""
    lines = [json.loads(line) for line in to_lines(texts(evaluation_only=True))]
    assert {line["split"] for line in lines} == {"test"}
    assert {line["unsafe"] for line in lines if 1 in line["labels"].values()} == {1}
    assert {line["unsafe"] for line in lines if set(line["labels"].values()) == {0}} == {0}
    assert {line["unsafe"] for line in lines if set(line["labels"].values()) == {0, None}} == {None}
    assert len({line["id"] for line in lines}) == len(lines)


def test_slots_are_filled(tmp_path: Path) -> None:
    """Every combination is there, with capitals, articles and groups where the text asks for them."""
    found = {(text.text, text.group) for text in expand(library(tmp_path), per_template=50)}
    assert found == {
        ("You are an idiot.", None),
        ("You are a fool.", None),
        ("Women say so.", "gender:women"),
        ("Old people say so.", "age:old"),
    }


def test_nothing_is_left_unfilled() -> None:
    """No text of the shipped templates has a brace left, nor `a` before a group's adjective that wants `an`."""
    adjectives = "|".join(term.adjective for term in shipped().terms if term.adjective[0].lower() in "aeiou")
    wrong = re.compile(rf"[{{}}]|\ba ({adjectives})\b", re.IGNORECASE)
    everything = [text for side in (False, True) for text in texts(evaluation_only=side)]
    assert [text.text for text in everything if wrong.search(f"{text.text} {text.prompt or ''}")] == []


def test_expansion_is_seeded_and_bounded() -> None:
    """Same seed, same texts; another seed, others; and no template has more than it may."""
    few = expand(shipped(), seed=3, per_template=5)
    assert few == expand(shipped(), seed=3, per_template=5)
    assert few != expand(shipped(), seed=4, per_template=5)
    assert max(Counter(text.template.id for text in few).values()) == 5


def test_templates_do_not_disturb_each_other() -> None:
    """The texts of a template stay the same when another one is taken away."""
    library = shipped()
    fewer = Library(library.terms, library.templates[1:], library.slots)
    assert expand(fewer, per_template=5) == expand(library, per_template=5)[5:]


@pytest.mark.parametrize("count", [0, -1, MAX_PER_TEMPLATE + 1])
def test_a_count_out_of_bounds_is_refused(count: int) -> None:
    """A count that is no count, or one that would drown the other sources, is refused with the bounds."""
    with pytest.raises(ExportError, match=f"give 1 to {MAX_PER_TEMPLATE}"):
        expand(shipped(), per_template=count)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{an_insult}", "{inslut}", r"a\.yaml:8: templates\[0\]\.texts\[0\]: names the slot `inslut`"),
        ("harmful: [harassment]", "harmful: [hate]", r"a\.yaml:7: templates\[0\]\.unknown: `hate` is harmful and unk"),
        ("harmful: [harassment]", "harmful: [spam]", r"a\.yaml:6: templates\[0\]\.harmful\[0\]: must be one of"),
        ("harmful:", "harmfull:", r"a\.yaml:6: templates\[0\]\.harmfull: .*did you mean `harmful`"),
        (
            "function: insult",
            "function: insult\n    pair: two",
            r"a\.yaml:6: templates\[0\]\.pair: `two` does not name",
        ),
        ("function: insult", "function: insult\n    role: comment", r"a\.yaml:6: templates\[0\]\.role"),
        ("insult: [", "people: [", r"a\.yaml:2: slots\.people: is the name of a term's words"),
        ("    texts:", "    text:", r"a\.yaml:\d: templates\[0\]\.text"),
        ("templates:", "templates: [", r"a\.yaml:\d"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A template file with a mistake is refused with its name, the line, the field and what to do."""
    with pytest.raises(ExportError, match=message):
        library(tmp_path, TEMPLATE.replace(old, new, 1))


def test_one_name_for_two_templates_is_refused(tmp_path: Path) -> None:
    """Two templates of one id, in two files, are refused in the second."""
    library(tmp_path)
    (tmp_path / "b.yaml").write_text(TEMPLATE)
    with pytest.raises(
        ExportError, match=r"b\.yaml:4: templates\[0\]\.id: `one` is there a second time, see .*a\.yaml"
    ):
        read_library(tmp_path)


def test_one_name_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    """Two templates of one id in one file are refused."""
    with pytest.raises(ExportError, match="`one` is there a second time"):
        library(tmp_path, TEMPLATE + TEMPLATE.partition("templates:\n")[2])


def test_a_pair_is_on_one_side(tmp_path: Path) -> None:
    """A template for training whose pair is kept for evaluation is refused: the two are nearly the same text."""
    one = TEMPLATE + "    pair: two\n"
    two = TEMPLATE.partition("templates:\n")[2].replace("id: one", "id: two") + "    pair: one\n"
    assert len(library(tmp_path, one + two).templates) == 2
    with pytest.raises(ExportError, match="`two` is on the other side of the split"):
        library(tmp_path, one + two + "    evaluation_only: true\n")


@pytest.mark.parametrize("name", ["terms.yaml", "a.yaml"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A folder without terms, or without templates, is refused with what it lacks."""
    library(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ExportError, match=r"terms\.yaml"):
        read_library(tmp_path)
