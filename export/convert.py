"""A torch module in, the bytes of an ONNX model out; any module that maps token ids and mask to logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from stream.scoring.tokenize import ModelInputs

__all__ = ["IR_VERSION", "OPSET", "TorchModel", "convert", "operators"]

OPSET = 18
"""The lowest that PyTorch's exporter writes without converting down, and one that every supported runtime reads."""

IR_VERSION = 10
"""Version of the file format, likewise: of 2024, so that an older runtime than the exporter's can load the file."""


class TorchModel:
    """A torch module behind the same `run` that a session of the converted model has."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval()

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """The logits of n rows, (n, h) float32."""
        with torch.no_grad():
            logits = self._module(torch.from_numpy(inputs.input_ids), torch.from_numpy(inputs.attention_mask))
        return np.asarray(logits.numpy(), dtype=np.float32)


def convert(
    module: nn.Module, *, output: str = "logits", finish: Callable[[onnx.ModelProto], object] | None = None
) -> bytes:
    """Convert `module` to one self-contained ONNX file with free numbers of rows and tokens, checked by `onnx`.

    `output` is the name of what it gives; `finish` may change the model before it is checked.
    """
    ids = torch.full((2, 8), 1000, dtype=torch.int64)  # any two rows of words: both sizes are declared free below
    names = {0: torch.export.Dim("rows"), 1: torch.export.Dim("length")}
    same = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}  # found to be equal; naming them twice is warned about
    program = torch.onnx.export(
        module.eval(),
        (ids, torch.ones_like(ids)),
        input_names=["input_ids", "attention_mask"],
        output_names=[output],
        dynamic_shapes=(names, same),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:  # only when it writes a file itself
        raise RuntimeError("torch.onnx.export returned no program")
    model = _strip(program.model_proto)
    if finish is not None:
        finish(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def operators(model: bytes) -> Counter[str]:
    """Count the operators of an ONNX model by name."""
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def _strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter says about itself: stack traces with paths of this machine, and names of its passes."""
    model.ir_version = IR_VERSION
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    return model
