"""Where a training can go on: weights and optimiser in safetensors files, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from export.errors import ExportError

__all__ = ["Checkpoints", "mean_weights", "mix_weights"]

_MODEL, _OPTIMISER = "model.", "optimiser."


class Checkpoints:
    """The checkpoints of one training in one folder, of which the last few are kept.

    `key` names what is trained on what: a checkpoint of another key is refused, so that no training goes on as another.
    """

    def __init__(self, folder: Path, *, key: str, keep: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = key
        self._keep = keep

    def save(self, step: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write the state after `step` steps, whole or not at all, and drop those that are no longer kept."""
        tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{_OPTIMISER}{number}.{name}": tensor for name, tensor in state.items()}
        path = self._folder / f"step-{step:08d}.safetensors"
        fresh = path.with_suffix(".new")
        head = {"step": step, "key": self._key}
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            fresh,
            metadata={"training": json.dumps(head)},
        )
        fresh.rename(path)
        for old in self._paths()[: -self._keep]:
            old.unlink()

    def resume(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Load the last checkpoint into both; the number of steps that are done, 0 without a checkpoint.

        Raises `ExportError` where it is damaged or of another training.
        """
        paths = self._paths()
        if not paths:
            return 0
        step, tensors = self._read(paths[-1])
        model.load_state_dict(_below(tensors, _MODEL))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(tensors, _OPTIMISER).items():
            number, _, part = name.partition(".")
            state.setdefault(int(number), {})[part] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        return step

    def weights(self) -> list[dict[str, Tensor]]:
        """The model's weights in each checkpoint that is kept, oldest first."""
        return [_below(self._read(path)[1], _MODEL) for path in self._paths()]

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.safetensors"))

    def _read(self, path: Path) -> tuple[int, dict[str, Tensor]]:
        try:
            with safe_open(path, framework="pt") as file:
                head = json.loads((file.metadata() or {})["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ExportError(f"cannot go on from {path}: {error}; delete it to go on from the one before") from None
        if head["key"] != self._key:
            raise ExportError(f"{path} is of another recipe or other data: give another --out, or delete {path.parent}")
        return int(head["step"]), tensors


def mean_weights(weights: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several models' weights, tensor by tensor; there is at least one."""
    several = list(weights)
    return {name: torch.stack([one[name] for one in several]).mean(dim=0) for name in several[0]}


def mix_weights(before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, keep: float) -> dict[str, Tensor]:
    """`before` and so much of the way to `after`: 0 is `before`, 1 is `after` (Wortsman et al. 2022, "WiSE-FT")."""
    return {name: torch.lerp(before[name], after[name], keep) for name in before}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
