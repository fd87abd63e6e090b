"""The first stage: the head alone, on mean states of the encoder as it comes, which are computed once.

What the encoder learnt from a billion sentences is what holds on sources nobody saw. A head fitted to it is the start
that the tuning leaves from: a random head would tear at the encoder before it says anything (Kumar et al. 2022).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.models.encoder import EncoderClassifier, Standardise, fresh_head
from export.progress import Say
from export.training.batches import plan
from export.training.examples import Examples
from export.training.loss import masked_loss
from export.training.place import Place
from export.training.recipe import Probe, TrainingRecipe
from stream.scoring.batching import MicroBatch

__all__ = ["fit_head", "fit_heads", "frozen_states"]

_BATCH_ROWS = 32
_SAY_EVERY = 500  # batches; a minute or two on a slow machine
_FLAT = 1e-4  # a state that hardly varies is not blown up


def frozen_states(model: EncoderClassifier, examples: Examples, place: Place, *, cache: Path, say: Say) -> Tensor:
    """What the head reads of each text, (n, w) float32 on the CPU.

    States of texts that the file `cache` holds for this encoder are not computed again, and new ones are added to it:
    trainings that leave texts out, or add some, share it.
    """
    of = f"{_digest(model.encoder)} {model.read_layers} {place}"
    keys = _row_keys(examples)
    known = _read_cache(cache, of)
    missing = np.array([row for row, key in enumerate(keys) if key not in known], dtype=np.int64)
    if len(missing):
        say(f"computing the states of {len(missing)} texts, {len(keys) - len(missing)} are known")
        known |= zip([keys[row] for row in missing], _compute(model, examples, missing, place, say), strict=True)
        _write_cache(cache, of, known)
    return torch.from_numpy(np.stack([known[key] for key in keys]))


def _compute(
    model: EncoderClassifier, examples: Examples, rows: NDArray[np.int64], place: Place, say: Say
) -> NDArray[np.float32]:
    states = np.empty((len(rows), model.encoder.config.width * model.read_layers), dtype=np.float32)
    model.eval()
    batches = plan(examples.windows.lengths[rows], batch_rows=_BATCH_ROWS, seed=0)
    for number, batch in enumerate(batches, start=1):
        inputs = examples.windows.inputs(MicroBatch(rows[batch.rows], batch.length))
        with torch.no_grad(), place.precision():
            states[batch.rows] = model.pool(*place.inputs(inputs)).float().cpu().numpy()
        if number % _SAY_EVERY == 0:
            say(f"states of {min(number * _BATCH_ROWS, len(rows))} of {len(rows)} texts")
    return states


def _digest(encoder: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _row_keys(examples: Examples) -> list[bytes]:
    """The digest of each text's tokens, on which its state depends alone."""
    windows, tokens = examples.windows.windows, examples.windows.tokens
    ends = windows.starts + windows.lengths
    return [
        hashlib.sha256(tokens[start:end].tobytes()).digest()
        for start, end in zip(windows.starts.tolist(), ends.tolist(), strict=True)
    ]


def _read_cache(path: Path, of: str) -> dict[bytes, NDArray[np.float32]]:
    """The states in the file by key; none where it is not there or of another encoder."""
    if not path.exists():
        return {}
    tensors = load_file(path)
    if f"{of} keys" not in tensors:
        return {}
    keys, states = tensors[f"{of} keys"].numpy(), tensors[f"{of} states"].numpy()
    return {key.tobytes(): state for key, state in zip(keys, states, strict=True)}


def _write_cache(path: Path, of: str, known: Mapping[bytes, NDArray[np.float32]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(len(known), -1)
    fresh = path.with_suffix(".new")
    tensors = {f"{of} keys": torch.tensor(keys), f"{of} states": torch.from_numpy(np.stack(list(known.values())))}
    save_file(tensors, fresh)
    fresh.rename(path)


def fit_heads(model: EncoderClassifier, states: Tensor, examples: Examples, recipe: TrainingRecipe) -> float:
    """Fit the head of `model` as the mean of `recipe.head.members` heads; the mean loss of their last epochs.

    Members differ in their seeds: in first weights, in dropout, and in the order of the texts.
    """
    losses, members = [], []
    for seed in range(recipe.seed, recipe.seed + recipe.head.members):
        torch.manual_seed(seed)
        member = fresh_head(states.shape[1], harms=model.harms, hidden=recipe.head.hidden, dropout=recipe.head.dropout)
        losses.append(fit_head(member, states, examples, recipe.probe, seed=seed))
        members.append(member)
    model.head.load_state_dict(_mean_of_heads(members))
    return float(np.mean(losses))


def _mean_of_heads(members: Sequence[nn.Sequential]) -> dict[str, Tensor]:
    """One head whose logits are the mean of those of `members`: their hidden layers side by side."""
    states = [member.state_dict() for member in members]
    last = str(len(members[0]) - 1)
    scale = {name: tensor for name, tensor in states[0].items() if name.startswith("0.")}  # the same in all
    hidden = [name for name in states[0] if name not in scale and not name.startswith(last)]
    joined = {name: torch.cat([state[name] for state in states]) for name in hidden}
    bias = torch.stack([state[f"{last}.bias"] for state in states]).mean(dim=0)
    side_by_side = [state[f"{last}.weight"] / len(members) for state in states]
    weight = torch.cat(side_by_side, dim=1) if hidden else torch.stack(side_by_side).sum(dim=0)
    return scale | joined | {f"{last}.weight": weight, f"{last}.bias": bias}


def fit_head(head: nn.Sequential, states: Tensor, examples: Examples, probe: Probe, *, seed: int) -> float:
    """Fit `head` to the states with Adam, the rate falling to 0; the mean loss of the last epoch.

    Its first step, `Standardise`, is given the mean and the spread of the states.
    """
    torch.manual_seed(seed)
    scale = cast(Standardise, head[0])
    scale.mean.copy_(states.mean(dim=0))
    scale.spread.copy_(states.std(dim=0) + _FLAT)
    targets, weights = torch.from_numpy(examples.targets), torch.from_numpy(examples.weights)
    optimiser = torch.optim.AdamW(head.parameters(), lr=probe.rate, weight_decay=probe.weight_decay)
    batches = _shuffled(len(states), probe, seed)
    losses: list[float] = []
    head.train()
    for step, rows in enumerate(batches):
        optimiser.param_groups[0]["lr"] = probe.rate * (1 - step / len(batches))
        loss = masked_loss(head(states[rows]), targets[rows], weights[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-(len(batches) // probe.epochs) :]))


def _shuffled(count: int, probe: Probe, seed: int) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    steps = -(-count // probe.batch_rows)
    return [part for _ in range(probe.epochs) for part in np.array_split(generator.permutation(count), steps)]
