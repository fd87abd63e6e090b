"""Weights stored in half the bytes where that loses nothing: most checkpoints are bfloat16, widened when read."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["store_halves"]

_SMALLEST = 1024
"""Elements; for fewer, a node more is not worth it."""


def store_halves(model: onnx.ModelProto) -> int:
    """Store every large float32 weight whose numbers are all bfloat16 as that; give how many were.

    A Cast widens each again, which the runtime does once when it loads the model: not one bit of a score changes.
    """
    casts = []
    for weights in model.graph.initializer:
        if weights.data_type != TensorProto.FLOAT or np.prod(weights.dims) < _SMALLEST:
            continue
        bits = numpy_helper.to_array(weights).astype("<f4").view("<u4")
        if (bits & 0xFFFF).any():
            continue
        name = weights.name
        weights.CopyFrom(
            helper.make_tensor(
                f"{name}.half", TensorProto.BFLOAT16, list(weights.dims), (bits >> 16).astype("<u2").tobytes(), raw=True
            )
        )
        casts.append(helper.make_node("Cast", [weights.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(casts)
