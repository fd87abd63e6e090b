from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from export.data.dataset import HARMS, Dataset
from export.errors import ExportError
from export.functional import SOURCE, expand, read_library
from export.graphs.convert import TorchModel
from export.measuring.metrics import average_precision
from export.models.encoder import Encoder, EncoderClassifier, EncoderConfig, fresh_head
from export.models.logits import text_logits
from export.text.tokens import VOCABULARY, build_moderator_tokenizer
from export.train import STATES, train_on
from export.training import TrainingRecipe, read_recipe
from export.training.batches import plan
from export.training.checkpoint import mean_weights, mix_weights
from export.training.examples import Examples, keep_rows, make_examples
from export.training.loss import masked_loss
from export.training.place import find_place
from export.training.probe import fit_head, fit_heads, frozen_states
from export.training.recipe import Balance, Functional, Probe
from export.training.tune import rate_at
from stream.bundle.manifest import TextForm
from stream.errors import RecipeError
from stream.scoring.batching import MicroBatch
from stream.scoring.onnx import OnnxScorer
from stream.scoring.session import OnnxSession
from stream.scoring.tokenize import ModelInputs, WindowTokenizer
from tests.labelled import labelled
from tests.records import batch_of

pytestmark = pytest.mark.export

RECIPES = Path(__file__).parents[2] / "export" / "recipes"
SMALL = EncoderConfig(vocabulary=VOCABULARY, positions=32, width=16, layers=2, heads=2, inner=24)
TUNED = {
    "schema_version": 1,
    "name": "test",
    "max_tokens": 16,
    "probe": {"epochs": 2},
    "tune": {"epochs": 2, "batch_rows": 16, "max_tokens": 16, "rate": 0.003, "checkpoint_steps": 3},
}


Train = Callable[..., dict[str, Tensor]]


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Somebody pressed control-C."""


def recipe(**tune: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate({**TUNED, "tune": {**TUNED["tune"], **tune}})  # type: ignore[dict-item]


def encoder(*, seed: int = 3) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(SMALL)


@cache
def reader() -> WindowTokenizer:
    return WindowTokenizer(build_moderator_tokenizer(), window=16, overlap=0, max_windows=1)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Two sources of 60 texts."""
    return labelled(("chat", "forum"), each=60)


@pytest.fixture
def train(data: Dataset, tmp_path: Path) -> Train:
    """Trains a small random encoder in a folder of its own; the weights."""

    def run(name: str, how: TrainingRecipe, *, of: Dataset = data) -> dict[str, Tensor]:
        place, folder = find_place("fp32"), tmp_path / name
        trained = train_on(
            of,
            np.arange(len(of)),
            how,
            encoder=encoder(),
            place=place,
            folder=folder,
            states=folder / STATES,
            say=print,
        )
        return trained.model.state_dict()

    return run


# The recipe


def test_the_shipped_recipe_is_valid() -> None:
    """The recipe of the default moderator is read whole."""
    assert read_recipe(RECIPES / "moderator.yaml").name == "moderator"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "schema_version: 1\nname: x\ntune:\n  rat: 0.1\n",
            r"r.yaml:4: tune.rat: .*did you mean `rate`",
        ),
        ("schema_version: 1\nname: x\ntune:\n  rate: 2\n", r"r.yaml:4: tune.rate: .*less than 1"),
        ("schema_version: 1\n", r"r.yaml:1: the file: needs a field `name`|r.yaml:1: name: needs a field `name`"),
        ("schema_version: 2\nname: x\n", r"r.yaml:1: schema_version"),
        ("schema_version: 1\nname: x\nform:\n  lead: {reader: y}\n", r"r.yaml:4: form.lead.*"),
    ],
)
def test_a_wrong_recipe_is_refused_by_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    """What is wrong in a recipe is named with its file, line and field."""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


# What is learnt from


