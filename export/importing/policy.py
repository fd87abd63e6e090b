"""A causal language model as a policy scorer: a checkpoint and the questions to ask it in, what a bundle holds out.

The questions are a file of YAML that its operator writes, or copies from the model's card; `policy_templates` has an
example of our own wording. Scores are as good as the wording is the one that the model was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from transformers import PreTrainedModel

from export.bundling.golden import TEXTS
from export.errors import ExportError
from export.graphs.convert import convert
from export.graphs.parity import check_parity
from export.importing.causal import Asked, Questioned, read_causal
from export.importing.checkpoint import open_checkpoint
from export.importing.halves import store_halves
from export.importing.imported import MODEL, Imported
from export.importing.loading import refuse_other_vocabulary
from export.progress import Say
from stream.bundle import PolicyInput
from stream.bundle.questions import FAMILIES, Answer, Answers, PromptFamily, ResponseFamily, Templates
from stream.errors import BundleError
from stream.scoring.batching import MicroBatch
from stream.scoring.questions import QuestionTokenizer, find_answer
from stream.scoring.session import OnnxSession, answers_questions, open_session
from stream.scoring.tokenize import PlainTokenizer
from stream.yamlfile import Section, load

__all__ = ["EXAMPLE", "TEMPLATES", "import_policy", "read_questions"]

EXAMPLE = Path(__file__).with_name("policy_templates") / "example.yaml"

TEMPLATES = "templates.json"

_ABOUT = """\
A causal language model of kind {kind} of {parameters:,.1f} million parameters, asked for each harm whether a text
violates that harm's guideline. Its score is the probability of {yes!r} against {no!r} as the next token after the
question (ShieldGemma, arXiv 2407.21772), with the wording `{wording}`. Prompts are asked about in other words than
outputs and posts; a post is asked about as an answer to nothing."""


Word = Annotated[str, Field(min_length=1, max_length=128)]


class _Answers(Section):
    yes: Annotated[str, Field(min_length=1, max_length=32)]
    no: Annotated[str, Field(min_length=1, max_length=32)]


class _File(Section):
    """The whole of an operator's file."""

    schema_version: Literal[1]
    name: Word
    version: Word
    answers: _Answers
    max_tokens: Annotated[int, Field(ge=64, le=4096)] = 2048
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0
    min_answer_mass: Annotated[float, Field(ge=0, lt=1)] = 0.5
    prompt: PromptFamily | None = None
    response: ResponseFamily | None = None


def import_policy(checkpoint: Path, templates: Path, say: Say) -> Imported:
    """Convert the model in the folder `checkpoint`, to be asked in the words of the file `templates`.

    The output head is cut to the two answers where neither `alpha` nor `min_answer_mass` needs the probabilities of
    all others. Raises `ConfigError` with the lines of the file that are wrong, and `ExportError` where the model cannot
    be imported, does not fit its tokenizer, or is another one after the conversion.
    """
    found = open_checkpoint(checkpoint)
    tokenizer_json = found.tokenizer()
    try:
        given, asked = read_questions(templates, tokenizer_json)
        harms = _harms(asked)
        questions = QuestionTokenizer(tokenizer_json, asked, harms=harms, max_tokens=given.max_tokens)
    except BundleError as error:
        raise ExportError(f"{templates} with the tokenizer in {checkpoint}: {error}") from None
    say(f"loading {found.architecture}")
    model = read_causal(found)
    _refuse_short(model, given, checkpoint)
    refuse_other_vocabulary(model, questions.largest_id, checkpoint)
    answers = (asked.answers.yes.token, asked.answers.no.token)
    say("converting to ONNX")
    module = Questioned(model, answers=answers, harms=len(harms), likelihoods=given.needs_likelihoods)
    signature = answers_questions(len(harms), likelihoods=given.needs_likelihoods)
    content = convert(module, output=next(iter(signature.outputs)), finish=store_halves)
    say("comparing the converted model with its module")
    sample = list(_sample(questions, given))
    reference = np.array([_ask(Asked(model, answers), questions, *event) for event in sample], dtype=np.float32)
    converted = _run(open_session(content, "cpu", signature=signature), questions, sample)
    parity = check_parity(_compared(reference, given), _compared(converted, given))
    return Imported(
        name=asked.name,
        version=asked.version,
        harms=harms,
        roles=asked.roles,
        input=given,
        artefacts={"cpu": (MODEL, content)},
        tokenizer=tokenizer_json,
        parity=parity,
        about=_ABOUT.format(
            kind=model.config.model_type,
            parameters=model.num_parameters() / 1e6,
            yes=asked.answers.yes.text,
            no=asked.answers.no.text,
            wording=f"{asked.name} {asked.version}",
        ),
        weights=found.weights(),
        files={TEMPLATES: _canonical(asked)},
    )


