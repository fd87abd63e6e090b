"""Policy scorers signed by somebody careless or worse: templates that are none, are huge, or ask for too much."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from stream.bundle import load
from stream.errors import BundleError
from stream.scoring.opening import open_scorer
from stream.scoring.rehearsal import Limits, rehearse
from tests.bundles import UNSIGNED, copy_of_lite, edit_manifest, replace_listed
from tests.causal import questions_yaml, tokenizer_of

SHORT = Limits(processor_s=20.0)

Json = dict[str, Any]  # Any: JSON


def templates() -> Json:
    """Sound templates for the harms of the bundle that is tampered with."""
    harms = ("sexual", "hate", "harassment", "dangerous", "violence", "self_harm")
    document = questions_yaml()
    vocabulary = Tokenizer.from_buffer(tokenizer_of())
    answers = {
        name: {"text": text, "token": vocabulary.token_to_id(text)} for name, text in document["answers"].items()
    }
    families = {
        name: {"template": document[name]["template"], "guidelines": dict.fromkeys(harms, "Nobody may.")}
        for name in ("prompt", "response")
    }
    return {"schema_version": 1, "name": "tiny", "version": "1", "answers": answers, **families}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose files, but for the model, are those of a policy scorer."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    replace_listed(folder, {"tokenizer.json": tokenizer_of(), "templates.json": json.dumps(templates()).encode()})
    edit_manifest(
        folder,
        lambda manifest: manifest.update(input={"kind": "policy", "max_tokens": 256, "templates": "templates.json"}),
    )
    return folder


def refused(folder: Path) -> str:
    """What is said when a bundle is opened that passes every look at its files."""
    bundle = load(folder, UNSIGNED)
    with pytest.raises(BundleError) as raised:
        open_scorer(bundle, provider="cpu", max_batch_tokens=2048)
    return str(raised.value)


def _set(path: str, value: object) -> Callable[[Json], None]:
    *way, last = path.split(".")

    def change(document: Json) -> None:
        for step in way:
            document = document[step]
        document[last] = value

    return change


def _drop(name: str) -> Callable[[Json], None]:
    def change(document: Json) -> None:
        del document[name]

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("schema_version", 2), "has schema version 2, this service reads up to 1: upgrade the service"),
        (_set("code", "import os"), "code: Extra inputs are not permitted"),
        (_set("prompt.template", "{user} {guideline} {environment} so"), "{environment} is nothing that is filled in"),
        (_set("prompt.template", "{user.__class__} {guideline} so"), "is nothing that is filled in here"),
        (_set("prompt.template", "a" * 40_000 + "{user} {guideline} so"), "at most 32768 characters"),
        (_set("response.guidelines.hate", "a" * 9000), "at most 8192 characters"),
        (_set("response.guidelines", {f"h{at}": "x" for at in range(65)}), "at most 64 items"),
        (_set("prompt.guidelines", {"hate": "x"}), "only one has it for dangerous"),
        (_drop("prompt"), "has no questions for content of role prompt"),
        (_set("answers.yes.token", 3), "is token"),
        (_set("answers.yes.token", -1), "greater than or equal to 0"),
        (_set("answers.no", {"text": "Yes", "token": 0}), "is token"),
        (_set("prompt.guidelines.hate", "a b " * 2000), "of max_tokens 256: shorten the template"),
    ],
)
def test_templates_that_are_refused(folder: Path, change: Callable[[Json], None], complaint: str) -> None:
    """What the templates may not be is named, before the model is opened."""
    document = templates()
    change(document)
    replace_listed(folder, {"templates.json": json.dumps(document).encode()})
    assert complaint in refused(folder)


def test_templates_of_many_megabytes(folder: Path) -> None:
    """A huge file is refused by its length, without being parsed."""
    replace_listed(folder, {"templates.json": b'{"schema_version": 1, "name": "' + b"a" * 5_000_000 + b'"}'})
    assert "templates.json is longer than 4194304 bytes" in refused(folder).replace(f" in {folder}", "")


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff\xfe", b"[]", b'{"schema_version": true}'])
def test_templates_that_are_no_templates(folder: Path, content: bytes) -> None:
    """What is no JSON object of this schema is refused as such, however deep it nests."""
    replace_listed(folder, {"templates.json": content})
    assert "templates.json" in refused(folder)


def test_templates_that_no_digest_covers(folder: Path) -> None:
    """A file of templates that the manifest does not list is refused with the manifest."""
    edit_manifest(folder, lambda manifest: manifest["files"].pop("templates.json"))
    with pytest.raises(BundleError, match=r"files does not list templates\.json"):
        load(folder, UNSIGNED)


def test_a_tokenizer_that_takes_seconds_per_text(folder: Path) -> None:
    """The tokenizer of a policy scorer is timed as any other, through its questions."""
    tokenizer = Tokenizer.from_buffer(tokenizer_of())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("ж", "жж")] * 7)
    replace_listed(folder, {"tokenizer.json": tokenizer.to_str().encode()})
    with pytest.raises(BundleError) as raised:
        rehearse(load(folder, UNSIGNED), SHORT)
    assert "for one long text, 0.5 s are allowed; the text repeats '\\u0436'" in str(raised.value)


def test_a_model_that_is_a_classifier(folder: Path) -> None:
    """A model that gives something else than log-likelihoods of two answers is refused by its outputs."""
    said = refused(folder)
    assert "outputs are logits tensor(float) of rank 2, not log_likelihoods tensor(float) of rank 3" in said


def test_a_head_that_was_cut_where_likelihoods_are_needed(folder: Path) -> None:
    """A manifest that asks for no likelihoods is held to the other kind of output, so that the two are not confused."""

    def ask_for_less(manifest: Json) -> None:
        manifest["input"] |= {"min_answer_mass": 0.0, "alpha": 0.0}

    edit_manifest(folder, ask_for_less)
    assert "not answers tensor(float) of rank 3" in refused(folder)