def test_an_unknown_label_has_no_weight(data: Dataset) -> None:
    """Where a label is unknown its weight is 0, and nowhere else."""
    labels = data.labels.copy()
    labels[::3, 1] = np.nan
    examples = make_examples(replace(data, labels=labels), Balance(), TextForm(), reader())
    np.testing.assert_array_equal(examples.weights == 0, np.isnan(labels))
    np.testing.assert_array_equal(examples.targets[examples.weights > 0], labels[~np.isnan(labels)])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_source_weighs_by_the_power_of_its_size(power: float) -> None:
    """The weights of a source sum to its size to the power of 1 minus `source_power`, up to one factor for all."""
    both = labelled(("large", "small"), each=160)
    uneven = both.take(np.concatenate([np.arange(160), 160 + np.arange(10)]))
    examples = make_examples(uneven, Balance(source_power=power), TextForm(), reader())
    large, small = (examples.weights[uneven.sources == name, 0].sum() for name in ("large", "small"))
    assert large / small == pytest.approx(16 ** (1 - power), rel=1e-5)
    assert examples.weights[:, 0].mean() == pytest.approx(1)


def test_a_silver_label_counts_less_and_says_less(data: Dataset) -> None:
    """A silver row has the recipe's share of weight, and targets drawn towards one half."""
    silver = np.zeros(len(data), dtype=np.bool_)
    silver[0] = True
    balance = Balance(source_power=0, silver_weight=0.25, silver_smoothing=0.2)
    examples = make_examples(replace(data, silver=silver), balance, TextForm(), reader())
    assert examples.weights[0, 0] / examples.weights[1, 0] == pytest.approx(0.25)
    np.testing.assert_allclose(examples.targets[0], np.where(data.labels[0] == 1, 0.9, 0.1), rtol=1e-6)
    np.testing.assert_array_equal(examples.targets[1:], data.labels[1:])


