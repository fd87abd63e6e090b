from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from export.data.dataset import HARMS, Dataset
from export.data.sources import SOURCES
from export.data.splits import split, text_digest
from export.errors import ExportError
from export.learners import encoder_learner, lite_learner
from export.measuring import rotations
from export.measuring.rotations import MIN_LABELS, ROTATIONS, Fold, Rotation, fold, macro, measure, read_results, rotate
from export.models import lite
from export.models.encoder import Encoder, EncoderConfig
from export.text.tokens import VOCABULARY
from export.training import TrainingRecipe
from export.training.place import find_place
from stream.bundle import TextInput
from tests.labelled import labelled

pytestmark = pytest.mark.export

ONE = Rotation("one", "a test", ("forum",))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Three sources of 600 texts."""
    return labelled(("chat", "forum", "wiki"), each=600)


@pytest.fixture(scope="module")
def laid(data: Dataset) -> Fold:
    """The rotation that leaves `forum` out."""
    return fold(data, split(data.texts), ONE)


def test_every_source_left_out_is_known_and_left_out_once() -> None:
    """The rotations name sources that exist, none of them twice."""
    names = [name for rotation in ROTATIONS for name in rotation.left_out]
    assert set(names) <= set(SOURCES)
    assert len(set(names)) == len(names)


def test_families_are_not_parted() -> None:
    """Data sets that share questions are left out together."""
    for family in (("gptfuzz_", "msts_", "advbench", "adaptive_"), ("jbd_", "diffusiondb"), ("toxigen_",)):
        parts = {rotation.name for rotation in ROTATIONS for name in rotation.left_out if name.startswith(family)}
        assert len(parts) == 1


def test_nothing_of_a_left_out_source_is_learnt(data: Dataset, laid: Fold) -> None:
    """Training and validation rows are of the sources that stay; what is measured is of the others."""
    assert set(data.sources[laid.train]) == set(data.sources[laid.validation]) == {"chat", "wiki"}
    assert set(data.sources[laid.left_out]) == {"forum"}


def test_calibration_and_test_rows_stay_untouched(data: Dataset, laid: Fold) -> None:
    """No row of the calibration or the test split is learnt from or measured on."""
    splits = split(data.texts)
    used = np.concatenate([laid.train, laid.validation, laid.left_out])
    assert not np.isin(used, np.concatenate([splits.calibration, splits.test])).any()


def test_a_copy_under_another_name_is_not_learnt(data: Dataset) -> None:
    """A text of a left-out source that another source has too, but for case and digits, is dropped from training."""
    texts = list(data.texts)
    forum = np.flatnonzero(data.sources == "forum")[:300]
    chat = np.flatnonzero(data.sources == "chat")[:300]
    for theirs, ours in zip(forum.tolist(), chat.tolist(), strict=True):
        texts[ours] = texts[theirs].upper() + " 42!"
    copied = replace(data, texts=tuple(texts))
    laid = fold(copied, split(copied.texts), ONE)
    digests = {text_digest(texts[row]) for row in laid.left_out.tolist()}
    assert digests.isdisjoint(text_digest(texts[row]) for row in (*laid.train.tolist(), *laid.validation.tolist()))
    assert not np.isin(chat, np.concatenate([laid.train, laid.validation])).any()


def test_a_rotation_is_the_same_each_time(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows do not depend on a seed or on the order of the data; of a large source the same texts are measured on."""
    monkeypatch.setattr(rotations, "MOST_PER_SOURCE", 100)
    backwards = data.take(np.arange(len(data))[::-1].copy())
    found = [
        [{which.texts[row] for row in rows.tolist()} for rows in (laid.train, laid.validation, laid.left_out)]
        for which in (data, backwards)
        for laid in (fold(which, split(which.texts), ONE),)
    ]
    assert found[0] == found[1]
    assert len(found[0][2]) == 100


def test_a_source_that_is_not_there_is_named(data: Dataset) -> None:
    """A rotation over data without its source is refused, by the source's name."""
    with pytest.raises(ExportError, match="'elsewhere', which is not in the data"):
        fold(data, split(data.texts), Rotation("x", "", ("elsewhere",)))


def test_figures_are_those_of_scikit_learn(data: Dataset, laid: Fold) -> None:
    """Average precision per harm and of any harm is scikit-learn's, on the known labels of the left-out rows."""
    generator = np.random.default_rng(1)
    labels = data.labels.copy()
    labels[generator.random(labels.shape) < 0.2] = np.nan
    unknown = replace(data, labels=labels)
    logits = generator.normal(size=(len(laid.validation) + len(laid.left_out), len(HARMS))).astype(np.float32)
    result = measure(unknown, laid, logits)
    unseen = logits[len(laid.validation) :]
    assert [figure.harm for figure in result.harms] == list(HARMS)
    for harm, figure in enumerate(result.harms):
        known = ~np.isnan(labels[laid.left_out, harm])
        truth = labels[laid.left_out, harm][known]
        assert figure.average_precision == pytest.approx(average_precision_score(truth, unseen[known, harm]))
        assert (figure.n, figure.positives) == (known.sum(), truth.sum())
        assert figure.low <= figure.average_precision <= figure.high
    assert result.any_harm is not None
    expected = average_precision_score(data.unsafe[laid.left_out], unseen.max(axis=1))
    assert result.any_harm.average_precision == pytest.approx(expected)


