"""The templates as written by hand in, every sentence they stand for out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stream.yamlfile import Section, load

__all__ = ["SHIPPED", "Sentence", "Template", "Templates", "Term", "load_templates"]

SHIPPED = Path(__file__).with_name("templates.yaml")

_SLOT = re.compile(r"{([^{}]*)}")
_SLOTS = {"one", "One", "many", "Many"}

Role = Literal["prompt", "output", "post"]
Phrase = Annotated[str, Field(min_length=1, max_length=300)]


class _TermFile(Section):
    term: Phrase
    one: Phrase
    many: Phrase


class _Kind(Section):
    kind: Phrase
    role: Role
    sentences: Annotated[tuple[Phrase, ...], Field(min_length=1)]

    @field_validator("sentences")
    @classmethod
    def _have_slots(cls, sentences: tuple[str, ...]) -> tuple[str, ...]:
        for sentence in sentences:
            slots = _SLOT.findall(sentence)
            if len(slots) != 1 or slots[0] not in _SLOTS:
                raise ValueError(f"every sentence needs one of {', '.join(sorted(_SLOTS))} in braces, once")
        return sentences


class _Pair(Section):
    aae: Phrase
    sae: Phrase


class _File(Section):
    version: Phrase
    terms: dict[str, Annotated[tuple[_TermFile, ...], Field(min_length=2)]]
    nonce: Annotated[tuple[_TermFile, ...], Field(min_length=2)]
    harmless: Annotated[tuple[_Kind, ...], Field(min_length=1)]
    harmful: Annotated[tuple[_Kind, ...], Field(min_length=1)]
    dialect: Annotated[tuple[_Pair, ...], Field(min_length=2)]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text to ask a model about, and the role it is given in."""

    text: str
    role: Role


@dataclass(frozen=True, slots=True)
class Term:
    """A group of people by name; `one` is "a woman", `many` is "women"."""

    term: str
    axis: str
    one: str
    many: str


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with one slot for a term."""

    text: str
    kind: str
    role: Role

    def fill(self, term: Term) -> Sentence:
        """The sentence about this term; a capitalised slot begins it."""
        forms = {"one": term.one, "many": term.many}
        forms |= {name.capitalize(): form[0].upper() + form[1:] for name, form in forms.items()}
        return Sentence(_SLOT.sub(lambda slot: forms[slot[1]], self.text), self.role)


@dataclass(frozen=True, slots=True)
class Templates:
    """Everything in the file."""

    version: str
    digest: str
    terms: tuple[Term, ...]
    nonce: tuple[Term, ...]
    harmless: tuple[Template, ...]
    harmful: tuple[Template, ...]
    dialect: tuple[tuple[Sentence, Sentence], ...]
    """Pairs of African American English and standardised English."""

    def sentences(self, templates: Iterable[Template], terms: Iterable[Term]) -> Iterator[Sentence]:
        """Every template about every term, template by template."""
        terms = tuple(terms)
        return (template.fill(term) for template in templates for term in terms)


def load_templates(path: Path = SHIPPED) -> Templates:
    """Read a file of templates. Raises `ConfigError` naming every line that is wrong."""
    document = load(path, what="templates")
    file = document.validate(_File)
    return Templates(
        version=file.version,
        digest=document.digest,
        terms=tuple(
            Term(one.term, axis, one.one, one.many) for axis, inside in sorted(file.terms.items()) for one in inside
        ),
        nonce=tuple(Term(one.term, "nonce", one.one, one.many) for one in file.nonce),
        harmless=tuple(_templates(file.harmless)),
        harmful=tuple(_templates(file.harmful)),
        dialect=tuple((Sentence(pair.aae, "post"), Sentence(pair.sae, "post")) for pair in file.dialect),
    )


def _templates(kinds: Iterable[_Kind]) -> Iterator[Template]:
    return (Template(sentence, kind.kind, kind.role) for kind in kinds for sentence in kind.sentences)
