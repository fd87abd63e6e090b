"""What `templates.json` holds: how a language model is asked about a text, and which tokens answer yes and no [S01].

There are two families of questions, and they are not mixed. The one for prompts asks what a user may ask for; the one
for responses asks what may be generated or posted. Each has one template for the whole question, of which three parts
are filled in, and for each harm the guideline that the text may violate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stream.bundle.manifest import Role, explain, refuse_newer
from stream.errors import BundleError

__all__ = [
    "FAMILIES",
    "FAMILY_OF",
    "Answer",
    "Answers",
    "Family",
    "FamilyName",
    "PromptFamily",
    "ResponseFamily",
    "Slot",
    "Templates",
    "parse_templates",
    "pieces",
]

FamilyName = Literal["prompt", "response"]
Slot = Literal["user", "response", "guideline"]

FAMILIES: Final[tuple[FamilyName, ...]] = ("prompt", "response")

FAMILY_OF: Final[dict[Role, FamilyName]] = {"prompt": "prompt", "output": "response", "post": "response"}
"""Which family asks about content of each role. A post is asked about as a response to an empty prompt: what it says is
judged, not what it asks for; the benchmarks of such models read posts so too."""

_SLOT = re.compile(r"{([^{}]*)}")

Text = Annotated[str, Field(min_length=1, max_length=32_768)]
"""A policy that fills ten pages; tokenising it takes some milliseconds."""
Guideline = Annotated[str, Field(min_length=1, max_length=8192)]
Word = Annotated[str, Field(min_length=1, max_length=128)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Family(_Strict):
    """The questions about one kind of content."""

    template: Text
    """The question as the model reads it, control tokens included, up to where its answer begins."""
    guidelines: Annotated[dict[Word, Guideline], Field(min_length=1, max_length=64)]
    """By harm, the text that takes the place of `{guideline}`."""

    @field_validator("guidelines")
    @classmethod
    def _are_whole(cls, guidelines: dict[str, str]) -> dict[str, str]:
        for harm, guideline in guidelines.items():
            if found := _SLOT.search(guideline):
                raise ValueError(f"{harm} has {found[0]} in it: nothing is filled in within a guideline, write it out")
        return guidelines


class PromptFamily(Family):
    """Questions about what a user asks: `{user}` and `{guideline}`, once each."""

    @field_validator("template")
    @classmethod
    def _has_slots(cls, template: str) -> str:
        return _checked(template, ("user", "guideline"))


class ResponseFamily(Family):
    """Questions about what was answered or posted: `{user}`, which may stay empty, `{response}` and `{guideline}`."""

    @field_validator("template")
    @classmethod
    def _has_slots(cls, template: str) -> str:
        return _checked(template, ("user", "response", "guideline"))


class Answer(_Strict):
    """One answer: how it is written, and the one token that it is where the question ends."""

    text: Annotated[str, Field(min_length=1, max_length=32)]
    token: Annotated[int, Field(ge=0)]


class Answers(_Strict):
    """Yes, the guideline is violated; no, it is not."""

    yes: Answer
    no: Answer

    @model_validator(mode="after")
    def _differ(self) -> Answers:
        if self.yes.token == self.no.token:
            raise ValueError(f"yes and no are both token {self.yes.token}: they cannot be told apart")
        return self


class Templates(_Strict):
    """The whole of `templates.json`."""

    schema_version: Literal[1]
    name: Word
    version: Word
    """What its author calls this wording; it is the file's digest that pins it."""
    answers: Answers
    prompt: PromptFamily | None = None
    response: ResponseFamily | None = None

    def family(self, name: FamilyName) -> Family | None:
        """The family of this name, if there is one."""
        return self.prompt if name == "prompt" else self.response

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles of content that it has questions for."""
        return tuple(role for role, name in FAMILY_OF.items() if self.family(name) is not None)

    @model_validator(mode="after")
    def _agree(self) -> Templates:
        harms = [set(family.guidelines) for name in FAMILIES if (family := self.family(name)) is not None]
        if not harms:
            raise ValueError("needs a family of questions, prompt or response or both")
        if alone := sorted(harms[0] ^ harms[-1]):
            raise ValueError(f"both families need a guideline for each harm, only one has it for {', '.join(alone)}")
        return self


def parse_templates(content: bytes, *, harms: Sequence[str], roles: Sequence[Role], name: str) -> Templates:
    """Parse the bytes of the file `name`; raise `BundleError` where it is wrong, or not about `harms` and `roles`."""
    refuse_newer(content, name)
    try:
        templates = Templates.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
    for kind in FAMILIES:
        family = templates.family(kind)
        if family is not None and set(family.guidelines) != set(harms):
            raise BundleError(
                f"{name} has guidelines for {', '.join(sorted(family.guidelines))}, its manifest has the harms "
                f"{', '.join(sorted(harms))}: import the model again"
            )
    if unasked := sorted(set(roles) - set(templates.roles)):
        raise BundleError(f"{name} has no questions for content of role {', '.join(unasked)}: import the model again")
    return templates


def pieces(template: str) -> list[tuple[str, str]]:
    """Cut a template at its slots: pairs of the text before a slot and the slot's name, which is empty for the last.

    >>> pieces("Is {user} bad?")
    [('Is ', 'user'), (' bad?', '')]
    """
    parts = _SLOT.split(template)
    return list(zip(parts[::2], [*parts[1::2], ""], strict=True))


def _checked(template: str, slots: tuple[Slot, ...]) -> str:
    """The template, if every slot is in it once and nothing else is in braces."""
    found = _SLOT.findall(template)
    if unknown := [slot for slot in found if slot not in slots]:
        known = ", ".join(f"{{{slot}}}" for slot in slots)
        raise ValueError(f"{{{unknown[0][:40]}}} is nothing that is filled in here; there are {known}")
    for slot in slots:
        if (times := found.count(slot)) != 1:
            raise ValueError(f"{{{slot}}} is in it {times} times, it is filled in once")
    if not pieces(template)[-1][0]:
        raise ValueError(f"it ends with {{{found[-1]}}}: end it with what asks for the answer")
    return template