def test_harmful_labels_can_weigh_as_much_as_harmless_ones(data: Dataset) -> None:
    """With `class_power` 1 both classes of each harm weigh the same, with one half the square root of their odds."""
    none, half, whole = (
        make_examples(data, Balance(class_power=power), TextForm(), reader()).weights for power in (0, 0.5, 1)
    )
    harmful = data.labels == 1
    odds = (none * ~harmful).sum(axis=0) / (none * harmful).sum(axis=0)
    np.testing.assert_array_equal(none[~harmful], whole[~harmful])
    np.testing.assert_allclose((whole * harmful).sum(axis=0), (whole * ~harmful).sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose((half * harmful).sum(axis=0), (none * harmful).sum(axis=0) * odds**0.5, rtol=1e-4)


def test_a_harm_that_nothing_shows_keeps_its_weights(data: Dataset) -> None:
    """Without a harmful label there are no odds, and nothing is divided by nothing."""
    harmless = replace(data, labels=np.zeros_like(data.labels))
    plain, balanced = (
        make_examples(harmless, Balance(class_power=power), TextForm(), reader()).weights for power in (0, 1)
    )
    np.testing.assert_array_equal(plain, balanced)


def test_a_source_can_be_trusted_more_or_less(data: Dataset) -> None:
    """`trust` multiplies the weight of one source; a source that is not there is named."""
    examples = make_examples(data, Balance(trust={"chat": 0.5}), TextForm(), reader())
    chat, forum = (examples.weights[data.sources == name, 0].mean() for name in ("chat", "forum"))
    assert chat / forum == pytest.approx(0.5)
    with pytest.raises(ExportError, match="'elsewhere'"):
        make_examples(data, Balance(trust={"elsewhere": 2.0}), TextForm(), reader())


def test_of_each_source_so_many_texts_are_learnt_from(data: Dataset) -> None:
    """`most_per_source` keeps the first texts by digest, and rows without any label are never kept."""
    labels = data.labels.copy()
    labels[:20] = np.nan
    unlabelled = replace(data, labels=labels)
    kept = keep_rows(unlabelled, np.arange(len(data)), Balance(most_per_source=25))
    assert np.unique(data.sources[kept], return_counts=True)[1].tolist() == [25, 25]
    assert kept.min() >= 20
    assert len(keep_rows(unlabelled, np.arange(len(data)), Balance())) == len(data) - 20


# Loss, rate, batches


def test_the_loss_is_cross_entropy_over_known_labels() -> None:
    """Equal to the definition, label by label; a label of weight 0 changes neither loss nor gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator, requires_grad=True)
    targets, weights = torch.rand(5, 3, generator=generator), torch.rand(5, 3, generator=generator)
    weights[2] = 0
    loss = masked_loss(logits, targets, weights)
    chance = logits.detach().sigmoid()
    by_hand = -(weights * (targets * chance.log() + (1 - targets) * (1 - chance).log())).sum() / 5
    assert float(loss.detach()) == pytest.approx(float(by_hand), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[2].any()
    targets[2] = 1 - targets[2]
    assert float(masked_loss(logits, targets, weights).detach()) == float(loss.detach())


@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=80), batch_rows=st.integers(1, 20), seed=st.integers())
def test_every_row_is_in_one_batch(lengths: list[int], batch_rows: int, seed: int) -> None:
    """No row is left out or seen twice in an epoch, no batch is too large, and each is as long as its longest row."""
    array, seed = np.array(lengths), abs(seed)
    batches = plan(array, batch_rows=batch_rows, seed=seed)
    assert np.bincount(np.concatenate([batch.rows for batch in batches])).tolist() == [1] * len(lengths)
    assert all(len(batch.rows) <= batch_rows for batch in batches)
    assert all(batch.length == array[batch.rows].max() for batch in batches)
    again = plan(array, batch_rows=batch_rows, seed=seed)
    assert [batch.rows.tolist() for batch in batches] == [batch.rows.tolist() for batch in again]


def test_batches_hold_rows_of_one_length_in_random_order() -> None:
    """Less than a tenth is padding, short rows do not all come first, and another epoch has other batches."""
    lengths = np.random.default_rng(0).integers(4, 64, 3000)
    first, second = (plan(lengths, batch_rows=32, seed=seed) for seed in (0, 1))
    assert sum(batch.length * len(batch.rows) for batch in first) < 1.1 * lengths.sum()
    middle = [batch.length for batch in first[: len(first) // 2]]
    assert abs(np.mean(middle) - np.mean(lengths)) < 8
    assert {tuple(sorted(batch.rows)) for batch in first}.isdisjoint(tuple(sorted(batch.rows)) for batch in second)


@given(steps=st.integers(1, 300), warmup=st.floats(0, 1))
def test_the_rate_rises_and_falls_and_is_never_nothing(steps: int, warmup: float) -> None:
    """Every step has a rate above 0 and at most the full one, which some step has or comes near to."""
    rates = [rate_at(step, steps, warmup=warmup) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1, abs=1.01 / steps)


# The head


def test_the_head_is_fitted_to_states_as_they_are() -> None:
    """With enough steps a linear head scores as scikit-learn's logistic regression does, on states of any scale."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2000, 8, generator=generator) * torch.tensor([1.0, 5, 0.1, 1, 1, 1, 20, 1]) + 3
    true = (states[:, 0] + states[:, 1] / 5 > 6.5 + torch.randn(2000, generator=generator)).float()[:, None]
    windows = reader().read(["a"] * 2000)
    examples = Examples(windows, true.numpy(), np.ones((2000, 1), dtype=np.float32))
    head = fresh_head(8, harms=1, hidden=0, dropout=0.0)
    fit_head(head, states, examples, Probe(epochs=40, rate=0.05, weight_decay=0), seed=0)
    with torch.no_grad():
        found = head.eval()(states).numpy()[:, 0]
    oracle = LogisticRegression(C=1e6, max_iter=2000).fit(states.numpy(), true.numpy()[:, 0])
    expected = oracle.decision_function(states.numpy())
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert average_precision(found, true.numpy()[:, 0]) == pytest.approx(
        average_precision(expected, true.numpy()[:, 0]), abs=0.002
    )


# The whole


@pytest.mark.parametrize("hidden", [0, 8])
def test_several_heads_are_one_whose_logits_are_their_mean(data: Dataset, hidden: int) -> None:
    """A head of three members gives the mean of three heads that were fitted alone, with other seeds each."""
    examples = make_examples(data, Balance(), TextForm(), reader())
    states = torch.randn(len(examples), SMALL.width)

    def fitted(seed: int, members: int) -> nn.Sequential:
        said = {"seed": seed, "head": {"hidden": hidden, "members": members}, "probe": {"epochs": 1}}
        recipe = TrainingRecipe.model_validate({"schema_version": 1, "name": "test", **said})
        model = EncoderClassifier(Encoder(SMALL), harms=len(HARMS), hidden=hidden * members)
        fit_heads(model, states, examples, recipe)
        return model.head.eval()

    alone = torch.stack([fitted(seed, 1)(states) for seed in (5, 6, 7)])
    together = fitted(5, 3)(states)
    assert torch.allclose(together, alone.mean(dim=0), atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_states_are_computed_once(data: Dataset, tmp_path: Path) -> None:
    """States come from the file where it has them, others are computed, and another encoder has its own."""
    torch.manual_seed(0)
    model = EncoderClassifier(Encoder(SMALL), harms=len(HARMS), layers=2)
    place, cache = find_place("fp32"), tmp_path / "states"
    said: list[str] = []
    some, more = (make_examples(data.take(np.arange(n)), Balance(), TextForm(), reader()) for n in (40, 60))

    def states(of: Examples, model: EncoderClassifier = model) -> Tensor:
        return frozen_states(model, of, place, cache=cache, say=said.append)

    first = states(some)
    both = states(more)
    assert torch.equal(both[:40], first)
    batch = MicroBatch(np.arange(60), int(more.windows.lengths.max()))
    expected = model.eval().pool(*place.inputs(more.windows.inputs(batch)))
    torch.testing.assert_close(both, expected.detach(), atol=1e-5, rtol=1e-4)
    assert torch.equal(states(some), first)
    assert said == ["computing the states of 40 texts, 0 are known", "computing the states of 20 texts, 40 are known"]
    other = states(some, EncoderClassifier(Encoder(SMALL), harms=len(HARMS), layers=2))
    assert not torch.allclose(other, first, atol=0.01)


def test_the_encoder_stays_as_it_comes_without_tuning(train: Train) -> None:
    """A recipe without `tune` fits the head and touches nothing else."""
    weights = train("probe", recipe().model_copy(update={"tune": None}))
    fresh = EncoderClassifier(encoder(), harms=len(HARMS)).state_dict()
    assert all(torch.equal(weights[name], fresh[name]) for name in fresh if not name.startswith("head."))
    assert not torch.equal(weights["head.2.weight"], fresh["head.2.weight"])


def test_tuning_changes_every_layer(train: Train) -> None:
    """All of the encoder trains, embeddings included."""
    weights = train("tuned", recipe())
    fresh = EncoderClassifier(encoder(), harms=len(HARMS)).state_dict()
    assert [name for name in fresh if torch.equal(weights[name], fresh[name])] == []


def test_it_learns(tmp_path: Path) -> None:
    """Even a small random encoder finds the words that mean harm in texts it has not seen."""
    data = labelled(("chat", "forum"), each=700)
    unseen = labelled(("wiki",), each=200, seed=1)
    trained = train_on(
        data,
        np.arange(len(data)),
        recipe(rate=0.02, epochs=4, layer_factor=1.0),
        encoder=encoder(),
        place=find_place("fp32"),
        folder=tmp_path,
        states=tmp_path / "states",
        say=lambda _: None,
    )
    logits = text_logits(TorchModel(trained.model), reader().read(unseen.texts), harms=len(HARMS))
    found = [average_precision(logits[:, harm], unseen.labels[:, harm]) for harm in range(len(HARMS))]
    assert np.mean(found) > 0.9


def test_figures_hold_a_recipe_that_can_be_read_again(data: Dataset, tmp_path: Path) -> None:
    """What trained the weights stands beside them as it was, a stage that was left out too."""
    how = recipe().model_copy(update={"tune": None})
    trained = train_on(
        data,
        np.arange(len(data)),
        how,
        encoder=encoder(),
        place=find_place("fp32"),
        folder=tmp_path,
        states=tmp_path / "states",
        say=lambda _: None,
    )
    assert TrainingRecipe.model_validate(json.loads(json.dumps(trained.figures["recipe"]))) == how


def test_texts_of_our_own_are_learnt_from_too(data: Dataset, tmp_path: Path) -> None:
    """With `functional` the training templates' texts are one more source; those for evaluation are not among them."""
    how = recipe().model_copy(update={"tune": None, "functional": Functional(per_template=2)})
    place = find_place("fp32")
    rows = np.arange(len(data))
    trained = train_on(
        data, rows, how, encoder=encoder(), place=place, folder=tmp_path, states=tmp_path / "states", say=print
    )
    ours = expand(read_library(), per_template=2)
    assert trained.figures["rows_by_source"] == {"chat": 60, "forum": 60, SOURCE: len(ours)}


def test_noise_is_other_noise_in_each_epoch(train: Train, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `noise` the texts of the second stage are changed, otherwise in each epoch; the head saw them unchanged."""
    read: list[tuple[str, ...]] = []

    def remembering(texts: Dataset, *rest: Any) -> Examples:
        read.append(texts.texts)
        return make_examples(texts, *rest)

    monkeypatch.setattr("export.train.make_examples", remembering)
    train("noisy", recipe(noise={"share": 0.8}))
    assert read[0] == data.texts
    assert len({*read}) == len(read) == 3


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stopped between checkpoints, twice, it ends with the same bits as one that ran through, and with its figures."""
    straight = train("straight", recipe(average_checkpoints=2, keep=0.7))
    for steps in (5, 4):
        monkeypatch.setattr("export.training.tune.masked_loss", _stops_after(steps))
        with pytest.raises(Stopped):
            train("stopped", recipe(average_checkpoints=2, keep=0.7))
    monkeypatch.undo()
    resumed = train("stopped", recipe(average_checkpoints=2, keep=0.7))
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    figures = [_figures(tmp_path / name) for name in ("straight", "stopped")]
    assert [line["step"] for line in figures[0]] == list(range(len(figures[0])))
    losses = [[(line["step"], line["loss"]) for line in lines] for lines in figures]
    assert losses[0] == losses[1]


def test_a_finished_training_is_not_done_again(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call finds the last checkpoint, takes no step, and ends with the same weights."""
    first = train("once", recipe())
    monkeypatch.setattr("export.training.tune.masked_loss", _stops_after(0))
    again = train("once", recipe())
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("change", ["recipe", "data"])
def test_another_training_is_not_gone_on_with(train: Train, data: Dataset, change: str) -> None:
    """A folder with checkpoints of another recipe or of other data is refused."""
    train("mixed", recipe())
    other = {"how": recipe(rate=0.004)} if change == "recipe" else {"of": data.take(np.arange(len(data))[::-1].copy())}
    with pytest.raises(ExportError, match="of another recipe or other data: give another --out"):
        train("mixed", **{"how": recipe(), **other})


def test_a_damaged_checkpoint_is_named(train: Train, tmp_path: Path) -> None:
    """A checkpoint cut short is refused by its path, with what to do."""
    train("cut", recipe())
    (path,) = (tmp_path / "cut" / "checkpoints").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"cannot go on from .*step-\d+.safetensors: .*delete it"):
        train("cut", recipe())


def test_checkpoints_are_safetensors_and_few(train: Train, tmp_path: Path) -> None:
    """Only so many checkpoints are kept as are averaged, and nothing in the folder is a pickle."""
    train("few", recipe(average_checkpoints=2))
    files = [path for path in (tmp_path / "few").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".jsonl"}
    assert len([path for path in files if path.name.startswith("step-")]) == 2


def test_keeping_nothing_of_the_tuning_leaves_the_probe(train: Train) -> None:
    """`keep` 0 is the model before tuning, one half is half of the way, and it can be chosen after the training."""
    before, half, after = (train("kept", recipe(keep=keep)) for keep in (0.0, 0.5, 1.0))
    probe = train("probe", recipe().model_copy(update={"tune": None}))
    for name, tensor in probe.items():
        torch.testing.assert_close(before[name], tensor)
        torch.testing.assert_close(half[name], (tensor + after[name]) / 2)


def test_weights_are_averaged_tensor_by_tensor() -> None:
    """The mean of three models is theirs in every tensor; mixing is linear and exact at both ends."""
    generator = torch.Generator().manual_seed(0)
    models = [{"a": torch.randn(3, generator=generator), "b": torch.randn(2, 2, generator=generator)} for _ in range(3)]
    mean = mean_weights(models)
    torch.testing.assert_close(mean["b"], (models[0]["b"] + models[1]["b"] + models[2]["b"]) / 3)
    assert torch.equal(mix_weights(models[0], models[1], keep=0)["a"], models[0]["a"])
    assert torch.equal(mix_weights(models[0], models[1], keep=1)["a"], models[1]["a"])


# What the model reads


FORM = TextForm(lead={"prompt": "asked: ", "output": "said: "}, prompt_characters=30, prompt_end=" - ")


def test_training_and_serving_read_the_same_tokens(data: Dataset) -> None:
    """The scorer of a bundle with this form gives the model the very ids that training gave it, role and prompt in."""
    roles = np.array(["prompt", "output", "post"] * (len(data) // 3))
    prompts = tuple("" if row % 4 else f"what about {row}, is it as long as that?" for row in range(len(data)))
    asked = replace(data, roles=roles, prompts=prompts)
    trained_on = make_examples(asked, Balance(), FORM, reader()).windows
    events = replace(batch_of(*asked.texts), roles=roles.tolist(), prompts=[prompt or None for prompt in asked.prompts])
    session = Recording()
    scorer = OnnxScorer(session, reader(), harms=HARMS, window=16, max_batch_tokens=1 << 20, form=FORM)
    session.seen.clear()
    scorer.score(events)
    expected = {
        (101, *trained_on.tokens[start : start + length].tolist(), 102)
        for start, length in zip(trained_on.windows.starts, trained_on.windows.lengths, strict=True)
    }
    assert session.seen - {(0,)} == expected
    assert len({row[:2] for row in expected}) > 1


class Recording(OnnxSession):
    """A session that remembers the rows it is asked about."""

    def __init__(self) -> None:
        self.provider = "cpu"
        self.seen: set[tuple[int, ...]] = set()

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        for ids, mask in zip(inputs.input_ids, inputs.attention_mask, strict=True):
            self.seen.add(tuple(ids[mask == 1].tolist()))
        return np.zeros((len(inputs.input_ids), len(HARMS)), dtype=np.float32)


def _stops_after(steps: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss, so many times."""
    left = iter(range(steps))

    def loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        if next(left, None) is None:
            raise Stopped
        return masked_loss(logits, targets, weights)

    return loss


def _figures(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "checkpoints" / "steps.jsonl").read_text().splitlines()]
