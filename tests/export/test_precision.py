"""Artefacts in another precision, and the whole benchmark of a small encoder as a dry run on the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.graphs.fused import fuse
from export.graphs.precision import Precision, change_precision
from export.models.encoder import Encoder, EncoderClassifier, EncoderConfig
from ops.bench.gpu.__main__ import measure
from ops.bench.gpu.rows import Row
from stream.bundle import Bundle, load
from stream.errors import BundleError
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs
from stream.settings import Settings
from tests.bundles import LITE, TRUST

pytestmark = pytest.mark.export

HARMS = 6
SMALL = EncoderConfig(positions=256, width=32, layers=2, heads=2, inner=64)


@pytest.fixture(scope="module")
def classifier() -> EncoderClassifier:
    """A small encoder of random weights, large enough for texts to differ."""
    torch.manual_seed(1)
    model = EncoderClassifier(Encoder(SMALL), harms=HARMS, layers=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return model


@pytest.fixture(scope="module")
def half(classifier: EncoderClassifier) -> bytes:
    """It as it ships for CUDA."""
    return fuse(classifier)


def constants(model: bytes) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load_from_string(model).graph.initializer}


def casts(model: bytes) -> Counter[int]:
    nodes = onnx.load_from_string(model).graph.node
    return Counter(helper.get_node_attr_value(node, "to") for node in nodes if node.op_type == "Cast")


def random_inputs() -> ModelInputs:
    generator = np.random.default_rng(3)
    mask = (np.arange(20) < generator.integers(1, 21, (9, 1))).astype(np.int64)
    return ModelInputs(generator.integers(1000, 29_000, (9, 20)) * mask, mask)


def test_float32_widens_the_weights_and_nothing_else(half: bytes) -> None:
    """Each float16 constant has the same values in float32; the others are as they were, and so are the operators."""
    whole = change_precision(half, "float32")
    before, after = constants(half), constants(whole)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if tensor.data_type == TensorProto.FLOAT16:
            assert after[name].data_type == TensorProto.FLOAT
            np.testing.assert_array_equal(numpy_helper.to_array(after[name]), numpy_helper.to_array(tensor))
        else:
            assert after[name] == tensor
    assert casts(whole)[TensorProto.FLOAT16] == 0
    assert casts(whole)[TensorProto.FLOAT] == casts(half)[TensorProto.FLOAT] + casts(half)[TensorProto.FLOAT16]


def test_float32_gives_the_logits_of_the_same_weights_in_float32(classifier: EncoderClassifier, half: bytes) -> None:
    """It is, to the bit, the graph that is fused in float32 from weights that were rounded to float16 first."""
    rounded = EncoderClassifier(Encoder(SMALL), harms=HARMS, layers=1).eval()
    rounded.load_state_dict(classifier.state_dict())
    expected = onnx.load_from_string(fuse(rounded, precision="float32"))
    halves = constants(half)
    for tensor in expected.graph.initializer:
        if halves[tensor.name].data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    models = (change_precision(half, "float32"), expected.SerializeToString())
    found, wanted = (open_session(model, "cpu", signature=reads_tokens(HARMS)).run(random_inputs()) for model in models)
    np.testing.assert_array_equal(found, wanted)


def test_float16_is_close_to_float32(half: bytes) -> None:
    """The two precisions give nearly the same logits on the CPU, which computes float16 in float32 in part."""
    models = (half, change_precision(half, "float32"))
    one, other = (open_session(model, "cpu", signature=reads_tokens(HARMS)).run(random_inputs()) for model in models)
    assert 0 < np.abs(one - other).max() < 0.05


def test_bfloat16_is_rounded_as_torch_rounds(half: bytes) -> None:
    """Each constant is the nearest bfloat16 of its float16, ties to even."""
    before, after = constants(half), constants(change_precision(half, "bfloat16"))
    rounded = [name for name, tensor in after.items() if tensor.data_type == TensorProto.BFLOAT16]
    assert rounded == [name for name, tensor in before.items() if tensor.data_type == TensorProto.FLOAT16]
    for name in rounded:
        expected = torch.from_numpy(numpy_helper.to_array(before[name]).astype(np.float32)).bfloat16()
        found = np.frombuffer(after[name].raw_data, dtype="<i2").reshape(after[name].dims)
        np.testing.assert_array_equal(found, expected.view(torch.int16).numpy())


def test_every_float16_is_rounded_as_torch_rounds() -> None:
    """All finite numbers of float16, subnormal ones and ties among them, become what torch makes of them."""
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    nodes = [
        helper.make_node("Identity", ["weights"], ["same"]),
        helper.make_node("Cast", ["same"], ["out"], to=TensorProto.FLOAT),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [len(every)])
    graph = helper.make_graph(nodes, "all", [], [out], [numpy_helper.from_array(every, "weights")])
    changed = constants(change_precision(helper.make_model(graph).SerializeToString(), "bfloat16"))["weights"]
    expected = torch.from_numpy(every.astype(np.float32)).bfloat16().view(torch.int16).numpy()
    np.testing.assert_array_equal(np.frombuffer(changed.raw_data, dtype="<i2"), expected)


def test_bfloat16_is_a_graph_of_one_mind(half: bytes) -> None:
    """The runtime finds no fault with its types; what it lacks on the CPU are kernels, and it says which."""
    with pytest.raises(BundleError, match="NOT_IMPLEMENTED : Could not find an implementation for Attention"):
        open_session(change_precision(half, "bfloat16"), "cpu", signature=reads_tokens(HARMS))


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_what_has_no_float16_is_refused(half: bytes, precision: Precision) -> None:
    """A model that was converted already has nothing to convert."""
    with pytest.raises(ExportError, match="no float16 weights"):
        change_precision(change_precision(half, precision), precision)


@pytest.mark.parametrize("kind", ["input", "attribute"])
def test_float16_that_cannot_be_followed_is_refused(half: bytes, kind: str) -> None:
    """Float16 in what the model takes, or in an attribute, is named."""
    proto = onnx.load_from_string(half)
    if kind == "input":
        proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT16, [1]))
    else:
        one = numpy_helper.from_array(np.ones(1, np.float16))
        proto.graph.node.append(helper.make_node("Constant", [], ["more"], value=one))
    with pytest.raises(ExportError, match=r"more of the model is float16|attribute value of an operator Constant"):
        change_precision(proto.SerializeToString(), "float32")


def test_the_command_writes_a_file_or_says_why_not(half: bytes, tmp_path: Path) -> None:
    """One file in, one out; a model without float16 is refused on one line, without a traceback."""
    (tmp_path / "half.onnx").write_bytes(half)

    def run(source: str, out: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "export.graphs.precision",
            str(tmp_path / source),
            "float32",
            str(tmp_path / out),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("half.onnx", "whole.onnx").returncode == 0
    assert (tmp_path / "whole.onnx").read_bytes() == change_precision(half, "float32")
    refused = run("whole.onnx", "again.onnx")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "no float16 weights" in refused.stderr


# The whole benchmark


@pytest.fixture(scope="module")
def rows(classifier: EncoderClassifier, half: bytes) -> list[Row]:
    """All rows of a dry run, of the moderator with small models in the place of its own."""
    bundle: Bundle = load(LITE.with_name("moderator"), TRUST)
    models = {"cpu-int8.onnx": fuse(classifier, precision="float32"), "cuda-fp16.onnx": half}
    small = replace(bundle, contents={**bundle.contents, **models})
    return list(measure(small, Settings.model_validate({"slice_max_records": 8}), "cpu", rounds=1))


def named(rows: list[Row], start: str, precision: str) -> list[Row]:
    return [row for row in rows if row.what.startswith(start) and row.precision == precision]


def test_the_guard_is_asked_first(rows: list[Row]) -> None:
    """The session is accepted; another model than the golden batch's is refused; fused operators are counted."""
    assert [row.what for row in rows[:3]] == ["guard: session", "guard: whole bundle", "on CPUExecutionProvider"]
    assert "cpu-int8.onnx is REFUSED" in rows[1].note
    assert rows[2].note == "fused: Attention 2, SkipLayerNormalization 5, BiasGelu 2"


