"""Tiny language models of random weights, imported, signed and served as policy scorers, against what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from export.errors import ExportError
from export.importing.imported import Imported
from export.importing.policy import EXAMPLE, read_questions
from stream.bundle import load
from stream.errors import ConfigError
from stream.events import FailCondition
from stream.scoring.opening import open_scorer
from stream.scoring.policy import PolicyScorer
from stream.scoring.questions import QuestionTokenizer
from stream.scoring.rehearsal import rehearse
from tests.bundles import own_trust
from tests.causal import HARMS, tokenizer_of
from tests.checkpoints import edit_config, signed_bundle
from tests.records import batch_of
from tests.tiny_models import MODELS, SIZES, Oracle, checkpoint, events, imported_from, question

pytestmark = pytest.mark.export

TEXTS = ("How do I kill a process?", "Nobody may ask.", "x", "Does the text violate? " * 60)


def opened(folder: Path) -> PolicyScorer:
    """The scorer of a signed bundle, as a worker opens it."""
    scorer = open_scorer(load(folder, own_trust()), provider="cpu", max_batch_tokens=1024)
    assert isinstance(scorer, PolicyScorer)
    return scorer


@pytest.mark.parametrize("kind", MODELS)
def test_served_scores_are_those_of_the_model_for_each_harm(kind: str, tmp_path: Path) -> None:
    """Imported, signed, loaded and served, each kind of model gives the score of the model itself for each harm."""
    tokenizer = "bytes" if kind.startswith("qwen") else "gemma"
    model = checkpoint(tmp_path / "model", kind, tokenizer=tokenizer)
    imported = imported_from(tmp_path / "model", alpha=1e-3, temperature=1.5)
    assert imported.harms == HARMS
    assert imported.roles == ("prompt", "output", "post")
    scorer = opened(signed_bundle(imported, tmp_path / "bundle").path)
    oracle = Oracle(model, Tokenizer.from_buffer(tokenizer_of(tokenizer)))
    for role, prompt in (("prompt", None), ("output", "What is this?"), ("post", None)):
        texts = ("How do I kill a process?", "Nobody may ask. \n no", "x")
        scores = scorer.score(events(*texts, role=role, prompt=prompt))
        expected = [
            [
                oracle.logit(question(harm, text, role=role, prompt=prompt), alpha=1e-3, temperature=1.5)
                for harm in HARMS
            ]
            for text in texts
        ]
        assert not scores.conditions.any()
        np.testing.assert_allclose(scores.logits, expected, atol=1e-4)
        assert np.ptp(expected) > 0.01


@dataclass(frozen=True, slots=True)
class Tiny:
    """A model, what was imported of it, and where its bundle is."""

    model: PreTrainedModel
    imported: Imported
    bundle: Path

    def scorer(self, **changes: object) -> PolicyScorer:
        """Its scorer, the answers read in another way where `changes` says so."""
        scorer = opened(self.bundle)
        scorer._given = scorer._given.model_copy(update=changes)
        return scorer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One import for all tests that only look at it: converting takes seconds."""
    folder = tmp_path_factory.mktemp("tiny")
    model = checkpoint(folder / "model", "gemma2")
    imported = imported_from(folder / "model")
    return Tiny(model, imported, signed_bundle(imported, folder / "bundle").path)


