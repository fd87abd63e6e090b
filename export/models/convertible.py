"""Parts of a network that compute the same in another way, which converts to what runs fast and alike in any batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["MOST_BY_ROW", "convertible"]


MOST_BY_ROW = 16_384
"""Weights of a layer that computes rows one by one: their products are written out, 64 kB for a row at most."""


def convertible(part: nn.Module) -> nn.Module:
    """The part to convert in the place of `part`, with its weights; `part` itself where there is no better one."""
    if isinstance(part, nn.Linear):
        return _RowLinear(part) if part.weight.numel() <= MOST_BY_ROW else _ProductLinear(part)
    return _ConvertibleGELU() if isinstance(part, nn.GELU) else part


class _ProductLinear(nn.Module):
    """A linear layer that converts to a product and an addition, which can be rounded to 8 bits.

    Sums of 8-bit products are exact, so that they do not depend on how many rows there are; in float32 they do.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, states: Tensor) -> Tensor:
        return (states[:, None, :] @ self.weight.T + self.bias).squeeze(1)


class _RowLinear(nn.Module):
    """A linear layer that computes each row by itself: a matrix product of one row alone is added up otherwise."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, states: Tensor) -> Tensor:
        return (states[:, None, :] * self.weight).sum(dim=-1) + self.bias


class _ConvertibleGELU(nn.Module):
    """GELU in the order of operations that ONNX Runtime finds and replaces by one; the exporter's own is another."""

    def forward(self, states: Tensor) -> Tensor:
        return states * (1 + torch.erf(states / math.sqrt(2))) * 0.5
