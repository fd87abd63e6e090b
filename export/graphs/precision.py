"""A float16 artefact in, the same graph with bfloat16 or float32 in the place of float16 out; for comparisons.

Usage: python -m export.graphs.precision MODEL PRECISION OUT, MODEL an ONNX file, PRECISION `bfloat16` or `float32`.

The weights stay those of the artefact, which were rounded to float16 when it was made. In float32 nothing is rounded
again: what such a graph gives otherwise is down to the arithmetic of float16, not to its weights. It is not the model
before rounding, whose weights an artefact does not hold. In bfloat16 the weights are rounded a second time, from 11
significant bits to 8; rounded once, from float32, some would differ in the last bit: those that the first rounding put
half way between two.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError

__all__ = ["Precision", "change_precision"]

Precision = Literal["bfloat16", "float32"]

_TYPES = {"bfloat16": TensorProto.BFLOAT16, "float32": TensorProto.FLOAT}


def change_precision(model: bytes, precision: Precision) -> bytes:
    """The ONNX bytes of `model` with its float16 constants, and its casts to float16, in `precision`.

    Raises `ExportError` where there are no float16 weights, or float16 where it cannot be followed: in what the model
    takes and gives, and in attributes.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    halves = [tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    if not halves:
        raise ExportError("the model has no float16 weights: give the artefact of a bundle that was made for CUDA")
    for tensor in halves:
        tensor.CopyFrom(_converted(tensor, precision))
    for node in graph.node:
        _convert_cast(node, precision)
    _refuse_others(graph)
    del graph.value_info[:]  # types of what is in between, which follow from the rest
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _converted(tensor: onnx.TensorProto, precision: Precision) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor).astype(np.float32)
    if precision == "float32":
        return numpy_helper.from_array(values, tensor.name)
    content = _to_bfloat16(values).astype("<u2").tobytes()
    return helper.make_tensor(tensor.name, TensorProto.BFLOAT16, list(tensor.dims), content, raw=True)


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even: the upper half of those of float32. For finite values."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    # Half of the last bit kept, or just less where that bit is even: what carries is rounded up.
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def _convert_cast(node: onnx.NodeProto, precision: Precision) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = _TYPES[precision]


def _refuse_others(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            raise ExportError(f"{value.name} of the model is float16: only weights and casts within it are converted")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.t.data_type == TensorProto.FLOAT16:
                raise ExportError(
                    f"attribute {attribute.name} of an operator {node.op_type} holds a graph or float16: only weights "
                    "and casts are converted"
                )


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("precision", choices=get_args(Precision))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    try:
        arguments.out.write_bytes(change_precision(arguments.model.read_bytes(), arguments.precision))
    except (ExportError, OSError) as error:
        sys.exit(f"{arguments.model}: {error}")


if __name__ == "__main__":
    main()
