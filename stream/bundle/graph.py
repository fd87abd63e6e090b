"""A model's bytes in, a refusal out where it would reach outside of itself: looked at before ONNX Runtime parses it.

ONNX Runtime loads a tensor's data from any file below the working directory if the model says so, and believes in
operators of any domain that some library has registered. So the model is walked first, as the protobuf message it is:
only field numbers, lengths and a few values are read, nothing is built, and every step moves on in the bytes, which
bounds the work by the model's length. Field numbers are those of onnx.proto3; a field that it does not have is skipped
here as it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from stream.errors import BundleError

__all__ = ["check_graph"]

DOMAINS: Final = frozenset({b"", b"ai.onnx", b"com.microsoft"})
"""Whose operators a model may use: ONNX's own, and those that ONNX Runtime itself brings for fused and quantised ones.
Any other domain is code from a library that no bundle can carry."""

MAX_FIELDS = 4_000_000
"""Fields walked, a dozen seconds' worth. A 12-layer encoder has 50,000 of them, weights counting as one each."""

MAX_DEPTH = 32
"""Messages within messages: graph, node, attribute, subgraph and so on, two levels deep in what exporters write."""

MAX_DIMS = 16
"""Axes of a tensor; ONNX Runtime's kernels stop at eight."""

BITS_PER_ELEMENT = 2
"""The smallest element that ONNX knows is of two bits; no tensor has more elements than its bytes can hold."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class _Kind(NamedTuple):
    """A message type: what it is called, and which of its fields are messages to walk into."""

    name: str
    children: dict[int, str]


# Every way from the model to a tensor, a node or an operator set: what is not named here holds text and types only.
_KINDS: Final = {
    kind.name: kind
    for kind in (
        _Kind("model", {7: "graph", 8: "opset", 20: "training", 25: "function"}),
        _Kind("training", {1: "graph", 2: "graph"}),
        _Kind("graph", {1: "node", 5: "tensor", 15: "sparse"}),
        _Kind("function", {7: "node", 9: "opset", 11: "attribute"}),
        _Kind("node", {5: "attribute"}),
        _Kind("attribute", {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}),
        _Kind("sparse", {1: "tensor", 2: "tensor"}),
        _Kind("tensor", {}),
        _Kind("opset", {}),
    )
}

_DOMAIN_FIELD: Final = {"opset": 1, "node": 7, "function": 10}
_TENSOR_DIMS, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 13, 14
_SPARSE_DIMS = 3


class _Malformed(Exception):  # noqa: N818 - control flow within this module
    """The bytes are no protobuf message; the text says in what way."""


class _Field(NamedTuple):
    number: int
    wire: int
    value: int
    """Of a varint; else 0."""
    start: int
    end: int
    """Of the bytes of a length-delimited field; else both are where the field ends."""


def check_graph(model: bytes, *, name: str) -> None:
    """Raise `BundleError` where the model `name` is no ONNX model, or would reach outside of itself.

    That is: data in another file, an operator of a domain not in `DOMAINS`, a tensor that claims more elements than it
    has bytes for, graphs in graphs without end.
    """
    try:
        _walk(model, name)
    except _Malformed as error:
        raise BundleError(f"{name} is not an ONNX model: {error}; export it again") from None


def _walk(model: bytes, name: str) -> None:
    budget = MAX_FIELDS
    pending = [("model", 0, len(model), 0)]
    has_graph = False
    while pending:
        kind, start, end, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise BundleError(
                f"{name} nests graphs deeper than {MAX_DEPTH} messages, which no exporter does: export it again"
            )
        dims: list[int] = []
        for field in _fields(model, start, end):
            budget -= 1
            if budget < 0:
                raise BundleError(
                    f"{name} has more than {MAX_FIELDS} fields, which no model of text needs: export it again"
                )
            _check_field(model, kind, field, name)
            if field.number in _dims_fields(kind):
                dims += _dims(model, field)
            child = _KINDS[kind].children.get(field.number)
            if child is not None and field.wire == _BYTES:
                has_graph |= child == "graph"
                pending.append((child, field.start, field.end, depth + 1))
        if kind == "tensor":
            _check_shape(dims, end - start, name)
        elif kind == "sparse" and any(not 0 <= size < 2**31 for size in dims):
            raise BundleError(f"{name} holds a sparse tensor of absurd shape {_shape(dims)}: export it again")
    if not has_graph:
        raise _Malformed("it has no graph")


def _check_field(model: bytes, kind: str, field: _Field, name: str) -> None:
    if field.wire == _BYTES and field.number == _DOMAIN_FIELD.get(kind):
        domain = model[field.start : field.end]
        if domain not in DOMAINS:
            allowed = ", ".join(sorted(known.decode() for known in DOMAINS if known))
            raise BundleError(
                f"{name} uses operators of the domain {_printable(domain)}, which is code that a bundle cannot carry; "
                f"allowed are those of {allowed}: export the model without custom operators"
            )
    if kind != "tensor":
        return
    external = field.number == _TENSOR_EXTERNAL or (field.number == _TENSOR_LOCATION and field.value != 0)
    if external:
        raise BundleError(
            f"{name} keeps the data of a tensor in another file, which a bundle's digests would not cover; "
            "export it again with all weights inside (onnx.save without save_as_external_data)"
        )


def _check_shape(dims: list[int], size: int, name: str) -> None:
    """Raise `BundleError` for a tensor whose `dims` cannot be true of a message of `size` bytes."""
    if len(dims) > MAX_DIMS:
        raise BundleError(f"{name} holds a tensor of {len(dims)} axes, {MAX_DIMS} at most: export it again")
    elements = 1
    for dim in dims:
        if dim < 0:
            raise BundleError(f"{name} holds a tensor of negative size, {_shape(dims)}: export it again")
        elements *= dim
    if elements > size * 8 // BITS_PER_ELEMENT:
        raise BundleError(
            f"{name} holds a tensor of shape {_shape(dims)} in {size} bytes, too few for so many elements: "
            "export it again"
        )


def _dims_fields(kind: str) -> tuple[int, ...]:
    return {"tensor": (_TENSOR_DIMS,), "sparse": (_SPARSE_DIMS,)}.get(kind, ())


def _dims(model: bytes, field: _Field) -> Iterator[int]:
    """The int64 values of a repeated field, of which each may be written by itself or all of them as one."""
    if field.wire == _VARINT:
        yield _signed(field.value)
    at = field.start
    while at < field.end:
        value, at = _varint(model, at, field.end)
        yield _signed(value)


def _fields(model: bytes, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        key, at = _varint(model, at, end)
        number, wire = key >> 3, key & 7
        value, start = 0, at
        if number == 0:
            raise _Malformed(f"field number 0 at byte {at}")
        if wire == _VARINT:
            value, at = _varint(model, at, end)
            start = at
        elif wire == _BYTES:
            length, start = _varint(model, at, end)
            at = start + length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
            start = at
        else:
            raise _Malformed(f"wire type {wire} at byte {at}, which ONNX does not use")
        if at > end:
            raise _Malformed(f"the field at byte {start} ends beyond its message")
        yield _Field(number, wire, value, start, at)


def _varint(model: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if at >= end:
            raise _Malformed(f"it ends within a number at byte {at}")
        byte = model[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that another byte follows
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise _Malformed(f"a number of more than {_MAX_VARINT_BYTES} bytes before byte {at}")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shape(dims: list[int]) -> str:
    shown = " x ".join(map(str, dims[:8]))
    return shown if len(dims) <= 8 else f"{shown} x ..."  # noqa: PLR2004 - enough to see what it is


def _printable(domain: bytes) -> str:
    """At most a line of what an attacker may have written."""
    return ascii(domain[:40].decode("utf-8", "replace"))
