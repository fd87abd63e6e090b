"""Functional texts of our own writing: templates in, labelled texts out, some for training and others never.

A functional text has one thing to teach: that a quoted insult is none, that `kill` is what one does to a process, that
politeness can hide a threat. Templates name their function, their labels for every harm and their slots, and where one
has a counterpart with the other label, its pair. A template is for training or for evaluation, with all its texts.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from export.data.dataset import HARMS, Dataset, dataset_of
from export.errors import ExportError
from stream.errors import ConfigError
from stream.yamlfile import Document, FieldPath, Problem, Section, load

__all__ = ["SOURCE", "TEMPLATES", "FunctionalText", "Library", "expand", "read_library", "to_dataset", "to_lines"]

SOURCE = "fairway_functional"

TEMPLATES = Path(__file__).with_name("templates")

MAX_PER_TEMPLATE = 1000
"""Texts of one template at most. They differ in little more than a name, and more would drown the other sources."""

_TERMS = "terms.yaml"
_SLOT = re.compile(r"{(\w*)}")
_TERM_SLOTS = frozenset({"people", "person", "adjective"})

Role = Literal["prompt", "output", "post"]
Harm = Literal["sexual", "hate", "harassment", "dangerous", "violence", "self_harm"]
Words = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$", max_length=64)]


class Term(Section):
    """The words for one group of people."""

    group: Annotated[str, Field(pattern="^[a-z]+:[a-z_]+$")]
    people: Words
    person: Words
    adjective: Words


class Template(Section):
    """Texts that say the same in different words; harms that are neither `harmful` nor `unknown` are 0."""

    id: Name
    function: Name
    texts: Annotated[tuple[Words, ...], Field(min_length=1, max_length=32)]
    role: Annotated[tuple[Role, ...], BeforeValidator(lambda role: [role] if isinstance(role, str) else role)] = (
        "post",
    )
    prompt: Words | None = None
    """What the text answers."""
    harmful: tuple[Harm, ...] = ()
    unknown: tuple[Harm, ...] = ()
    pair: Name | None = None
    """The template that says nearly the same and is labelled otherwise."""
    evaluation_only: bool = False

    @property
    def labels(self) -> dict[str, int | None]:
        """1 harmful, 0 harmless, None unknown, for every harm."""
        known = {harm: int(harm in self.harmful) for harm in HARMS}
        return {harm: None if harm in self.unknown else label for harm, label in known.items()}


class _TermFile(Section):
    terms: Annotated[tuple[Term, ...], Field(min_length=1)]


class _TemplateFile(Section):
    slots: dict[Name, Annotated[tuple[Words, ...], Field(min_length=1)]] = Field(default_factory=dict)
    templates: Annotated[tuple[Template, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Library:
    """Every template, in the order of the files' names, with the slots that its texts may name."""

    terms: tuple[Term, ...]
    templates: tuple[Template, ...]
    slots: Mapping[str, Mapping[str, Sequence[str]]]
    """By template id: the words for each slot of its file."""


@dataclass(frozen=True, slots=True)
class FunctionalText:
    """One text that a template became."""

    text: str
    prompt: str | None
    role: Role
    template: Template
    group: str | None
    """The group that the text speaks of, as `axis:group`, if it does."""


def read_library(folder: Path = TEMPLATES) -> Library:
    """Read `terms.yaml` and every other `*.yaml` in `folder`.

    Raises `ExportError` naming file, line and field of everything that is wrong in the first file that has mistakes.
    """
    paths = sorted(path for path in folder.glob("*.yaml") if path.name != _TERMS)
    if not paths:
        raise ExportError(f"there are no templates in {folder}: name a folder with terms.yaml and template files")
    try:
        terms = load(folder / _TERMS, what="template file").validate(_TermFile).terms
        documents = [load(path, what="template file") for path in paths]
        files = [document.validate(_TemplateFile) for document in documents]
        _check(documents, files)
    except ConfigError as error:
        raise ExportError(str(error)) from None
    return Library(
        terms=terms,
        templates=tuple(template for file in files for template in file.templates),
        slots={template.id: file.slots for file in files for template in file.templates},
    )


def expand(
    library: Library, *, evaluation_only: bool = False, seed: int = 0, per_template: int = 40
) -> tuple[FunctionalText, ...]:
    """Texts of the templates for training, or of those for evaluation: `per_template` of each at most, all different.

    Same library and seed, same texts; and those of one template do not change with the others.
    """
    if not 0 < per_template <= MAX_PER_TEMPLATE:
        raise ExportError(f"{per_template} texts of each template: give 1 to {MAX_PER_TEMPLATE}")
    return tuple(
        text
        for template in library.templates
        if template.evaluation_only == evaluation_only
        for text in _expand_one(template, library, random.Random(f"{seed} {template.id}"), per_template)
    )


