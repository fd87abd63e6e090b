"""Writes the ONNX models beside it, which tests/unit/test_scoring_onnx.py scores with: `python build_models.py`.

Needs the `onnx` package (the export extra). Every model is under 2 kB. `tiny.onnx` adds up a whole number per word and
harm, so that a test can say what a logit must be, and has words that bring about each fault a runtime can have.
"""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, save

FOLDER = Path(__file__).parent
OPSET, IR_VERSION = 18, 9
HARMS = 2
WORDS = [
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "nan",
    "inf",
    "minusinf",
    "poison",
    "hungry",
    "greedy",
    "hate",
    "kill",
    "a",
    "hello",
]

VALUES = np.zeros((len(WORDS), HARMS), dtype=np.float32)
VALUES[WORDS.index("[CLS]")] = -4
VALUES[WORDS.index("hate")] = (5, 0)
VALUES[WORDS.index("kill")] = (1, 7)
VALUES[WORDS.index("nan")] = (np.nan, 0)
VALUES[WORDS.index("inf")] = (np.inf, 0)
VALUES[WORDS.index("minusinf")] = (-np.inf, -np.inf)

# `poison` looks up entry 9 of a table of one: the runtime refuses the call, as for a token that the model lacks.
POISON = np.array([9 if word == "poison" else 0 for word in WORDS], dtype=np.int64)

# More than one `hungry` in a call asks for 128 TiB, which no address space has; `greedy` does so on its own.
HUNGER = np.array([{"hungry": 1, "greedy": 2}.get(word, 0) for word in WORDS], dtype=np.int64)
FLOATS_PER_HUNGER = 2**45


def tiny() -> ModelProto:
    """Logits are sums over words, with faults on demand."""
    nodes = [
        helper.make_node("Gather", ["values", "input_ids"], ["word_values"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Where", ["mask3", "word_values", "zero"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "along_length"], ["sums"], keepdims=0),
        helper.make_node("Gather", ["poison", "input_ids"], ["entry"]),
        helper.make_node("Gather", ["table", "entry"], ["looked_up"]),
        helper.make_node("ReduceSum", ["looked_up", "along_length"], ["nothing"], keepdims=1),
        helper.make_node("Gather", ["hunger", "input_ids"], ["word_hunger"]),
        helper.make_node("ReduceSum", ["word_hunger"], ["call_hunger"], keepdims=0),
        helper.make_node("Sub", ["call_hunger", "one"], ["above"]),
        helper.make_node("Relu", ["above_float"], ["excess_float"]),
        helper.make_node("Cast", ["excess_float"], ["excess"], to=TensorProto.INT64),
        helper.make_node("Mul", ["excess", "floats_per_hunger"], ["floats"]),
        helper.make_node("ConstantOfShape", ["floats"], ["memory"]),
        helper.make_node("ReduceSum", ["memory"], ["memory_sum"], keepdims=0),
        helper.make_node("Add", ["sums", "nothing"], ["sums_and_nothing"]),
        helper.make_node("Add", ["sums_and_nothing", "memory_sum"], ["logits"]),
    ]
    nodes.insert(11, helper.make_node("Cast", ["above"], ["above_float"], to=TensorProto.FLOAT))
    constants: dict[str, np.ndarray] = {
        "values": VALUES,
        "poison": POISON,
        "hunger": HUNGER,
        "table": np.zeros(1, dtype=np.float32),
        "zero": np.zeros(1, dtype=np.float32),
        "one": np.array([1], dtype=np.int64),
        "floats_per_hunger": np.array([FLOATS_PER_HUNGER], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "along_length": np.array([1], dtype=np.int64),
    }
    return model(nodes, constants)


def averaging(*, keepdims: int) -> list[NodeProto]:
    """The shortest graph with our inputs: a number per row, or one for the whole call."""
    return [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=keepdims),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]


def swayed() -> ModelProto:
    """Logits that depend on the other rows of the call, as with dynamic quantisation."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["largest"], keepdims=0),
        helper.make_node("ReduceSum", ["floats", "axes"], ["sum"], keepdims=1),
        helper.make_node("Div", ["sum", "largest"], ["share"]),
        helper.make_node("MatMul", ["share", "weights"], ["logits"]),
    ]
    weights = np.ones((1, HARMS), dtype=np.float32)
    return model(nodes, {"axes": np.array([1], dtype=np.int64), "weights": weights})


def simple(axes: list[int], **signature: Any) -> ModelProto:
    """A model of `averaging` over `axes` with another signature than it should have."""
    weights = np.ones((1, HARMS), dtype=np.float32)
    constants: dict[str, np.ndarray] = {"axes": np.array(axes, dtype=np.int64), "weights": weights}
    return model(averaging(keepdims=1), constants, **signature)


def model(
    nodes: list[NodeProto],
    constants: dict[str, np.ndarray],
    *,
    integer: int = TensorProto.INT64,
    shape: tuple[str | int | None, str | int | None] = ("n", "l"),
    output: str = "logits",
) -> ModelProto:
    """Wrap a graph with the inputs and the output of a bundle's model."""
    inputs = [helper.make_tensor_value_info(name, integer, shape) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, HARMS])]
    initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    if output != "logits":
        nodes = [*nodes, helper.make_node("Identity", ["logits"], [output])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(made)
    return made


def main() -> None:
    """Write every model."""
    save(tiny(), FOLDER / "tiny.onnx")
    save(swayed(), FOLDER / "swayed.onnx")
    save(simple([1], output="scores"), FOLDER / "renamed_output.onnx")
    save(simple([1], integer=TensorProto.INT32), FOLDER / "int32_inputs.onnx")
    save(simple([1], shape=(1, 8)), FOLDER / "fixed_shape.onnx")
    save(simple([0, 1]), FOLDER / "one_row_for_all.onnx")


if __name__ == "__main__":
    main()