def test_false_positives_are_counted_at_the_threshold_of_the_sources_that_stay(data: Dataset, laid: Fold) -> None:
    """The threshold flags one in twenty harmless validation texts; the rate is of the harmless left-out ones."""
    logits = np.zeros((len(laid.validation) + len(laid.left_out), len(HARMS)), dtype=np.float32)
    harmless = np.flatnonzero(data.unsafe[laid.validation] == 0)
    logits[harmless, 0] = np.linspace(0, 1, len(harmless))
    left_out = len(laid.validation) + np.flatnonzero(data.unsafe[laid.left_out] == 0)
    logits[left_out[::4], 0] = 2
    logits[left_out[1::4], 0] = 0.9
    result = measure(data, laid, logits)
    assert result.false_positive_rate == pytest.approx(len(left_out[::4]) / len(left_out))
    assert result.harmless == len(left_out)


def test_peoples_labels_come_first(data: Dataset, laid: Fold) -> None:
    """A harm is measured on people's labels alone; on all of them only where people gave too few."""
    logits = np.zeros((len(laid.validation) + len(laid.left_out), len(HARMS)), dtype=np.float32)
    silver = np.zeros(len(data), dtype=np.bool_)
    silver[laid.left_out[: len(laid.left_out) // 2]] = True
    half = measure(replace(data, silver=silver), laid, logits)
    assert {figure.labels for figure in half.harms} == {"human"}
    silver[laid.left_out] = True
    silver[laid.left_out[:10]] = False
    few = measure(replace(data, silver=silver), laid, logits)
    assert {figure.labels for figure in few.harms} == {"all"}


def test_a_harm_with_few_labels_has_no_figure(data: Dataset, laid: Fold) -> None:
    """Below thirty harmful texts a harm is left out of the rotation and of its mean."""
    labels = data.labels.copy()
    positives = laid.left_out[labels[laid.left_out, 2] == 1]
    labels[positives[MIN_LABELS - 1 :], 2] = 0
    logits = np.zeros((len(laid.validation) + len(laid.left_out), len(HARMS)), dtype=np.float32)
    result = measure(replace(data, labels=labels), laid, logits)
    assert [figure.harm for figure in result.harms] == [harm for harm in HARMS if harm != HARMS[2]]
    assert result.macro == pytest.approx(np.mean([figure.average_precision for figure in result.harms]))


def test_the_lite_model_learns_in_a_rotation(data: Dataset) -> None:
    """The shipped trainer runs in rotations, finds the words that mean harm in a source it never saw, and so again."""
    said: list[Any] = []
    learner = lite_learner(
        data,
        lite.Training(batch_size=64, weight_decays=(1e-6, 4e-6)),
        model_input=TextInput(max_tokens=64, stride=8),
        say=said.append,
    )
    first, again = (list(rotate(data, split(data.texts), learner, rotations=(ONE,))) for _ in range(2))
    assert macro(first) > 0.9
    assert first == again
    assert len(said) == 4


def test_an_encoder_learns_in_a_rotation_and_goes_on(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training recipe runs in rotations, in a folder for each, and a second call finds what the first one did."""
    torch.manual_seed(0)
    small = Encoder(EncoderConfig(vocabulary=VOCABULARY, positions=64, width=16, layers=1, heads=2, inner=24))
    monkeypatch.setattr("export.learners.read_minilm", lambda: copy.deepcopy(small))
    tune = {"epochs": 2, "batch_rows": 32, "max_tokens": 32, "rate": 0.02, "layer_factor": 1.0}
    learner = encoder_learner(
        data,
        TrainingRecipe.model_validate({"schema_version": 1, "name": "small", "max_tokens": 32, "tune": tune}),
        model_input=TextInput(max_tokens=64, stride=8),
        place=find_place("fp32"),
        folder=tmp_path,
        say=lambda _: None,
    )
    first = list(rotate(data, split(data.texts), learner, rotations=(ONE,)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "states.safetensors"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = list(rotate(data, split(data.texts), learner, rotations=(ONE,)))
    assert macro(first) > 0.7
    assert first == again
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}


def test_results_are_read_as_they_were_written(data: Dataset, laid: Fold, tmp_path: Path) -> None:
    """A line per rotation, as the command prints it, gives the result again; a wrong line is named."""
    rows = len(laid.validation) + len(laid.left_out)
    result = measure(data, laid, np.random.default_rng(0).normal(size=(rows, len(HARMS))).astype(np.float32))
    path = tmp_path / "rotations.jsonl"
    path.write_text(json.dumps({**asdict(result), "macro": result.macro}) + "\n")
    assert read_results(path) == (result,)
    path.write_text(path.read_text() + '{"rotation": "posts"}\n')
    with pytest.raises(ExportError, match=r"line 2 of .*rotations\.jsonl is no result of a rotation: harms"):
        read_results(path)
    with pytest.raises(ExportError, match="`fairway export rotate` writes such a file"):
        read_results(tmp_path / "missing.jsonl")
