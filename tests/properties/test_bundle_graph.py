"""The walk through a model finds what ONNX's own parser finds, and survives any bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.bundle.graph import DOMAINS, check_graph
from stream.errors import BundleError
from tests.protobuf import model, node, tensor

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fairway[export]'")
import onnx

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[2]


def passes(content: bytes) -> bool:
    try:
        check_graph(content, name="model.onnx")
    except BundleError:
        return False
    return True


domains = st.sampled_from(["", "ai.onnx", "com.microsoft", "evil", "ai.onnx.ml"])
sizes = st.lists(st.integers(0, 4), max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    """A float tensor with its data in it, sometimes said to be elsewhere."""
    dims = draw(sizes)
    count = 1
    for dim in dims:
        count *= dim
    made = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, dims, bytes(4 * count), raw=True)
    if draw(st.integers(0, 9)) == 0:
        made.data_location = onnx.TensorProto.EXTERNAL
        entry = made.external_data.add()
        entry.key, entry.value = "location", "elsewhere.bin"
    return made


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2) -> onnx.GraphProto:
    """A graph with tensors as initialisers and attributes, and graphs in attributes."""
    nodes = []
    for _ in range(draw(st.integers(0, 3))):
        made = onnx.NodeProto(op_type="X", domain=draw(domains))
        if draw(st.booleans()):
            made.attribute.append(onnx.AttributeProto(name="t", t=draw(tensors())))
        if depth and draw(st.booleans()):
            made.attribute.append(onnx.AttributeProto(name="g", g=draw(graphs(depth - 1))))
        nodes.append(made)
    return onnx.GraphProto(node=nodes, initializer=draw(st.lists(tensors(), max_size=2)), name="g", doc_string="d")


def _graphs_of(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [part.g for each in graph.node for part in each.attribute if part.HasField("g")]
    return [graph, *(found for part in inner for found in _graphs_of(part))]


def is_self_contained(parsed: onnx.ModelProto) -> bool:
    """What the walk is to find out, from the parsed model."""
    every = _graphs_of(parsed.graph)
    used = {opset.domain for opset in parsed.opset_import} | {n.domain for g in every for n in g.node}
    held = [t for g in every for t in g.initializer] + [
        a.t for g in every for n in g.node for a in n.attribute if a.HasField("t")
    ]
    return {name.encode() for name in used} <= DOMAINS and not any(
        t.external_data or t.data_location == onnx.TensorProto.EXTERNAL for t in held
    )


@given(graphs(), st.lists(domains, max_size=2))
def test_it_agrees_with_the_parser(graph: onnx.GraphProto, opsets: list[str]) -> None:
    """A model that ONNX wrote passes if and only if ONNX's parser finds no foreign domain and no data elsewhere."""
    made = onnx.ModelProto(graph=graph, ir_version=9, producer_name="p")
    made.opset_import.extend(onnx.helper.make_opsetid(domain, 17) for domain in opsets)
    made.graph.SetInParent()
    content = made.SerializeToString()
    assert passes(content) == is_self_contained(onnx.load_from_string(content))


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(content: bytes) -> None:
    """Whatever the bytes are, the walk ends with an answer of ours."""
    passes(content)


@given(st.data())
def test_damage_is_survived(data: st.DataObject) -> None:
    """A model cut or changed anywhere is refused or passes, and what passes has no data elsewhere if it parses."""
    sound = model((1, node("MatMul")), (5, tensor(2, 2, raw=bytes(16))), domain="com.microsoft")
    content = bytearray(sound[: data.draw(st.integers(0, len(sound)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if not passes(bytes(content)):
        return
    try:
        parsed = onnx.ModelProto.FromString(bytes(content))
    except Exception:  # noqa: BLE001 - protobuf's own exceptions differ by implementation
        return
    assert not any(t.external_data or t.data_location for t in parsed.graph.initializer)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/assets").rglob("*.onnx")) + sorted((ROOT / "models").rglob("*.onnx"))
)
def test_real_models_pass(path: Path) -> None:
    """Every model of this project passes."""
    assert passes(path.read_bytes())
