"""Writes the ONNX models of images beside it, for tests/unit/test_scoring_image.py: `python build_pixels.py`.

Needs the `onnx` package (the export extra). `pixels.onnx` gives 8 times the mean of red, and of green, less 4, and has
faults on demand: an image whose mean of blue is above 0.8 has no number, one above 0.98 makes the call fail.
"""

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, save

FOLDER = Path(__file__).parent
OPSET, IR_VERSION = 18, 9
HARMS = 2
SIDE = 16


def means() -> list[NodeProto]:
    """(n, 3): the mean of each colour."""
    return [helper.make_node("ReduceMean", ["pixels", "along_sides"], ["means"], keepdims=0)]


def logits_of(means_name: str) -> list[NodeProto]:
    """Logits (n, 2) of red and green."""
    return [
        helper.make_node("MatMul", [means_name, "weights"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "four"], ["clean"]),
    ]


def pixels() -> ModelProto:
    """Logits are means of colours, with faults on demand."""
    nodes = [
        *means(),
        *logits_of("means"),
        helper.make_node("Gather", ["means", "blue"], ["blues"], axis=1),
        helper.make_node("Sub", ["allowed", "blues"], ["room"]),
        helper.make_node("Sqrt", ["room"], ["number"]),  # of what is below zero, none
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Add", ["clean", "nothing"], ["shown"]),
        helper.make_node("Greater", ["blues", "most"], ["beyond"]),
        helper.make_node("Cast", ["beyond"], ["entry"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "entry"], ["looked_up"]),  # entry 1 of a table of one
        helper.make_node("Add", ["shown", "looked_up"], ["logits"]),
    ]
    return model(nodes)


def swayed() -> ModelProto:
    """Logits that depend on the other rows of the call."""
    nodes = [
        *means(),
        helper.make_node("ReduceMax", ["means"], ["largest"], keepdims=0),
        helper.make_node("Add", ["largest", "one"], ["above"]),
        helper.make_node("Div", ["means", "above"], ["shares"]),
        *logits_of("shares"),
        helper.make_node("Identity", ["clean"], ["logits"]),
    ]
    return model(nodes)


def model(nodes: list[NodeProto]) -> ModelProto:
    """Wrap a graph with the input and the output of a bundle's model of images."""
    constants: dict[str, np.ndarray] = {
        "along_sides": np.array([2, 3], dtype=np.int64),
        "weights": np.array([[8, 0], [0, 8], [0, 0]], dtype=np.float32),
        "four": np.array(4, dtype=np.float32),
        "blue": np.array([2], dtype=np.int64),
        "allowed": np.array(0.8, dtype=np.float32),
        "most": np.array(0.98, dtype=np.float32),
        "zero": np.zeros(1, dtype=np.float32),
        "one": np.ones(1, dtype=np.float32),
        "table": np.zeros(1, dtype=np.float32),
    }
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items() if name in used]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, HARMS])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(made)
    return made


def main() -> None:
    """Write every model."""
    save(pixels(), FOLDER / "pixels.onnx")
    save(swayed(), FOLDER / "pixels_swayed.onnx")


if __name__ == "__main__":
    main()
