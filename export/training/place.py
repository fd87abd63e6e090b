"""Where training runs, and in what precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stream.scoring.tokenize import ModelInputs

__all__ = ["Place", "Precision", "find_place"]

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Place:
    """A device; `bf16` is whether matrix products are in bfloat16, while weights and losses stay in float32."""

    device: torch.device
    bf16: bool

    def precision(self) -> AbstractContextManager[object]:
        """The context that a forward pass runs in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def inputs(self, inputs: ModelInputs) -> tuple[Tensor, Tensor]:
        """Ids and mask, both (n, l) int64, on the device."""
        return (
            torch.from_numpy(inputs.input_ids).to(self.device),
            torch.from_numpy(inputs.attention_mask).to(self.device),
        )

    def tensor(self, array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
        """The array on the device."""
        return torch.from_numpy(array).to(self.device)


def find_place(precision: Precision = "auto") -> Place:
    """The GPU where there is one, else the CPU; `auto` is bf16 on a GPU only, as many CPUs only emulate it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Place(device, bf16=precision == "bf16" or (precision == "auto" and device.type == "cuda"))
