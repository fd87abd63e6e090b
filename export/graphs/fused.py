"""The encoder as ONNX Runtime's own fused operators, for CUDA: written operator by operator, not found by patterns.

The runtime's optimiser recognises BERT in an exported graph by its shape, and no longer does so after some releases of
the exporter. Here every fused operator is there because it is written here. Half precision halves the weights and is
what tensor cores are for; the word table is 8-bit as in the artefact for the CPU, and pooling and head are float32.
On the CPU these operators are slower than the plain ones, so that it has an artefact of its own.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.graphs.convert import IR_VERSION, OPSET
from export.graphs.quantise import quantise_table
from export.models.convertible import MOST_BY_ROW
from export.models.encoder import EncoderClassifier, Standardise

__all__ = ["Precision", "fuse"]

Precision = Literal["float16", "float32"]

RUNTIME = "com.microsoft"
"""The domain of the operators that ONNX Runtime adds to ONNX."""

_TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}


def fuse(model: EncoderClassifier, *, precision: Precision = "float16") -> bytes:
    """The ONNX bytes of `model` with inputs and output as `convert` gives them, the layers in `precision`.

    Padding must follow the text, as it does in the service: attention is told the number of tokens of each row.
    """
    graph = _Graph(precision)
    encoder = model.encoder
    _embed(graph, encoder.words.weight, encoder.places.weight, encoder.norm)
    _find_mask(graph)
    means: list[str] = []
    for number, layer in enumerate(encoder.layers):
        attention, name = layer.attention, f"layers.{number}"
        weights = [graph.matrix(f"{name}.qkv", attention.qkv), graph.bias(f"{name}.qkv", attention.qkv)]
        heads = {"num_heads": attention.heads, "scale": attention.scale}
        graph.add("Attention", ["states", *weights, "counts"], f"{name}.context", domain=RUNTIME, **heads)
        graph.add("MatMul", [f"{name}.context", graph.matrix(f"{name}.out", attention.out)], f"{name}.mixed")
        _add_norm(graph, f"{name}.mixed", "states", layer.attention_norm, f"{name}.attended", attention.out)
        graph.add("MatMul", [f"{name}.attended", graph.matrix(f"{name}.up", layer.up)], f"{name}.widened")
        up = [f"{name}.widened", graph.bias(f"{name}.up", layer.up)]
        graph.add("BiasGelu", up, f"{name}.bent", domain=RUNTIME)
        graph.add("MatMul", [f"{name}.bent", graph.matrix(f"{name}.down", layer.down)], f"{name}.narrowed")
        _add_norm(graph, f"{name}.narrowed", f"{name}.attended", layer.norm, "states", layer.down)
        if number >= len(encoder.layers) - model.read_layers:
            means.append(_pool(graph, f"mean.{number}"))
    graph.add("Concat", means, "pooled", axis=-1)
    _head(graph, model.head)
    return graph.to_bytes(model.harms)


class _Graph:
    """Nodes and constants so far; a name that is written again stands for the newer value."""

    def __init__(self, precision: Precision) -> None:
        self.type = _TYPES[precision]
        self._dtype = np.dtype(precision)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._versions: dict[str, int] = {}

    def add(self, operator: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> None:
        """Add a node that reads the newest values; `attributes` are of any type that ONNX has."""
        read = [self._current(name) for name in inputs]
        self._versions[output] = self._versions.get(output, -1) + 1
        node = helper.make_node(operator, read, [self._current(output)], domain=domain, **attributes)
        self._nodes.append(node)

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def weights(self, name: str, tensor: Tensor) -> str:
        return self.constant(name, tensor.detach().cpu().numpy().astype(self._dtype))

    def matrix(self, name: str, linear: nn.Linear) -> str:
        return self.weights(f"{name}.weight", linear.weight.T)

    def bias(self, name: str, linear: nn.Linear) -> str:
        return self.weights(f"{name}.bias", linear.bias)

    def _current(self, name: str) -> str:
        version = self._versions.get(name, 0)
        return f"{name}.{version}" if version else name

    def to_bytes(self, harms: int) -> bytes:
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "length"])
            for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", harms])]
        graph = helper.make_graph(self._nodes, "encoder", inputs, outputs, list(self._constants.values()))
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION, producer_name="fairway")
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))


def _embed(graph: _Graph, words: Tensor, places: Tensor, norm: nn.LayerNorm) -> None:
    """Rows of the word table, (n, l, w), plus the first l places, normed: `states`; and tokens per row: `counts`."""
    table, steps = quantise_table(words.detach().cpu().numpy())
    graph.constant("words", table)
    graph.constant("word_steps", steps.astype(np.float32))
    graph.add("Gather", ["words", "input_ids"], "word_rows")
    graph.add("Cast", ["word_rows"], "word_wholes", to=TensorProto.FLOAT)
    graph.add("Gather", ["word_steps", "input_ids"], "row_steps")
    graph.add("Mul", ["word_wholes", "row_steps"], "word_floats")
    graph.add("Cast", ["word_floats"], "word_states", to=graph.type)
    graph.weights("places", places)
    graph.constant("from", np.array([0], dtype=np.int64))
    graph.constant("along_length", np.array([1], dtype=np.int64))
    graph.add("Shape", ["input_ids"], "length", start=1, end=2)
    graph.add("Slice", ["places", "from", "length", "from"], "places_read")
    _add_norm(graph, "word_states", "places_read", norm, "states")
    graph.add("ReduceSum", ["attention_mask", "along_length"], "tokens", keepdims=0)
    graph.add("Cast", ["tokens"], "counts", to=TensorProto.INT32)


def _add_norm(
    graph: _Graph, states: str, others: str, norm: nn.LayerNorm, output: str, linear: nn.Linear | None = None
) -> None:
    """Add two states and the bias of `linear`, and norm the sum."""
    name = f"{states}.norm"
    inputs = [states, others, graph.weights(f"{name}.weight", norm.weight), graph.weights(f"{name}.bias", norm.bias)]
    if linear is not None:
        inputs.append(graph.weights(f"{states}.bias", linear.bias))
    graph.add("SkipLayerNormalization", inputs, output, domain=RUNTIME, epsilon=norm.eps)


def _find_mask(graph: _Graph) -> None:
    """Which tokens are kept, (n, l, 1), and how many of each row, (n, 1), in float32: `kept` and `divisor`."""
    graph.constant("last", np.array([2], dtype=np.int64))
    graph.constant("one_token", np.array(1, dtype=np.float32))
    graph.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    graph.add("Unsqueeze", ["mask", "last"], "kept")
    graph.add("ReduceSum", ["mask", "along_length"], "found", keepdims=1)
    graph.add("Max", ["found", "one_token"], "divisor")


def _pool(graph: _Graph, output: str) -> str:
    """The mean of `states` over the tokens of each row, (n, w), in float32."""
    graph.add("Cast", ["states"], "final", to=TensorProto.FLOAT)
    graph.add("Mul", ["final", "kept"], "final_kept")
    graph.add("ReduceSum", ["final_kept", "along_length"], "total", keepdims=0)
    graph.add("Div", ["total", "divisor"], output)
    return output


def _head(graph: _Graph, head: nn.Sequential) -> None:
    """The layers of the head on `pooled`, in float32; large weights are rounded to 8 bits, as for the CPU."""
    layers = [layer for layer in head if isinstance(layer, nn.Linear)]
    scale = cast(Standardise, head[0])
    graph.constant("head.mean", scale.mean.cpu().numpy())
    graph.constant("head.factor", (1 / scale.spread).cpu().numpy())
    graph.add("Sub", ["pooled", "head.mean"], "centred")
    graph.add("Mul", ["centred", "head.factor"], "standard")
    read = "standard"
    for number, layer in enumerate(layers):
        final = number == len(layers) - 1
        weight = _head_weight(graph, f"head.{number}.weight", layer.weight.detach().cpu().numpy())
        bias = graph.constant(f"head.{number}.bias", layer.bias.detach().cpu().numpy())
        graph.add("MatMul", [read, weight], f"head.{number}.product")
        output = "logits" if final else f"head.{number}"
        if final:
            graph.add("Add", [f"head.{number}.product", bias], output)
        else:
            graph.add("BiasGelu", [f"head.{number}.product", bias], output, domain=RUNTIME)
        read = output


def _head_weight(graph: _Graph, name: str, weight: NDArray[np.float32]) -> str:
    """The weights (h, k) as a matrix (k, h); where they are rounded, the runtime multiplies them out once, at load."""
    if weight.size <= MOST_BY_ROW:
        return graph.constant(name, weight.T)
    wholes, steps = quantise_table(weight)
    graph.constant(f"{name}.wholes", wholes.T)
    graph.constant(f"{name}.steps", steps.T.astype(np.float32))
    graph.add("Cast", [f"{name}.wholes"], f"{name}.floats", to=TensorProto.FLOAT)
    graph.add("Mul", [f"{name}.floats", f"{name}.steps"], name)
    return name