def test_float32_agrees_with_itself(rows: list[Row]) -> None:
    """The derived float32 has no difference from the reference, and float16 a small one that turns nothing."""
    assert [row.measured for row in named(rows, "probabilities, to float32", "float32")] == [0.0]
    assert [row.measured for row in named(rows, "decisions, to float32", "float32")] == [0.0]
    (difference,) = named(rows, "probabilities, to float32", "float16")
    assert difference.measured is not None
    assert 0 < difference.measured < 0.05


def test_what_has_no_kernel_is_a_row_with_the_runtimes_words(rows: list[Row]) -> None:
    """Without kernels for bfloat16, its rows say so and have no figure."""
    of_bfloat16 = [row for row in rows if row.precision == "bfloat16"]
    assert [row.what for row in of_bfloat16] == [
        "probabilities, to float32 on the CPU",
        "probabilities, to the CPU artefact",
        "scorer ÷ session.run",
    ]
    assert all(row.measured is None and "NOT_IMPLEMENTED" in row.note for row in of_bfloat16)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_speeds_have_both_sides(rows: list[Row], precision: str) -> None:
    """Each length is measured with calls of as many rows as there are texts, on both sides."""
    speeds = named(rows, "scorer", precision)
    assert [row.shape for row in speeds] == ["32 x 8", "128 x 8"]
    assert all(row.measured and row.against and row.ratio for row in speeds)


def test_the_tokenizers_share_is_of_the_shipped_form(rows: list[Row]) -> None:
    """A share of the scorer's time, above none and below all of it."""
    shares = [row for row in rows if row.what.startswith("tokenising")]
    assert [row.precision for row in shares] == ["float16"] * 2
    assert all(row.measured is not None and 0 < row.measured < 1 for row in shares)


def test_cuda_graphs_are_not_played_on_the_cpu(rows: list[Row]) -> None:
    """The last row says that they were not run, instead of a figure."""
    assert rows[-1].note == "not run: CUDA graphs are CUDA's"
    assert rows[-1].measured is None