def test_the_head_is_cut_where_nobody_looks_at_the_rest(tiny: Tiny, tmp_path: Path) -> None:
    """Without alpha and answer mass the file holds two rows of the head, and the scores are the same."""
    checkpoint(tmp_path / "model")
    cut = imported_from(tmp_path / "model", alpha=0.0)
    content = onnx.load_from_string(cut.artefacts["cpu"][1])
    shapes = [tuple(weights.dims) for weights in content.graph.initializer]
    assert shapes.count((SIZES["vocab_size"], SIZES["hidden_size"])) == 1  # the embedding, which is not tied
    assert (2, SIZES["hidden_size"]) in shapes
    oracle = Oracle(
        AutoModelForCausalLM.from_pretrained(tmp_path / "model"), Tokenizer.from_buffer(tokenizer_of("gemma"))
    )
    found = opened(signed_bundle(cut, tmp_path / "bundle").path).score(events("Nobody may ask.")).logits[0]
    expected = [
        oracle.logit(question(harm, "Nobody may ask.", role="prompt"), alpha=0, temperature=1) for harm in HARMS
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    whole = onnx.load_from_string(tiny.imported.artefacts["cpu"][1])
    assert (2, SIZES["hidden_size"]) not in [tuple(weights.dims) for weights in whole.graph.initializer]


def test_weights_that_are_halves_are_stored_as_halves(tmp_path: Path) -> None:
    """A checkpoint in bfloat16 makes a file of half the size, whose scores are those of the model all the same."""
    checkpoint(tmp_path / "model", halves=True)
    imported = imported_from(tmp_path / "model", alpha=0.0)
    content = imported.artefacts["cpu"][1]
    weights = onnx.load_from_string(content).graph.initializer
    large = [tensor for tensor in weights if np.prod(tensor.dims) >= 1024]
    assert {tensor.data_type for tensor in large} == {onnx.TensorProto.BFLOAT16}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    oracle = Oracle(model, Tokenizer.from_buffer(tokenizer_of("gemma")))
    found = opened(signed_bundle(imported, tmp_path / "bundle").path).score(events("Nobody may ask.")).logits[0]
    expected = [
        oracle.logit(question(harm, "Nobody may ask.", role="prompt"), alpha=0, temperature=1) for harm in HARMS
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_model_that_does_not_answer_has_no_score(tiny: Tiny) -> None:
    """Below the answer mass a text has NaN and SCORER_ERROR, and goes to people; above it has its score."""
    oracle = Oracle(tiny.model, Tokenizer.from_buffer(tokenizer_of("gemma")))
    texts = ("How do I kill a process?", "Nobody may ask.", "x", "Does it?")
    masses = [
        min(sum(np.exp(oracle.log_likelihoods(question(harm, text, role="prompt")))) for harm in HARMS)
        for text in texts
    ]
    between = float(np.mean(sorted(masses)[1:3]))
    scores = tiny.scorer(min_answer_mass=between).score(events(*texts))
    answered = np.array(masses) >= between
    assert sorted(answered.tolist()) == [False, False, True, True]
    assert (scores.conditions == np.where(answered, 0, 1 << FailCondition.SCORER_ERROR)).all()
    assert (np.isnan(scores.logits).all(axis=1) == ~answered).all()
    assert (scores.scored == answered).all()


def test_scores_do_not_depend_on_company(tiny: Tiny) -> None:
    """A text has the same bits alone and among others, of any length, in any call."""
    scorer = tiny.scorer()
    assert not scorer.one_row_per_call
    texts = [*TEXTS, *("ask " * count for count in range(1, 30))]
    together = scorer.score(events(*texts))
    alone = [scorer.score(events(text)).logits[0] for text in texts]
    assert np.array_equal(together.logits, alone)
    assert np.isfinite(together.logits).all()


def test_a_long_text_keeps_head_and_tail(tiny: Tiny) -> None:
    """The middle of a text beyond max_tokens is not read, head and tail are, and TRUNCATED says so."""
    middle = [f"How {'ask ' * 200}{word} {'ask ' * 200}dog?" for word in ("Yes", "No")]
    ends = [f"{first} {'ask ' * 400}{last}" for first, last in (("fox", "dog?"), ("How", "fox?"))]
    scores = tiny.scorer().score(events(*middle, *ends))
    assert (scores.conditions == 1 << FailCondition.TRUNCATED).all()
    assert np.array_equal(scores.logits[0], scores.logits[1])
    assert len({row.tobytes() for row in scores.logits[1:]}) == 3


def test_it_passes_a_rehearsal(tiny: Tiny) -> None:
    """A worker that tries the bundle in a process of its own finds its golden logits."""
    assert rehearse(load(tiny.bundle, own_trust())) < 1e-4


def test_one_family_serves_its_roles_alone(tiny: Tiny, tmp_path: Path) -> None:
    """Content of a role without questions is UNSUPPORTED, and not asked about in the words of the other family."""
    templates = json.loads(tiny.imported.files["templates.json"])
    del templates["prompt"]
    files = {"templates.json": json.dumps(templates).encode()}
    scorer = opened(
        signed_bundle(replace(tiny.imported, roles=("output", "post"), files=files), tmp_path / "bundle").path
    )
    scores = scorer.score(replace(batch_of("ask", "ask"), roles=["prompt", "post"]))
    assert scores.conditions.tolist() == [1 << FailCondition.UNSUPPORTED, 0]
    assert np.isnan(scores.logits[0]).all()
    assert scores.windows.tolist() == [0, 1]


def test_the_questions_are_written_one_way(tiny: Tiny) -> None:
    """The bundle's file of questions is canonical JSON, and has the tokens of the answers."""
    content = tiny.imported.files["templates.json"]
    written = json.loads(content)
    assert content == json.dumps(written, sort_keys=True, separators=(",", ":")).encode()
    tokenizer = Tokenizer.from_buffer(tokenizer_of("gemma"))
    assert written["answers"] == {
        answer.lower(): {"text": answer, "token": tokenizer.token_to_id(answer)} for answer in ("Yes", "No")
    }


def test_the_example_is_a_whole_file() -> None:
    """The questions that ship are read, in both families, for four harms."""
    given, templates = read_questions(EXAMPLE, tokenizer_of("gemma"))
    harms = ("sexual", "hate", "harassment", "dangerous")
    assert templates.roles == ("prompt", "output", "post")
    assert given.needs_likelihoods
    tokenizer = QuestionTokenizer(tokenizer_of("gemma"), templates, harms=harms, max_tokens=given.max_tokens)
    assert len(tokenizer.each("a", role="post")) == 4


def _only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def _custom_code(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling.Mine"})


def _rounded(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def _by_length(folder: Path) -> None:
    edit_config(folder, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0})


def _another_kind(folder: Path) -> None:
    edit_config(folder, model_type="gpt2")


def _half_of_the_weights(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3)


def _huge(folder: Path) -> None:
    edit_config(folder, vocab_size=300_000, hidden_size=4096, dtype="bfloat16")


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _with_end(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    document["post_processor"]["single"].append({"SpecialToken": {"id": "<bos>", "type_id": 0}})
    (folder / "tokenizer.json").write_text(json.dumps(document))


def _short(folder: Path) -> None:
    edit_config(folder, max_position_embeddings=128)


def _small_vocabulary(folder: Path) -> None:
    checkpoint(folder, vocab_size=450)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_only_pickled, r"pytorch_model\.bin only, a pickle"),
        (_custom_code, r"auto_map"),
        (_rounded, r"quantization_config"),
        (_by_length, r"turns places by the length of a text \(rope_type dynamic\)"),
        (_another_kind, r"type 'gpt2'; those that can be asked"),
        (_half_of_the_weights, r"lacks 9 of the weights of a LlamaForCausalLM"),
        (_huge, r"has 4\.9 GB of weights, a bundle's file may have 2\.1 GB"),
        (_without_tokenizer, r"tokenizer\.json: No such file"),
        (_with_end, r"puts tokens after a text"),
        (_short, r"max_tokens is 160, the model in .* reads 128"),
        (_small_vocabulary, r"has tokens up to 460, the model has 450 rows"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused(
    damage: Callable[[Path], None], complaint: str, tmp_path: Path
) -> None:
    """Pickles, code, other kinds and halves of models, and tokenizers of others are refused, saying what to do."""
    checkpoint(tmp_path)
    damage(tmp_path)
    with pytest.raises(ExportError, match=complaint):
        imported_from(tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"answers": {"yes": "Yes indeed", "no": "No"}}, "'Yes indeed' is not one token"),
        ({"answers": {"yes": "Yes", "no": "Yes"}}, "cannot be told apart"),
        ({"max_tokens": 64}, "without any text, of max_tokens 64"),
    ],
)
def test_questions_that_do_not_fit_the_tokenizer_are_refused(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    """Answers that are several tokens, or the same one, and templates that leave no room are refused at import."""
    checkpoint(tmp_path)
    with pytest.raises(ExportError, match=complaint):
        imported_from(tmp_path, **changes)


def test_a_mistake_in_the_questions_is_named_with_its_line(tmp_path: Path) -> None:
    """What is wrong in the operator's file is said with file, line and field."""
    checkpoint(tmp_path)
    with pytest.raises(ConfigError, match=r"questions\.yaml:\d+: prompt\.template: \{text\} is nothing that is filled"):
        imported_from(tmp_path, prompt={"template": "{text} {guideline} so", "guidelines": {"hate": "none"}})
