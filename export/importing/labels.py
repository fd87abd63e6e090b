"""A label map: what the classes of somebody else's classifier mean here, as YAML that says so of every one of them.

schema_version: 1
name: toxicity
version: "1"
roles: [post]             # of content that the model is for: prompt, output, post; of images output and post by default
scores: sigmoid           # or softmax: needed where the checkpoint's config.json has no problem_type
source: from the model's own page, Apache-2.0    # may be left out; goes into the card
classes:
  toxic: harassment       # several classes may mean one harm
  insult: harassment
  identity_hate: hate
  neutral: harmless
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stream.bundle.evaluation import ANY_HARM
from stream.bundle.manifest import Role
from stream.yamlfile import Document, Problem, Section, did_you_mean, load, read

__all__ = ["HARMLESS", "LABELS", "ClassMap", "LabelMap", "Scores", "read_labels"]

HARMLESS = "harmless"
"""What a class is mapped to that means no harm."""

LABELS = "labels.yaml"
"""The map's file in a bundle."""

MAX_HARMS = 64
"""As many as a bundle may have."""

Scores = Literal["softmax", "sigmoid"]
"""Whether the classes share one probability, or each has its own."""

_SCORES: dict[str, Scores] = {"single_label_classification": "softmax", "multi_label_classification": "sigmoid"}

_SHOWN = 8  # classes listed in one message

Word = Annotated[str, Field(min_length=1, max_length=128)]


class _File(Section):
    schema_version: Literal[1]
    name: Word
    version: Word
    roles: Annotated[tuple[Role, ...], Field(min_length=1)] | None = None
    scores: Scores | None = None
    source: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    classes: Annotated[dict[Word, Word], Field(min_length=1, max_length=1024)]


@dataclass(frozen=True, slots=True)
class ClassMap:
    """What to make of the logits of a checkpoint's classes, one column each."""

    scores: Scores
    harms: tuple[str, ...]
    """In the order in which the map names them first."""
    columns: tuple[tuple[int, ...], ...]
    """By harm: the columns of the classes that mean it."""
    meanings: tuple[tuple[str, str], ...]
    """By column: the class and what it means, a harm or `HARMLESS`."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A label map that was read, not yet held against a checkpoint."""

    name: str
    version: str
    roles: tuple[Role, ...]
    source: str | None
    scores: Scores | None
    classes: dict[str, str]
    content: bytes = field(repr=False)
    """The file's bytes."""
    document: Document = field(repr=False)

    def match(self, classes: Sequence[str], *, problem_type: str | None) -> ClassMap:
        """Hold the map against the classes of a checkpoint, in the order of its logits, and what its config states.

        Raises `ConfigError` naming file and line of every class that one of the two does not have, and of `scores`
        where the two disagree.
        """
        problems = [*self._class_problems(classes), *self._scores_problems(problem_type)]
        scores = self.scores or _SCORES.get(problem_type or "", "softmax")
        meanings = [self.classes.get(name, HARMLESS) for name in classes]
        harms = tuple(dict.fromkeys(harm for harm in self.classes.values() if harm != HARMLESS))
        if not problems and scores == "softmax" and len(set(meanings)) == 1:
            message = f"means {meanings[0]}, as every class does: with scores softmax it would always be found"
            problems.append(Problem(("classes", classes[0]), f"{message}; map one to `{HARMLESS}` or to another harm"))
        if problems:
            raise self.document.refusal(problems)
        columns = tuple(tuple(i for i, meaning in enumerate(meanings) if meaning == harm) for harm in harms)
        return ClassMap(scores, harms, columns, tuple(zip(classes, meanings, strict=True)))

    def _class_problems(self, classes: Sequence[str]) -> list[Problem]:
        listed = ", ".join(classes[:_SHOWN]) + (f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else "")
        unknown = [
            Problem(
                ("classes", name), f"the checkpoint has no such class, it has {listed}{did_you_mean(name, classes)}"
            )
            for name in self.classes
            if name not in classes
        ]
        unmapped = [
            Problem(("classes",), f"the class `{name}` is not mapped: map it to a harm, or to `{HARMLESS}`")
            for name in classes
            if name not in self.classes
        ]
        return unknown + unmapped

    def _scores_problems(self, problem_type: str | None) -> list[Problem]:
        if problem_type is not None and problem_type not in _SCORES:
            return [Problem((), f"the checkpoint is made for {problem_type}, it is no classifier: import another one")]
        if problem_type is None and self.scores is None:
            why = "the checkpoint's config.json has no problem_type, so the map has to say"
            return [Problem((), f"{why} `scores: softmax` (one class of all) or `scores: sigmoid` (each by itself)")]
        if problem_type is not None and self.scores not in {None, _SCORES[problem_type]}:
            said = f"the checkpoint's problem_type is {problem_type}, which is {_SCORES[problem_type]}"
            return [Problem(("scores",), f"{said}: remove `scores`, or import the right checkpoint")]
        return []


def read_labels(path: Path, *, roles: tuple[Role, ...] = ()) -> LabelMap:
    """Read a label map, of these roles where it names none; without any by default, it has to.

    Raises `ConfigError` naming file, line and field of each thing that is wrong.
    """
    content = read(path, what="label map")
    document = load(content, what="label map", name=str(path))
    file = document.validate(_File)
    harms = set(file.classes.values()) - {HARMLESS}
    roles = file.roles or roles
    problems = [
        Problem(("classes", name), f"`{ANY_HARM}` stands for all harms together; give the harm another name")
        for name, harm in file.classes.items()
        if harm == ANY_HARM
    ]
    if not roles:
        problems.append(Problem((), "needs a field `roles`: of content that the model is for, prompt, output or post"))
    if not harms:
        problems.append(Problem(("classes",), f"every class means `{HARMLESS}`, so nothing is found: name a harm"))
    if len(harms) > MAX_HARMS:
        problems.append(Problem(("classes",), f"{len(harms)} harms are named, a bundle has {MAX_HARMS} at most"))
    if problems:
        raise document.refusal(problems)
    return LabelMap(
        name=file.name,
        version=file.version,
        roles=tuple(dict.fromkeys(roles)),
        source=file.source,
        scores=file.scores,
        classes=file.classes,
        content=content,
        document=document,
    )
