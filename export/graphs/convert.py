"""A torch module in, the bytes of an ONNX model out; any module that maps token ids and mask, or pixels, to logits."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stream.scoring.tokenize import ModelInputs

__all__ = ["IR_VERSION", "OPSET", "TorchModel", "convert", "convert_images", "operators"]

OPSET = 18
"""The lowest that PyTorch's exporter writes without converting down, and one that every supported runtime reads."""

IR_VERSION = 10
"""Version of the file format, likewise: of 2024, so that an older runtime than the exporter's can load the file."""


_NOISY = ("torch.onnx", "onnxscript")
"""They log that optional packages are not installed, which no model here uses, and what they do not fold."""


Finish = Callable[[onnx.ModelProto], object]
"""Changes a converted model where it is."""


class TorchModel:
    """A torch module behind the same `run` that a session of the converted model has."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval()

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """The logits of n rows, (n, h) float32."""
        with torch.no_grad():
            logits = self._module(torch.from_numpy(inputs.input_ids), torch.from_numpy(inputs.attention_mask))
        return np.asarray(logits.numpy(), dtype=np.float32)


def convert(module: nn.Module, *, output: str = "logits", finish: Finish | None = None) -> bytes:
    """Convert `module` to one self-contained ONNX file with free numbers of rows and tokens, checked by `onnx`.

    `output` is the name of what it gives; `finish` may change the model before it is checked.
    """
    ids = torch.full((2, 8), 1000, dtype=torch.int64)  # any two rows of words: both sizes are declared free below
    names = {0: torch.export.Dim("rows"), 1: torch.export.Dim("length")}
    same = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}  # found to be equal; naming them twice is warned about
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return _export(module, inputs, dynamic_shapes=(names, same), output=output, finish=finish)


def convert_images(module: nn.Module, *, height: int, width: int) -> bytes:
    """The same for a module that takes `pixels` (n, 3, height, width) float32; only the number of rows is free."""
    inputs = {"pixels": torch.zeros((2, 3, height, width))}
    return _export(module, inputs, dynamic_shapes=({0: torch.export.Dim("rows")},))


def _export(
    module: nn.Module,
    inputs: dict[str, Tensor],
    *,
    dynamic_shapes: tuple[dict[int, Any], ...],  # Any: whatever torch calls a shape
    output: str = "logits",
    finish: Finish | None = None,
) -> bytes:
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=dynamic_shapes,
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
