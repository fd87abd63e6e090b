"""An encoder's weights through the whole recipe, on texts made up here."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from export.data.dataset import HARMS, read_dataset
from export.data.splits import split
from export.errors import ExportError
from export.graphs.parity import Flips
from export.making import encoder as make_encoder
from export.models.encoder import Encoder, EncoderClassifier, EncoderConfig, save_classifier
from export.recipe import Recipe, build, encoder
from export.text.tokens import build_moderator_tokenizer
from stream.bundle import Bundle, TextInput
from stream.bundle.evaluation import parse_evaluation
from stream.scoring.batching import MicroBatch
from stream.scoring.tokenize import WindowTokenizer
from tests.labelled import made_up_lines

pytestmark = pytest.mark.export

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = {"max_tokens": 24, "stride": 4, "max_windows": 4}
TRAINED_BY = {"schema_version": 1, "name": "small", "form": {"lead": {"output": "answer: "}}}
SMALL = EncoderConfig(positions=24, width=32, layers=1, heads=2, inner=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up texts."""
    folder = tmp_path_factory.mktemp("data")
    with gzip.open(folder / "made_up.jsonl.gz", "wt") as file:
        file.write("\n".join(made_up_lines(1400)))
    return folder


@pytest.fixture(scope="module")
def weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder that has learnt, in a few seconds, which words mean harm."""
    torch.manual_seed(1)
    dataset = read_dataset(data)
    learnt = dataset.take(split(dataset.texts).train)
    reader = WindowTokenizer(build_moderator_tokenizer(), window=24, overlap=0, max_windows=1)
    windows = reader.read(learnt.texts)
    inputs = windows.inputs(MicroBatch(np.arange(len(learnt)), 24))
    labels = torch.from_numpy(learnt.labels)
    model = EncoderClassifier(Encoder(SMALL, dropout=0.0), harms=len(HARMS), layers=1, dropout=0.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.004)
    for _ in range(300):
        logits = model(torch.from_numpy(inputs.input_ids), torch.from_numpy(inputs.attention_mask))
        known = ~labels.isnan()
        loss = nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_classifier(model.eval(), path)
    figures = {"recipe": TRAINED_BY, "rows_by_source": {"fairway_functional": len(learnt)}}
    (path.parent / "training.json").write_text(json.dumps(figures))
    return path


def recipe_of(weights: Path) -> Recipe:
    """The recipe for these weights, but of short windows."""
    recipe = encoder(weights)
    return replace(recipe, input=recipe.input.model_copy(update=WINDOW))


@pytest.fixture(scope="module")
def bundle(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of these weights."""
    recipe = replace(recipe_of(weights), max_false_positive_gap=None, gates_flips=False)
    out = tmp_path_factory.mktemp("models") / "small"
    return build(data, out, recipe=recipe, created_at=NOW, say=lambda _: None)


def test_an_encoder_is_packed_for_both_providers(bundle: Bundle) -> None:
    """The bundle has an artefact of 8 bits for the CPU, a fused one for CUDA, and a golden batch."""
    assert bundle.manifest.artefacts == {"cpu": "cpu-int8.onnx", "cuda": "cuda-fp16.onnx"}
    assert len(bundle.read("cpu-int8.onnx")) < len(bundle.read("cuda-fp16.onnx"))
    assert bundle.manifest.golden is not None


def test_a_bundle_is_named_and_reads_as_its_training_did(bundle: Bundle) -> None:
    """Name and form are those of the recipe that trained the weights."""
    assert isinstance(bundle.manifest.input, TextInput)
    assert (bundle.manifest.name, bundle.manifest.input.form.lead) == ("small", {"output": "answer: "})


def test_an_encoder_is_judged_by_what_is_served(bundle: Bundle) -> None:
    """It ranks better than chance, which is 0.3; converting changed nothing; what rounding turns round is counted."""
    evaluation = parse_evaluation(bundle.read("evaluation.json"), name="evaluation.json")
    overall = {row.harm: row for row in evaluation.measurements if row.part == "all" and row.labels == "human"}
    assert {
        harm: overall[harm].average_precision for harm in HARMS if (overall[harm].average_precision or 0) < 0.45
    } == {}
    assert evaluation.conversion.parity_max_abs_logit < 1e-4
    assert evaluation.conversion.flips is not None
    assert set(evaluation.conversion.flips) == set(HARMS)
    assert max(evaluation.conversion.flips.values()) < 0.1


def test_an_unfair_encoder_makes_no_bundle(data: Path, weights: Path, tmp_path: Path) -> None:
    """The gate over identity terms refuses a gap above what the recipe allows, and leaves nothing behind."""
    recipe = replace(recipe_of(weights), max_false_positive_gap=-1.0, gates_flips=False)
    with pytest.raises(ExportError, match="are allowed"):
        build(data, tmp_path / "small", recipe=recipe, created_at=NOW, say=lambda _: None)
    assert not (tmp_path / "small").exists()


def test_what_it_learnt_from_is_what_its_training_says(bundle: Bundle) -> None:
    """The manifest names the sources of `training.json`, our own texts among them, and not what lies in the folder."""
    assert [used.source for used in bundle.manifest.training_data] == ["fairway_functional"]


def test_weights_without_their_figures_are_refused(weights: Path, tmp_path: Path) -> None:
    """Nobody can tell what weights were learnt from that lie alone, so no bundle is made of them."""
    alone = tmp_path / "model.safetensors"
    alone.write_bytes(weights.read_bytes())
    with pytest.raises(ExportError, match="`fairway export train` writes it"):
        encoder(alone)
    (tmp_path / "training.json").write_text(json.dumps({"recipe": TRAINED_BY}))
    with pytest.raises(ExportError, match="rows_by_source: Field required; train the model again"):
        encoder(alone)


def test_products_stay_in_float32_until_few_decisions_turn_round(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rounding turns more decisions round than is allowed, a product is kept, and the progress says so."""
    counted = iter([0.5, 0.5, 0.0])
    monkeypatch.setattr(make_encoder, "_flips", lambda *_: Flips((next(counted),), 1))
    recipe = replace(recipe_of(weights), max_false_positive_gap=None, gates_flips=False)
    said: list[str] = []
    build(data, tmp_path / "small", recipe=recipe, created_at=NOW, say=said.append)
    assert [line for line in said if line.startswith("kept 2 matrix products in float32")]
