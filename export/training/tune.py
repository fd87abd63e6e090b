"""The second stage: all of the model, gently; stopped at any time, it goes on to the same weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.models.encoder import EncoderClassifier, parameter_groups
from export.progress import Say
from export.training.batches import plan
from export.training.checkpoint import Checkpoints, mean_weights, mix_weights
from export.training.examples import Examples
from export.training.loss import masked_loss
from export.training.place import Place
from export.training.recipe import Tune
from stream.scoring.batching import MicroBatch

__all__ = ["STEPS", "fine_tune", "rate_at"]

STEPS = "steps.jsonl"
_SAY_EVERY = 50  # steps; a minute or so on a slow machine
_BETAS = (0.9, 0.98)  # as usual for encoders: a short training should not remember its first steps to the end


def fine_tune(
    model: EncoderClassifier,
    epochs: Sequence[Examples],
    tune: Tune,
    place: Place,
    *,
    seed: int,
    key: str,
    folder: Path,
    say: Say,
) -> None:
    """Train all of `model` in place, once on each of `epochs`, from the last checkpoint in `folder` if there is one.

    The end is the mean of the last `average_checkpoints` checkpoints, and `keep` of the way there from where it began.
    A line of figures per step is written to `steps.jsonl`.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.to(place.device)
    optimiser = torch.optim.AdamW(_groups(model, tune), betas=_BETAS)
    checkpoints = Checkpoints(folder, key=key, keep=tune.average_checkpoints)
    batches = [
        (examples, batch)
        for epoch, examples in enumerate(epochs)
        for batch in plan(examples.windows.lengths, batch_rows=tune.batch_rows, seed=seed + epoch)
    ]
    done = checkpoints.resume(model, optimiser)
    if done:
        say(f"going on from step {done} of {len(batches)}")
    with _figures(folder / STEPS, done) as write:
        for step in range(done, len(batches)):
            # Not the generator's state is kept but its seed set anew: dropout is then the same wherever one goes on.
            torch.manual_seed(seed + step)
            rate = rate_at(step, len(batches), warmup=tune.warmup)
            started = time.monotonic()
            examples, batch = batches[step]
            loss = _step(model, optimiser, examples, batch, place, rate=rate, clip=tune.clip)
            seconds = time.monotonic() - started
            tokens = batch.length * len(batch.rows)
            write({"step": step, "loss": loss, "rate": rate * tune.rate, "tokens": tokens, "seconds": seconds})
            if (step + 1) % tune.checkpoint_steps == 0 or step + 1 == len(batches):
                checkpoints.save(step + 1, model, optimiser)
            if (step + 1) % _SAY_EVERY == 0:
                say(f"step {step + 1} of {len(batches)}: loss {loss:.4f}, {tokens / seconds:,.0f} tokens/s")
    after = mean_weights(checkpoints.weights())
    model.cpu().load_state_dict(mix_weights(before, after, keep=tune.keep))
    model.eval()


def rate_at(step: int, steps: int, *, warmup: float) -> float:
    """The share of the full rate in one step: up in a straight line for a share of the steps, then down to 0.

    >>> [round(rate_at(step, 8, warmup=0.25), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 0.83, 0.67, 0.5, 0.33, 0.17]
    """
    rising = round(steps * warmup)
    return (step + 1) / rising if step < rising else (steps - step) / (steps - rising)


def _groups(model: EncoderClassifier, tune: Tune) -> list[dict[str, Any]]:
    """The encoder's groups, each remembering its full rate, since `lr` moves."""
    groups = parameter_groups(model, rate=tune.rate, layer_factor=tune.layer_factor, weight_decay=tune.weight_decay)
    return [{**group, "full": group["lr"]} for group in groups]


def _step(
    model: EncoderClassifier,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    batch: MicroBatch,
    place: Place,
    *,
    rate: float,
    clip: float,
) -> float:
    model.train()
    for group in optimiser.param_groups:
        group["lr"] = group["full"] * rate
    with place.precision():
        logits: Tensor = model(*place.inputs(examples.windows.inputs(batch)))
    loss = masked_loss(
        logits.float(), place.tensor(examples.targets[batch.rows]), place.tensor(examples.weights[batch.rows])
    )
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimiser.step()
    return float(loss.detach())


@contextmanager
def _figures(path: Path, done: int) -> Iterator[Any]:
    """Append one line of JSON per step, after dropping those of steps that a checkpoint does not have."""
    lines = path.read_text(encoding="utf-8").splitlines()[:done] if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)

        def write(figures: dict[str, float]) -> None:
            file.write(json.dumps(figures) + "\n")
            file.flush()

        yield write