def to_lines(texts: Iterable[FunctionalText]) -> Iterator[str]:
    """The texts as JSON lines of the data folder's form; those for evaluation say so in their `split`."""
    for number, text in enumerate(texts):
        template, labels = text.template, text.template.labels
        unsafe = 1 if template.harmful else None if template.unknown else 0
        record = {
            "id": f"{SOURCE}:{template.id}:{number}",
            "text": text.text,
            "source": SOURCE,
            "role": text.role,
            "labels": labels,
            "unsafe": unsafe,
            "groups": [text.group] if text.group else [],
            "groups_src": "annotated",
            "split": "test" if template.evaluation_only else "train",
            "lang": "en",
            "functionality": template.function,
            "template_id": template.id,
            "pair_id": template.pair,
        }
        yield json.dumps(record | ({"prompt": text.prompt} if text.prompt else {}), ensure_ascii=False)


def to_dataset(texts: Sequence[FunctionalText]) -> Dataset:
    """Texts to train on. Raises `ExportError` if one of them is of a template that is kept for evaluation."""
    kept = next((text.template.id for text in texts if text.template.evaluation_only), None)
    if kept is not None:
        raise ExportError(f"the template {kept} is kept for evaluation: expand the others to train on")
    return dataset_of((line.encode() for line in to_lines(texts)), name=SOURCE)


def _expand_one(template: Template, library: Library, chance: random.Random, most: int) -> Iterator[FunctionalText]:
    seen: set[tuple[str, str | None, Role]] = set()
    slots = library.slots[template.id]
    # Texts take turns, so that each is there however few are wanted; and where all there are have been said, it ends.
    for turn in range(4 * most):
        words = template.texts[turn % len(template.texts)]
        role = template.role[turn // len(template.texts) % len(template.role)]
        term = chance.choice(library.terms)
        fillings = {name: chance.choice(choices) for name, choices in slots.items()} | {
            name: getattr(term, name) for name in _TERM_SLOTS
        }
        text = _fill(words, fillings)
        prompt = _fill(template.prompt, fillings) if template.prompt else None
        if (text, prompt, role) in seen:
            continue
        seen.add((text, prompt, role))
        group = term.group if _named(words) & _TERM_SLOTS else None
        yield FunctionalText(text, prompt, role, template, group)
        if len(seen) == most:
            return


def _fill(words: str, fillings: Mapping[str, str]) -> str:
    """Put words into the slots: `{People}` has a capital letter, `{an_insult}` the article before it."""

    def word(match: re.Match[str]) -> str:
        slot = match[1]
        name, with_article = _slot_name(slot)
        filling = f"{_article(fillings[name])} {fillings[name]}" if with_article else fillings[name]
        return filling[:1].upper() + filling[1:] if slot[:1].isupper() else filling

    return _SLOT.sub(word, words)


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def _slot_name(slot: str) -> tuple[str, bool]:
    """The name of the list that a slot takes its word from, and whether the word wants its article."""
    name = slot.lower()
    return (name.removeprefix("an_"), True) if name.startswith("an_") else (name, False)


def _named(words: str) -> set[str]:
    return {_slot_name(slot)[0] for slot in _SLOT.findall(words)}


def _check(documents: Sequence[Document], files: Sequence[_TemplateFile]) -> None:
    """Refuse what no single field shows: names that nothing has, or two have, and pairs that are parted."""
    known: dict[str, Template] = {}
    for template in (template for file in files for template in file.templates):
        known.setdefault(template.id, template)
    first_at: dict[str, str] = {}
    for document, file in zip(documents, files, strict=True):
        problems = [
            Problem(("slots", name), "is the name of a term's words; choose another")
            for name in _TERM_SLOTS & file.slots.keys()
        ]
        for number, template in enumerate(file.templates):
            at: FieldPath = ("templates", number)
            if (first := first_at.setdefault(template.id, document.name)) and known[template.id] is not template:
                problems.append(Problem((*at, "id"), f"`{template.id}` is there a second time, see {first}"))
            problems += [Problem((*at, *path), why) for path, why in _mistakes(template, file, known)]
        if problems:
            raise document.refusal(problems)


def _mistakes(
    template: Template, file: _TemplateFile, known: Mapping[str, Template]
) -> Iterator[tuple[FieldPath, str]]:
    slots = file.slots.keys() | _TERM_SLOTS
    for at, words in [(("texts", number), text) for number, text in enumerate(template.texts)] + [
        (("prompt",), template.prompt or "")
    ]:
        if missing := sorted(_named(words) - slots):
            yield at, f"names the slot `{missing[0]}`, which neither this file nor terms.yaml has"
    if both := sorted(set(template.harmful) & set(template.unknown)):
        yield ("unknown",), f"`{both[0]}` is harmful and unknown; leave one out"
    pair = template.pair and known.get(template.pair)
    if template.pair and (not pair or pair.pair != template.id):
        yield ("pair",), f"`{template.pair}` does not name this template as its pair"
    elif pair and pair.evaluation_only != template.evaluation_only:
        yield ("pair",), f"`{template.pair}` is on the other side of the split: a pair is hardly two templates"
