"""Sequence classifiers of several families: imported, they say what transformers itself says."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, PreTrainedModel

from export.errors import ExportError
from export.importing.classifier import import_classifier
from export.importing.head import HarmLogits
from export.importing.imported import Imported
from export.importing.labels import ClassMap, LabelMap, read_labels
from export.importing.texts import texts_of_lengths
from stream.bundle import TextInput
from stream.errors import ConfigError
from stream.scoring.onnx import OnnxScorer
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs, WindowTokenizer
from tests.checkpoints import (
    KINDS,
    MEANINGS,
    class_logits,
    edit_config,
    harm_logits,
    label_map,
    save_checkpoint,
)
from tests.records import batch_of

pytestmark = pytest.mark.export


def silent(_: str) -> None:
    """Say nothing."""


def labels_in(folder: Path) -> LabelMap:
    return read_labels(label_map(folder / "map.yaml", MEANINGS))


def scorer_of(imported: Imported) -> OnnxScorer:
    assert isinstance(imported.input, TextInput)
    assert imported.tokenizer is not None
    session = open_session(imported.artefacts["cpu"][1], "cpu", signature=reads_tokens(len(imported.harms)))
    tokenizer = WindowTokenizer.of(imported.tokenizer, imported.input)
    return OnnxScorer(session, tokenizer, harms=imported.harms, window=imported.input.max_tokens, max_batch_tokens=2048)


SHORT = [text for text in texts_of_lengths(64) if len(text) < 50]
"""Of one window each."""


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PreTrainedModel]:
    """A folder, and the model that is in it."""
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    return folder, save_checkpoint(folder, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier's folder, to copy and to spoil."""
    folder = tmp_path_factory.mktemp("bert") / "checkpoint"
    save_checkpoint(folder, "bert")
    return folder


def spoilt(bert: Path, tmp_path: Path) -> Path:
    """A copy of the folder."""
    return Path(shutil.copytree(bert, tmp_path / "checkpoint"))


def test_logits_are_those_of_transformers(checkpoint: tuple[Path, PreTrainedModel], tmp_path: Path) -> None:
    """Every family gives through the worker's scorer what its module gives, classes summed to harms by brute force."""
    folder, model = checkpoint
    imported = import_classifier(folder, labels_in(tmp_path), silent)
    assert imported.harms == ("harassment", "violence")
    expected = harm_logits(class_logits(model, folder, SHORT))
    assert expected.std(axis=0).min() > 0.3  # else anything would agree
    scorer = scorer_of(imported)
    together = scorer.score(batch_of(*SHORT)).logits
    assert np.abs(together - expected).max() <= 1e-4
    for text, row in zip(SHORT[::5], together[::5], strict=True):
        alone = scorer.score(batch_of(text)).logits[0]
        assert np.abs(alone - harm_logits(class_logits(model, folder, [text]))[0]).max() <= 1e-4
        assert alone.tobytes() == row.tobytes()  # the scorer's promise: the same bits in any company


def test_padding_moves_no_position(tmp_path: Path) -> None:
    """Padding with an id that a RoBERTa takes for a word moves no token: logits are those of the text alone."""
    model = save_checkpoint(tmp_path / "roberta", "roberta")
    imported = import_classifier(tmp_path / "roberta", labels_in(tmp_path), silent)
    session = open_session(imported.artefacts["cpu"][1], "cpu", signature=reads_tokens(2))
    ids = torch.randint(4, 200, (1, 9))
    padded = np.zeros((2, 30), dtype=np.int64)
    padded[0, :9] = padded[1, :9] = ids[0].numpy()
    mask = np.zeros_like(padded)
    mask[:, :9] = 1
    with torch.no_grad():
        expected = harm_logits(np.asarray(model(input_ids=ids).logits.double()))
    assert np.abs(session.run(ModelInputs(padded, mask)) - expected).max() <= 1e-4


@pytest.mark.parametrize(("kind", "window"), [("bert", 70), ("roberta", 68), ("deberta-v3", 70)])
def test_windows_are_as_long_as_the_model_has_positions(kind: str, window: int, tmp_path: Path) -> None:
    """A window has a token for every position, less those that RoBERTa keeps for padding; longer texts are read on."""
    save_checkpoint(tmp_path / kind, kind)
    imported = import_classifier(tmp_path / kind, labels_in(tmp_path), silent)
    assert imported.input == TextInput(max_tokens=window, stride=window // 4, max_windows=8)
    scores = scorer_of(imported).score(batch_of("you " * 150, "you " * 10))
    assert scores.windows.tolist() == [3, 1]
    assert np.isfinite(scores.logits).all()


def test_long_windows_of_relative_positions_agree(tmp_path: Path) -> None:
    """The logarithmic distances of DeBERTa v3 are the same in ONNX Runtime at the size that it ships in, 512 tokens."""
    save_checkpoint(tmp_path / "v3", "deberta-v3", max_position_embeddings=512, position_buckets=256)
    imported = import_classifier(tmp_path / "v3", labels_in(tmp_path), silent)
    assert imported.input.kind == "text"
    assert imported.input.max_tokens == 512
    assert imported.parity.texts > 60
    assert imported.parity.max_abs_logit <= 1e-4


def test_sigmoid_takes_the_largest_class(tmp_path: Path) -> None:
    """Of classes with a probability each, a harm has the largest logit of its own, and harmless ones play no part."""
    model = save_checkpoint(tmp_path / "multi", "bert", problem_type="multi_label_classification")
    imported = import_classifier(tmp_path / "multi", labels_in(tmp_path), silent)
    logits = class_logits(model, tmp_path / "multi", SHORT)
    expected = np.stack([logits[:, 1:3].max(axis=1), logits[:, 3]], axis=1)
    assert np.abs(scorer_of(imported).score(batch_of(*SHORT)).logits - expected).max() <= 1e-4


@given(st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4), st.permutations(range(4)), st.integers(1, 3))
def test_log_odds_are_those_of_the_sum(logits: list[float], order: list[int], count: int) -> None:
    """For any logits and any classes of a harm, softmax gives the log odds of the sum of their probabilities."""
    columns = tuple(order[:count])
    head = HarmLogits(ClassMap("softmax", ("harm",), (columns,), ()))
    exact = np.exp(np.array(logits, dtype=np.longdouble))
    mine, others = exact[order[:count]].sum(), exact[order[count:]].sum()
    found = head(torch.tensor([logits], dtype=torch.float32)).item()
    assert found == pytest.approx(float(np.log(mine / others)), abs=1e-4)


