from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import nn

from export.errors import ExportError
from export.graphs.convert import OPSET, TorchModel, convert, operators
from export.graphs.fused import fuse
from export.graphs.parity import check_parity
from export.graphs.quantise import product_shapes, quantise, quantise_table, quantise_until
from export.models.encoder import Encoder, EncoderClassifier, EncoderConfig, Standardise, read_minilm, served
from export.text.tokens import VOCABULARY, build_tokenizer
from stream.scoring.onnx import OnnxScorer
from stream.scoring.session import CPU, SLOW_ON_CPU, OnnxSession, open_session, reads_tokens
from stream.scoring.session import _options as session_options
from stream.scoring.tokenize import ModelInputs, WindowTokenizer
from tests.records import batch_of

import onnxruntime  # isort: skip - after stream.scoring, which switches its telemetry off

pytestmark = pytest.mark.export

SMALL = EncoderConfig(vocabulary=VOCABULARY, positions=64, width=48, layers=2, heads=3, inner=96)
HARMS = 3
WINDOW = 64
LINEARS = 4  # per layer: queries with keys and values, out, up, down
HEAD = 1  # the first layer of the head; the last one is small
WORDS = ["I", "will", "hurt", "you", "hello", "kind", "world", "!", "naïve", "漢字"]


@pytest.fixture(scope="module")
def classifier() -> EncoderClassifier:
    """A small classifier whose random weights are large enough for texts to differ."""
    torch.manual_seed(1)
    model = EncoderClassifier(Encoder(SMALL), harms=HARMS, hidden=200, layers=2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
        # As in a trained model: channels are far from zero, and move little around where they are.
        model.encoder.layers[-1].norm.bias.uniform_(-20, 20)
        given_inputs = inputs(200, 30, seed=8)
        ids, mask = (torch.from_numpy(part) for part in (given_inputs.input_ids, given_inputs.attention_mask))
        states = model.eval().pool(ids, mask)
        scale = cast(Standardise, model.head[0])
        scale.mean.copy_(states.mean(dim=0))
        scale.spread.copy_(states.std(dim=0))
    return model


@pytest.fixture(scope="module")
def plain(classifier: EncoderClassifier) -> bytes:
    """It as ONNX in float32."""
    return convert(served(classifier))


@pytest.fixture(scope="module")
def quantised(plain: bytes) -> bytes:
    """It as 8-bit ONNX."""
    return quantise(plain, [inputs(20, 30, seed=9)])


def inputs(rows: int, length: int, *, seed: int = 0) -> ModelInputs:
    """Random words in rows of several lengths, padded to `length`."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, VOCABULARY, (rows, length))
    mask = (np.arange(length) < generator.integers(1, length + 1, (rows, 1))).astype(np.int64)
    return ModelInputs(ids * mask, mask)


def run(model: bytes, given_inputs: ModelInputs) -> NDArray[np.float32]:
    return session(model).run(given_inputs)


def session(model: bytes) -> OnnxSession:
    return open_session(model, "cpu", signature=reads_tokens(HARMS))


@pytest.mark.parametrize("shape", [(1, 4), (2, 7), (9, 64)])
def test_converted_logits_are_those_of_the_module(
    classifier: EncoderClassifier, plain: bytes, shape: tuple[int, int]
) -> None:
    """The float32 model gives the module's logits within the tolerance, for any number of rows and tokens."""
    given_inputs = inputs(*shape)
    check_parity(TorchModel(classifier).run(given_inputs), run(plain, given_inputs))


def test_the_packaged_encoder_is_converted_and_quantised_to_its_size() -> None:
    """With the packaged weights float32 agrees with the module, and the 8-bit model has at most 26 MB."""
    torch.manual_seed(2)
    model = EncoderClassifier(read_minilm(), harms=HARMS)
    plain = convert(served(model))
    given_inputs = inputs(4, 24)
    check_parity(TorchModel(model).run(given_inputs), run(plain, given_inputs))
    small = quantise(plain, [given_inputs])
    assert len(small) <= 26_000_000
    assert operators(small)["MatMulIntegerToFloat"] == 6 * LINEARS
    assert np.abs(run(small, given_inputs) - run(plain, given_inputs)).max() < 0.05  # fresh head: logits of ±0.1
    assert len(fuse(model)) <= 34_000_000


def test_opset_and_free_sizes(plain: bytes, quantised: bytes, classifier: EncoderClassifier) -> None:
    """Every artefact has the one opset of ONNX, and rows and length free in both inputs."""
    for model in (plain, quantised, fuse(classifier)):
        proto = onnx.load_from_string(model)
        assert [entry.version for entry in proto.opset_import if not entry.domain] == [OPSET]
        for value in proto.graph.input:
            sizes = value.type.tensor_type.shape.dim
            assert [bool(size.dim_param) for size in sizes] == [True, True]
            assert not any(size.dim_value for size in sizes)


def test_what_is_quantised_multiplies_unsigned_by_signed(quantised: bytes) -> None:
    """Each product of the layers takes unsigned tokens and signed weights, and each token has its own step."""
    proto = onnx.load_from_string(quantised)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    products = [node for node in proto.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == SMALL.layers * LINEARS + HEAD
    for node in products:
        weights, scales, middle, zero = (constants[node.input[at]] for at in (1, 3, 4, 5))
        assert [each.data_type for each in (weights, middle, zero)] == [
            TensorProto.INT8,
            TensorProto.UINT8,
            TensorProto.INT8,
        ]
        assert list(scales.dims) == [weights.dims[1]]
    assert operators(quantised)["DynamicQuantizeLinear"] == 0
    assert operators(quantised)["ReduceMax"] == len(products)


@pytest.mark.parametrize("form", ["plain", "quantised"])
def test_the_runtime_runs_what_is_fast_on_the_cpu(form: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """After the runtime's own optimisation norms and attention are still plain, activations fused, products 8-bit."""
    options = session_options()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    model = request.getfixturevalue(form)
    onnxruntime.InferenceSession(model, options, providers=[CPU], disabled_optimizers=SLOW_ON_CPU)
    found = operators((tmp_path / "optimised.onnx").read_bytes())
    assert found["LayerNormalization"] == 2 * SMALL.layers + 1
    assert found["BiasGelu"] + found["Gelu"] == SMALL.layers + 1  # the head has a hidden layer
    assert found["MatMulIntegerToFloat"] == (SMALL.layers * LINEARS + HEAD if form == "quantised" else 0)
    assert not {"SkipLayerNormalization", "EmbedLayerNormalization", "Attention", "Erf"} & found.keys()


def test_word_table_is_8_bit(quantised: bytes) -> None:
    """No table of words in float32 is left in the file."""
    tables = [t for t in onnx.load_from_string(quantised).graph.initializer if t.dims[:1] == [VOCABULARY]]
    assert Counter(table.data_type for table in tables) == {TensorProto.INT8: 1, TensorProto.FLOAT: 1}
    assert sorted(table.dims[1] for table in tables) == [1, SMALL.width]


def test_quantised_logits_are_close(plain: bytes, quantised: bytes) -> None:
    """8-bit logits follow those in float32: the error is a small part of what logits differ by between texts."""
    given_inputs = inputs(64, 40)
    expected, found = run(plain, given_inputs), run(quantised, given_inputs)
    assert 0 < np.abs(found - expected).mean() < 0.05 * expected.std()


def test_what_is_kept_is_not_quantised(plain: bytes) -> None:
    """Products to be kept stay in float32, and the error falls; a number that is none is refused."""
    shapes = product_shapes(plain)
    assert shapes == [(48, 144), (48, 48), (48, 96), (96, 48)] * 2 + [(96, 200)]
    sample, given_inputs = [inputs(20, 30, seed=9)], inputs(64, 40)
    kept = quantise(plain, sample, keep=range(8))
    assert operators(kept)["MatMulIntegerToFloat"] == 1
    errors = [np.abs(run(m, given_inputs) - run(plain, given_inputs)).mean() for m in (kept, quantise(plain, sample))]
    assert errors[0] < errors[1]
    with pytest.raises(ExportError, match="no matrix product 9 to keep: the model has 9"):
        quantise(plain, sample, keep=[9])
    with pytest.raises(ExportError, match="no matrix product with constant weights to quantise"):
        quantise(plain, sample, keep=range(9))


def test_precision_is_raised_until_it_is_enough(plain: bytes) -> None:
    """The products that cost most stay in float32, one after another, until the model is good enough, and no longer."""
    sample = [inputs(20, 30, seed=9)]
    expected = run(plain, sample[0])

    def error(model: bytes) -> float:
        return float(np.abs(run(model, sample[0]) - expected).mean())

    everything, none = quantise_until(plain, sample, lambda _: True)
    assert (everything, none) == (quantise(plain, sample), ())
    enough = 0.7 * error(everything)
    better, kept = quantise_until(plain, sample, lambda model: error(model) < enough)
    assert error(better) < enough <= error(quantise(plain, sample, keep=kept[:-1]))
    assert 0 < len(kept) == 9 - operators(better)["MatMulIntegerToFloat"]
    with pytest.raises(ExportError, match="no matrix product can be quantised"):
        quantise_until(plain, sample, lambda _: False)


def test_channels_cannot_be_measured_on_nothing(plain: bytes) -> None:
    """An empty sample is refused."""
    with pytest.raises(ExportError, match="no text in the sample"):
        quantise(plain, [])


def test_a_table_is_rounded_to_half_a_step() -> None:
    """Each row keeps its largest number, no number moves by more than half of its row's step, and zeros stay zeros."""
    table = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32) * np.arange(50)[:, None]
    wholes, steps = quantise_table(table.astype(np.float32))
    assert wholes.dtype == np.int8
    assert (np.abs(wholes * steps - table) <= steps * 0.5001).all()
    assert not wholes[0].any()
    np.testing.assert_allclose(np.abs(wholes * steps).max(axis=1), np.abs(table).max(axis=1), rtol=1e-6)


@pytest.mark.parametrize("form", ["plain", "quantised"])
@pytest.mark.parametrize("length", [4, 12, 33, 64])
def test_same_bits_in_any_number_of_rows(form: str, length: int, request: pytest.FixtureRequest) -> None:
    """At one padded length a row has the same logits to the last bit alone and among 2 to 64 rows."""
    opened = session(request.getfixturevalue(form))
    everything = inputs(64, length, seed=length)
    together = opened.run(everything)
    for rows in (1, 2, 3, 7, 16, 31):
        part = ModelInputs(everything.input_ids[:rows].copy(), everything.attention_mask[:rows].copy())
        np.testing.assert_array_equal(opened.run(part).view(np.int32), together[:rows].view(np.int32))


@pytest.fixture(scope="module")
def scorer(quantised: bytes) -> OnnxScorer:
    """The service's scorer of the 8-bit model."""
    tokenizer = WindowTokenizer(build_tokenizer(), window=WINDOW, overlap=16, max_windows=3)
    return OnnxScorer(
        session(quantised),
        tokenizer,
        harms=tuple("abc"),
        window=WINDOW,
        max_batch_tokens=512,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_same_text_same_bits_whatever_the_batch(scorer: OnnxScorer, data: st.DataObject) -> None:
    """Through the scorer an 8-bit score is the same to the last bit, alone, in any company and in any place."""
    text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=90).map(" ".join)
    texts = data.draw(st.lists(text | st.text(min_size=1, max_size=30), min_size=1, max_size=20))
    order = data.draw(st.permutations(range(len(texts))))
    together = scorer.score(batch_of(*texts)).logits
    assert np.array_equal(scorer.score(batch_of(*[texts[row] for row in order])).logits, together[order])
    for row, each in enumerate(texts):
        assert np.array_equal(scorer.score(batch_of(each)).logits[0], together[row])


def test_an_8_bit_model_scores_texts_together_and_alone(scorer: OnnxScorer) -> None:
    """The scorer finds at load that company changes nothing: neither a call per row nor an idle row is needed."""
    assert not scorer.one_row_per_call
    assert scorer._fewest_rows == 1


# The artefact for CUDA. No CUDA is needed: its operators have float32 kernels for the CPU too.


def test_every_layer_is_fused(classifier: EncoderClassifier) -> None:
    """The graph for CUDA has one attention, two norms and one activation per layer, all fused, and nothing unfused."""
    found = operators(fuse(classifier))
    assert found["Attention"] == SMALL.layers
    assert found["SkipLayerNormalization"] == 2 * SMALL.layers + 1
    assert found["BiasGelu"] == SMALL.layers + 1  # the head has a hidden layer
    assert not {"LayerNormalization", "Softmax", "Erf", "Transpose", "Reshape"} & found.keys()


def test_fused_logits_are_those_of_the_module(classifier: EncoderClassifier) -> None:
    """In float32 the fused graph gives the logits of the module with words and head of 8 bits, within the tolerance."""
    given_inputs = inputs(9, 50)
    wholes, steps = quantise_table(classifier.encoder.words.weight.detach().numpy())
    rounded = served(classifier)
    head = cast(nn.Linear, classifier.head[2])
    head_wholes, head_steps = quantise_table(head.weight.detach().numpy())
    with torch.no_grad():
        rounded.encoder.words.weight.copy_(torch.from_numpy(wholes * steps))
        cast(nn.Linear, rounded.head[2]).weight.copy_(torch.from_numpy(head_wholes * head_steps))
    check_parity(TorchModel(rounded).run(given_inputs), run(fuse(classifier, precision="float32"), given_inputs))


def test_fused_layers_are_in_half_precision(classifier: EncoderClassifier) -> None:
    """Weights of the layers are float16 and within its rounding; head and steps of words are float32."""
    half, whole = (onnx.load_from_string(fuse(classifier, precision=p)).graph for p in ("float16", "float32"))
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.initializer}
    types = Counter(tensor.data_type for tensor in half.initializer if tensor.name.startswith("layers."))
    assert types == {TensorProto.FLOAT16: len([name for name in expected if name.startswith("layers.")])}
    for tensor in half.initializer:
        if tensor.name.startswith(("head.", "word_steps")):
            assert tensor.data_type == (TensorProto.INT8 if tensor.name.endswith("wholes") else TensorProto.FLOAT)
        np.testing.assert_allclose(numpy_helper.to_array(tensor), expected[tensor.name], rtol=1e-3, atol=1e-6)
