"""A float32 encoder as ONNX in, the same with 8-bit matrix products out, whose scores depend on no batch-mate.

The runtime's own dynamic quantisation takes one step for all rows of a call, so that a text's score depends on its
company. Here every token has a step of its own, found from its own numbers: 8-bit products are summed exactly, in
integers, and what is left is done number by number. Steps found beforehand on a sample would be faster still, and
cost seven times the error: a few tokens, [CLS] and punctuation among them, are far larger than all others.

What multiplies layer norms is smoothed first (SmoothQuant, Xiao et al. 2023): a channel that is large in the sample is
divided by a constant and its weights multiplied by it, so that one large channel does not take the others' bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from stream.scoring.session import CPU, LOG_FATAL
from stream.scoring.tokenize import ModelInputs

import onnxruntime  # isort: skip - after stream.scoring, which switches its telemetry off

__all__ = ["product_shapes", "quantise", "quantise_table", "quantise_until"]

RUNTIME = "com.microsoft"
"""The domain of the operators that ONNX Runtime adds to ONNX."""

LARGEST = 127
"""Largest whole number of a weight or, with `MIDDLE` added, of a token: symmetric, so that zero stays zero."""

MIDDLE = 128
"""Tokens are unsigned and weights signed, the one combination that processors multiply fast."""

SMOOTHING = 0.6
"""Share of a channel's size that moves to its weights; 0.4 to 0.6 tried, and better than none by a third."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Linear:
    """A matrix product with constant weights, and the addition of its bias where there is one."""

    product: onnx.NodeProto
    weight: Floats
    addition: onnx.NodeProto | None
    bias: str | None

    @property
    def output(self) -> str:
        return str((self.addition or self.product).output[0])


def quantise(model: bytes, sample: Iterable[ModelInputs], *, keep: Collection[int] = ()) -> bytes:
    """Quantise the word table and every matrix product with constant weights but those whose numbers are in `keep`.

    `sample` are the inputs of some hundred texts, which say how large channels are. Raises `ExportError` where there is
    nothing to quantise or where `keep` has a number that is none.
    """
    proto = onnx.load_from_string(model)
    linears = _find_linears(proto.graph)
    unknown = sorted(set(keep) - set(range(len(linears))))
    if unknown:
        raise ExportError(f"there is no matrix product {unknown[0]} to keep: the model has {len(linears)}, from 0 on")
    chosen = [linear for number, linear in enumerate(linears) if number not in keep]
    if not chosen:
        raise ExportError("the model has no matrix product with constant weights to quantise")
    sizes = _channel_sizes(proto, [linear for linear in chosen if _is_normed(proto.graph, linear)], sample)
    _rewrite(proto, chosen, sizes)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def quantise_until(
    model: bytes, sample: Sequence[ModelInputs], acceptable: Callable[[bytes], bool]
) -> tuple[bytes, tuple[int, ...]]:
    """Quantise, and return the model with the numbers of the products that had to stay in float32.

    As long as the model is not `acceptable`, the product whose rounding moves the logits of `sample` most of those left
    stays in float32 as well. Raises `ExportError` where not even a single product can be quantised.
    """
    keep: list[int] = []
    small = quantise(model, sample)
    order: list[int] = []
    while not acceptable(small):
        order = order or _by_cost(model, sample)
        if len(keep) + 1 == len(order):
            raise ExportError("no matrix product can be quantised: the float32 model is as small as it gets")
        keep.append(order[len(keep)])
        small = quantise(model, sample, keep=keep)
    return small, tuple(keep)


def product_shapes(model: bytes) -> list[tuple[int, int]]:
    """Rows and columns of the weights of each product that `quantise` can quantise or keep, first layer first."""
    return [linear.weight.shape for linear in _find_linears(onnx.load_from_string(model).graph)]