def read_questions(path: Path, tokenizer_json: bytes) -> tuple[PolicyInput, Templates]:
    """An operator's file, as a manifest and a bundle's file of templates say it.

    Raises `ConfigError` with the lines of the file that are wrong, `BundleError` for a tokenizer that cannot be used,
    and for answers that are not one token of their own each.
    """
    file = load(path, what="templates").validate(_File)
    given = PolicyInput(
        kind="policy",
        max_tokens=file.max_tokens,
        templates=TEMPLATES,
        temperature=file.temperature,
        alpha=file.alpha,
        min_answer_mass=file.min_answer_mass,
    )
    return given, _with_answers(file, PlainTokenizer(tokenizer_json))


Event = tuple[str, str, str | None]
"""Text, role, and what it answers."""


def _with_answers(file: _File, tokenizer: PlainTokenizer) -> Templates:
    """The questions with the tokens of their answers, the same in both families."""
    families = [family for family in (file.prompt, file.response) if family is not None]
    tokens: dict[str, Answer] = {}
    for name, text in (("yes", file.answers.yes), ("no", file.answers.no)):
        found = {find_answer(tokenizer, family.template, text) for family in families}
        if len(found) > 1:
            raise ExportError(f"the answer {text!a} is another token after the one template than after the other")
        tokens[name] = Answer(text=text, token=found.pop() if found else 0)
    try:
        return Templates(
            schema_version=1,
            name=file.name,
            version=file.version,
            answers=Answers(yes=tokens["yes"], no=tokens["no"]),
            prompt=file.prompt,
            response=file.response,
        )
    except ValueError as error:
        raise ExportError(str(error)) from None


def _harms(templates: Templates) -> tuple[str, ...]:
    """In the order of the first family's guidelines."""
    family = next(family for name in FAMILIES if (family := templates.family(name)) is not None)
    return tuple(family.guidelines)


def _canonical(templates: Templates) -> bytes:
    """One way to write it, so that its digest is that of what it says."""
    return json.dumps(
        templates.model_dump(mode="json", exclude_none=True), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    ).encode()


def _refuse_short(model: PreTrainedModel, given: PolicyInput, checkpoint: Path) -> None:
    positions = int(getattr(model.config, "max_position_embeddings", given.max_tokens))
    if given.max_tokens > positions:
        raise ExportError(f"max_tokens is {given.max_tokens}, the model in {checkpoint} reads {positions}: lower it")


def _sample(questions: QuestionTokenizer, given: PolicyInput) -> Iterator[Event]:
    """Short texts of our own in every role that is asked about, with and without a prompt, and one that is cut."""
    for role, text in TEXTS:
        if role in questions.roles:
            yield text, role, "What did they say?" if role == "output" else None
    yield "a long day, " * given.max_tokens, min(questions.roles), None


def _ask(model: Asked, questions: QuestionTokenizer, text: str, role: str, prompt: str | None) -> list[list[float]]:
    """The log-likelihoods of each harm's answers, (h, 2), each question put by itself."""
    return [list(model.log_likelihoods(question)) for question in questions.each(text, role=role, prompt=prompt)]


def _run(session: OnnxSession, questions: QuestionTokenizer, sample: Sequence[Event]) -> NDArray[np.float32]:
    """What the converted model gives for the same texts, (t, h, 2), all questions about one in one row."""
    texts, roles, prompts = zip(*sample, strict=True)
    rows = questions.read(texts, roles=roles, prompts=prompts)
    calls = [MicroBatch(np.array([row]), length) for row, length in enumerate(rows.lengths.tolist())]
    return np.concatenate([session.run(rows.inputs(call)) for call in calls])


def _compared(found: NDArray[np.float32], given: PolicyInput) -> NDArray[np.float32]:
    """What has to agree, a row for each text: both log-likelihoods, or their difference where that is all there is."""
    return found.reshape(len(found), -1) if given.needs_likelihoods else found[..., 0] - found[..., 1]