def test_log_odds_stay_finite_where_probabilities_do_not() -> None:
    """Logits of hundreds, whose probabilities are 0 and 1 in float32, still have the right log odds."""
    head = HarmLogits(ClassMap("softmax", ("a", "b"), ((0,), (1, 2)), ()))
    assert head(torch.tensor([[300.0, -250.0, -300.0]])).tolist() == [[550.0, -550.0]]


def test_the_bundle_keeps_the_map_and_names_the_weights(bert: Path, tmp_path: Path) -> None:
    """What a class was taken for, the digest of the weights and where they are from go along with the model."""
    labels = read_labels(label_map(tmp_path / "map.yaml", MEANINGS, source="made up, CC0-1.0"))
    imported = import_classifier(bert, labels, silent)
    assert imported.files == {"labels.yaml": (tmp_path / "map.yaml").read_bytes()}
    digest = hashlib.sha256((bert / "model.safetensors").read_bytes()).hexdigest()
    assert imported.weights == {"model.safetensors": digest}
    assert "| `insult` | `harassment` |" in imported.about
    assert "made up, CC0-1.0" in imported.about


def test_pickled_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    """Weights in a pickle are not read, and the error says which file and what to do."""
    folder = spoilt(bert, tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ExportError, match=r"pytorch_model.bin only, a pickle.*convert it to model.safetensors"):
        import_classifier(folder, labels_in(tmp_path), silent)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_half_a_checkpoint_is_refused(bert: Path, tmp_path: Path, name: str) -> None:
    """A folder that lacks its config, its tokenizer's file or its weights is refused by what is missing."""
    folder = spoilt(bert, tmp_path)
    (folder / name).unlink()
    said = {"tokenizer.json": "save_pretrained", "model.safetensors": "no weights", "config.json": "config.json"}
    with pytest.raises(ExportError, match=said[name]):
        import_classifier(folder, labels_in(tmp_path), silent)


def test_code_of_its_own_is_refused(bert: Path, tmp_path: Path) -> None:
    """A config that names code to run is refused before anything is loaded, and the code is not run."""
    folder = spoilt(bert, tmp_path)
    edit_config(folder, auto_map={"AutoModelForSequenceClassification": "modeling.Model"})
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ExportError, match=r"code of its own \(auto_map\)"):
        import_classifier(folder, labels_in(tmp_path), silent)
    assert not (tmp_path / "ran").exists()


def test_another_family_is_refused(bert: Path, tmp_path: Path) -> None:
    """A model type that was never tried is refused with those that were."""
    folder = spoilt(bert, tmp_path)
    edit_config(folder, model_type="nystromformer")
    with pytest.raises(ExportError, match="'nystromformer'; there are bert, deberta"):
        import_classifier(folder, labels_in(tmp_path), silent)


def test_an_encoder_without_a_head_is_refused(bert: Path, tmp_path: Path) -> None:
    """Weights without a classifier's are refused, where transformers would make random ones up."""
    folder = spoilt(bert, tmp_path)
    config = BertConfig.from_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    edit_config(folder, architectures=["BertForSequenceClassification"])
    with pytest.raises(ExportError, match=r"lacks 2 of the weights.*classifier\.bias"):
        import_classifier(folder, labels_in(tmp_path), silent)


def test_a_tokenizer_of_another_model_is_refused(bert: Path, tmp_path: Path) -> None:
    """Tokens that the model has no rows for are found before they are looked up."""
    folder = spoilt(bert, tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["model"]["vocab"]["beyond"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ExportError, match="tokens up to 5000, the model has 320 rows"):
        import_classifier(folder, labels_in(tmp_path), silent)


def test_an_unmapped_class_is_refused(bert: Path, tmp_path: Path) -> None:
    """A map that leaves one of the checkpoint's classes out is refused by its name, with its file and line."""
    rest = {name: harm for name, harm in MEANINGS.items() if name != "threat"}
    labels = read_labels(label_map(tmp_path / "map.yaml", rest))
    with pytest.raises(ConfigError, match=r"map.yaml:1: classes: the class `threat` is not mapped"):
        import_classifier(bert, labels, silent)