def quantise_table(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round the rows of a table (v, w) to whole multiples of a step per row: the multiples, and the steps (v, 1)."""
    steps = np.abs(table).max(axis=1, keepdims=True).astype(np.float32) / LARGEST
    steps[steps == 0] = 1
    return np.rint(table / steps).astype(np.int8), steps


# Reading the graph


def _find_linears(graph: onnx.GraphProto) -> list[_Linear]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants and len(constants[node.input[1]].dims) == 2:  # noqa: PLR2004 - a matrix
            addition, bias = _find_bias(node, readers.get(node.output[0], []), constants)
            found.append(_Linear(node, numpy_helper.to_array(constants[node.input[1]]), addition, bias))
    return found


def _find_bias(
    product: onnx.NodeProto, readers: Sequence[onnx.NodeProto], constants: dict[str, onnx.TensorProto]
) -> tuple[onnx.NodeProto | None, str | None]:
    if len(readers) == 1 and readers[0].op_type == "Add":
        other = next((name for name in readers[0].input if name != product.output[0]), "")
        if other in constants and len(constants[other].dims) == 1:
            return readers[0], other
    return None, None


def _by_cost(model: bytes, sample: Sequence[ModelInputs]) -> list[int]:
    """The numbers of all products, first the one that moves the logits most when it alone is quantised."""
    numbers = range(len(product_shapes(model)))

    def logits(content: bytes) -> Floats:
        session = _open(content)
        return np.concatenate([session.run(["logits"], _feed(inputs))[0] for inputs in sample])

    expected = logits(model)
    alone = [quantise(model, sample, keep=[other for other in numbers if other != number]) for number in numbers]
    costs = [float(np.abs(logits(content) - expected).mean()) for content in alone]
    return sorted(numbers, key=lambda number: -costs[number])


def _open(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL
    return onnxruntime.InferenceSession(model, options, providers=[CPU])


def _feed(inputs: ModelInputs) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}


def _is_normed(graph: onnx.GraphProto, linear: _Linear) -> bool:
    return any(node.op_type == "LayerNormalization" and linear.product.input[0] in node.output for node in graph.node)


def _channel_sizes(
    proto: onnx.ModelProto, linears: Sequence[_Linear], sample: Iterable[ModelInputs]
) -> dict[str, Floats]:
    """The largest size of each channel of the inputs of `linears` over the tokens of `sample`, (w,) each, by name."""
    names = sorted({linear.product.input[0] for linear in linears})
    if not names:
        return {}
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = _open(watched.SerializeToString())
    sizes: dict[str, Floats] = {}
    for inputs in sample:
        tokens = inputs.attention_mask.astype(bool)
        for name, value in zip(names, session.run(names, _feed(inputs)), strict=True):
            largest = np.abs(value[tokens]).max(axis=0)
            sizes[name] = np.maximum(sizes[name], largest) if name in sizes else largest
    if not sizes:
        raise ExportError("there is no text in the sample to measure channels on; give some hundred texts")
    return sizes


# Writing the graph


class _Writer:
    """Nodes that take the place of others, and constants that they need."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; `attributes` are of any type that ONNX has."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(values, name)
        return name


def _rewrite(proto: onnx.ModelProto, linears: Sequence[_Linear], sizes: dict[str, Floats]) -> None:
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    by_output = {linear.product.output[0]: linear for linear in linears}
    additions = {linear.output for linear in linears if linear.addition is not None}
    writer = _Writer()
    for node in graph.node:
        linear = by_output.get(node.output[0])
        if linear is not None:
            _write_linear(writer, linear, sizes.get(linear.product.input[0]))
        elif node.op_type == "Gather" and _is_table(constants.get(node.input[0])):
            _write_table(writer, node, numpy_helper.to_array(constants[node.input[0]]))
        elif node.output[0] not in additions:
            writer.nodes.append(node)
    read = Counter(name for node in writer.nodes for name in node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    nodes, added = list(writer.nodes), list(writer.constants.values())
    for field, content in (("node", nodes), ("initializer", [*kept, *added])):
        graph.ClearField(field)
        getattr(graph, field).extend(content)
    graph.ClearField("value_info")  # types of values that are gone
    if all(entry.domain != RUNTIME for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(RUNTIME, 1))


def _is_table(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2  # noqa: PLR2004 - rows


def _write_table(writer: _Writer, node: onnx.NodeProto, table: Floats) -> None:
    """Look up 8-bit rows and their steps, and multiply them."""
    name, ids, output = node.input[0], node.input[1], node.output[0]
    wholes, steps = quantise_table(table)
    rows = writer.add("Gather", [writer.constant(f"{name}.wholes", wholes), ids], f"{output}.wholes")
    floats = writer.add("Cast", [rows], f"{output}.floats", to=TensorProto.FLOAT)
    factors = writer.add("Gather", [writer.constant(f"{name}.steps", steps), ids], f"{output}.steps")
    writer.add("Mul", [floats, factors], output)


def _write_linear(writer: _Writer, linear: _Linear, sizes: Floats | None) -> None:
    """Divide each token by its largest number, round to 8 bits, multiply in integers, and multiply by it again."""
    name, read, weight = linear.product.output[0], linear.product.input[0], linear.weight
    if sizes is not None:
        factors = _smoothing(sizes, weight)
        read = writer.add("Mul", [read, writer.constant(f"{name}.smoothing", 1 / factors)], f"{name}.smooth")
        weight = weight * factors[:, None]
    wholes, steps = (part.T for part in quantise_table(np.ascontiguousarray(weight.T)))
    axis = writer.constant("quantise.axis", np.array([-1], dtype=np.int64))
    least = writer.constant("quantise.least", np.array(np.finfo(np.float32).tiny * LARGEST, dtype=np.float32))
    one = writer.constant("quantise.one", np.array(1, dtype=np.float32))
    largest = writer.constant("quantise.largest", np.array(LARGEST, dtype=np.float32))
    middle = writer.constant("quantise.middle", np.array(MIDDLE, dtype=np.uint8))
    zero = writer.constant("quantise.zero", np.array(0, dtype=np.int8))

    absolute = writer.add("Abs", [read], f"{name}.absolute")
    found = writer.add("ReduceMax", [absolute, axis], f"{name}.largest", keepdims=1)
    size = writer.add("Max", [found, least], f"{name}.size")  # a token of zeros is divided by something
    factor = writer.add("Div", [largest, size], f"{name}.factor")
    scaled = writer.add("Mul", [read, factor], f"{name}.scaled")
    rounded = writer.add("QuantizeLinear", [scaled, one, middle], f"{name}.rounded")
    weights = writer.constant(f"{name}.wholes", np.ascontiguousarray(wholes))
    scales = writer.constant(f"{name}.steps", np.ascontiguousarray(steps[0] / LARGEST))
    operands = [rounded, weights, one, scales, middle, zero]
    product = writer.add("MatMulIntegerToFloat", operands, f"{name}.product", domain=RUNTIME)
    if linear.bias is None:
        writer.add("Mul", [product, size], linear.output)
    else:
        rescaled = writer.add("Mul", [product, size], f"{name}.rescaled")
        writer.add("Add", [rescaled, linear.bias], linear.output)


def _smoothing(sizes: Floats, weight: Floats) -> Floats:
    """What to divide each of the k channels by, (k,); their geometric mean is 1."""
    floor = np.float32(1e-5)  # a channel that never moves
    ratio = np.maximum(sizes, floor) ** SMOOTHING / np.maximum(np.abs(weight).max(axis=1), floor) ** (1 - SMOOTHING)
    return np.asarray(ratio / np.exp(np.log(ratio).mean()), dtype=np.float32)
