"""Models that would reach outside of themselves, each refused by name before ONNX Runtime sees a byte of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.bundle import load
from stream.bundle.graph import MAX_DEPTH, check_graph
from stream.errors import BundleError
from tests.bundles import UNSIGNED, copy_of_lite, replace_listed
from tests.protobuf import message, model, node, tensor, varint

EXTERNAL = message((13, message((1, "location"), (2, "../../../etc/passwd"))), (14, 1))
TENSOR = tensor(2, 2, raw=bytes(16))


def refused(content: bytes) -> str:
    """What is said against a model."""
    with pytest.raises(BundleError) as raised:
        check_graph(content, name="model.onnx")
    assert str(raised.value).startswith("model.onnx ")
    return str(raised.value)


def test_a_plain_model_passes() -> None:
    """The model that the attacks below start from is itself sound."""
    check_graph(model((1, node("MatMul")), (5, TENSOR), domain="com.microsoft"), name="model.onnx")


def test_a_bundle_with_such_a_model_is_refused(tmp_path: Path) -> None:
    """The graph is looked at when a bundle is loaded, after its digest and before any runtime."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    replace_listed(folder, {"model.onnx": model((5, tensor(2, 2, extra=EXTERNAL)))})
    with pytest.raises(BundleError, match=r"model\.onnx in .* another file"):
        load(folder, UNSIGNED)


@pytest.mark.parametrize(
    "hidden",
    [
        (5, tensor(2, 2, extra=EXTERNAL)),
        (5, tensor(2, 2, extra=message((14, 1)))),
        (5, tensor(2, 2, extra=message((13, b"")))),
        (15, message((1, tensor(2, 2, extra=EXTERNAL)))),
        (1, node("Constant", attribute=message((5, tensor(2, 2, extra=EXTERNAL))))),
        (1, node("Constant", attribute=message((10, tensor(2, 2, extra=EXTERNAL))))),
        (1, node("Constant", attribute=message((22, message((2, tensor(2, extra=EXTERNAL))))))),
        (1, node("If", attribute=message((6, message((5, tensor(2, 2, extra=EXTERNAL))))))),
        (1, node("If", attribute=message((11, message((1, node("X", attribute=message((5, EXTERNAL))))))))),
    ],
)
def test_external_data(hidden: tuple[int, bytes]) -> None:
    """A tensor whose data is in another file is refused wherever it hides, path or no path."""
    assert "another file, which a bundle's digests would not cover" in refused(model((5, TENSOR), hidden))


def test_external_data_in_a_function_or_in_training() -> None:
    """Functions and training graphs of the model are looked through as well."""
    hiding = message((5, tensor(2, 2, extra=EXTERNAL)))
    for extra in (message((25, message((7, node("X", attribute=hiding))))), message((20, message((2, hiding))))):
        assert "another file" in refused(model((5, TENSOR), extra=extra))


def test_external_data_in_a_second_graph() -> None:
    """A model with two graphs, which a parser would merge, is looked through to its end."""
    assert "another file" in refused(model((5, TENSOR)) + message((7, message((5, tensor(2, 2, extra=EXTERNAL))))))


@pytest.mark.parametrize(
    "content",
    [
        model((1, node("Steal", domain="evil.ops"))),
        model((5, TENSOR), domain="evil.ops"),
        model((1, node("If", attribute=message((6, message((1, node("Steal", domain="evil.ops")))))))),
        model((5, TENSOR), extra=message((25, message((1, "Steal"), (10, "evil.ops"))))),
        model((5, TENSOR), extra=message((25, message((9, message((1, "evil.ops"))))))),
    ],
    ids=["node", "opset", "subgraph", "function", "opset-of-a-function"],
)
def test_custom_operator_domain(content: bytes) -> None:
    """An operator of a domain that ONNX Runtime does not bring is refused with the domain and those allowed."""
    assert "domain 'evil.ops'" in (said := refused(content))
    assert "allowed are those of ai.onnx, com.microsoft" in said


def test_a_domain_is_not_printed_as_it_is() -> None:
    """A domain of control characters, or of a megabyte, cannot write over the log."""
    said = refused(model((1, node("X", domain="\x1b[2J\n" + "d" * 1_000_000))))
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize(
    ("dims", "complaint"),
    [
        ((1 << 40, 2), "of shape 1099511627776 x 2"),
        ((1 << 32, 1 << 32), "too few for so many elements"),
        ((65_536,) * 16, "too few for so many elements"),
        ((-1, 2), "of negative size, -1 x 2"),
        ((1,) * 17, "of 17 axes, 16 at most"),
        ((1,) * 1000, "of 1000 axes, 16 at most"),
    ],
)
def test_absurd_shape(dims: tuple[int, ...], complaint: str) -> None:
    """A tensor that claims more elements than it has bytes for, or sizes that cannot be, is refused with its shape."""
    assert complaint in refused(model((5, tensor(*dims, raw=bytes(16)))))
    packed = b"".join(map(varint, dims))
    assert complaint in refused(model((5, message((1, packed), (2, 1), (9, bytes(16))))))


def test_absurd_sparse_shape() -> None:
    """A sparse tensor, whose shape is not bounded by its bytes, has sizes that an index can have."""
    assert "sparse tensor of absurd shape 1099511627776" in refused(model((15, message((1, TENSOR), (3, 1 << 40)))))


def test_graphs_in_graphs() -> None:
    """Graphs nested without end are refused, without recursion of our own."""
    inner = message((1, node("If")))
    for _ in range(MAX_DEPTH):
        inner = message((1, node("If", attribute=message((6, inner)))))
    assert "nests graphs deeper than 32 messages" in refused(message((7, inner)))


def test_as_many_fields_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of nothing but tiny fields is not walked to its end."""
    monkeypatch.setattr("stream.bundle.graph.MAX_FIELDS", 1000)
    assert "more than 1000 fields" in refused(message((1, 9), *(((2, b""),) * 2000)))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "it has no graph"),
        (b"not a model at all", "is not an ONNX model"),
        (b"\x3a", "ends within a number"),
        (b"\x3a\x05\x00", "ends beyond its message"),
        (b"\x3a" + b"\xff" * 11, "more than 10 bytes"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x02\x00", "field number 0"),
        (model((5, b"\x0a\x05\x80\x80\x80\x80\x80")), "ends within a number"),
    ],
)
def test_what_is_no_model(content: bytes, complaint: str) -> None:
    """Bytes that are no ONNX model are refused with the byte where that shows, whatever they are."""
    assert complaint in refused(content)
