"""Protobuf messages by hand: ONNX models that no library would write."""

from __future__ import annotations

__all__ = ["message", "model", "node", "tensor", "varint"]


def varint(value: int) -> bytes:
    """A number, seven bits to a byte."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """Fields in order: a number is a varint, anything else is written with its length."""
    parts: list[bytes] = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [varint(number << 3), varint(value)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [varint(number << 3 | 2), varint(len(content)), content]
    return b"".join(parts)


def tensor(*dims: int, raw: bytes = b"", extra: bytes = b"") -> bytes:
    """A float tensor."""
    return message(*((1, dim) for dim in dims), (2, 1), (8, "w"), (9, raw)) + extra


def node(operator: str, *, domain: str = "", attribute: bytes | None = None) -> bytes:
    """A node without inputs."""
    return message((4, operator), (7, domain), *(() if attribute is None else ((5, attribute),)))


def model(*graph: tuple[int, bytes], domain: str = "", extra: bytes = b"") -> bytes:
    """A model with these fields of its graph: 1 is a node, 5 a tensor, 15 a sparse one."""
    return message((1, 9), (7, message(*graph)), (8, message((1, domain), (2, 17)))) + extra
