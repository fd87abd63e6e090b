"""The way from labelled text and a training recipe to a model's weights: read → split → states → head → tune → save.

Everything is under one folder: the states of the untouched encoder, checkpoints, the figures of every step, and at the
end `model.safetensors` and `training.json`. The same call again goes on where the last one was stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.data.dataset import HARMS, Dataset, join
from export.data.splits import read_split
from export.errors import ExportError
from export.functional import expand, read_library, to_dataset
from export.models.encoder import Encoder, EncoderClassifier, read_minilm, save_classifier
from export.progress import Say
from export.text.augment import Augmentation, augment_all
from export.text.tokens import build_moderator_tokenizer
from export.training.examples import Examples, keep_rows, make_examples
from export.training.place import Place
from export.training.probe import fit_heads, frozen_states
from export.training.recipe import Functional, TrainingRecipe, Tune
from export.training.tune import fine_tune
from stream.scoring.tokenize import WindowTokenizer

__all__ = ["FIGURES", "MODEL", "STATES", "Trained", "train", "train_on"]

MODEL = "model.safetensors"
FIGURES = "training.json"
STATES = "states.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in float32 on the CPU, and the figures of its training."""

    model: EncoderClassifier
    figures: dict[str, object]


def train(data: Path, out: Path, recipe: TrainingRecipe, *, place: Place, say: Say) -> Trained:
    """Train on the train split of the labelled texts in the folder `data`; write the folder `out`.

    Raises `ExportError` where data or an earlier training in `out` do not allow it.
    """
    dataset, splits = read_split(data, say)
    trained = train_on(
        dataset,
        splits.train,
        recipe,
        encoder=read_minilm(),
        place=place,
        folder=out,
        states=out / STATES,
        say=say,
    )
    save_classifier(trained.model, out / MODEL)
    (out / FIGURES).write_text(json.dumps(trained.figures, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {out / MODEL} and {out / FIGURES}")
    return trained


def train_on(
    data: Dataset,
    rows: NDArray[np.int64],
    recipe: TrainingRecipe,
    *,
    encoder: Encoder,
    place: Place,
    folder: Path,
    states: Path,
    say: Say,
) -> Trained:
    """Train `encoder` and a new head on these rows of `data`, keeping what it needs to go on in `folder`.

    `states` is the file of the untouched encoder's states, which several trainings may share.
    """
    rows = keep_rows(data, rows, recipe.balance)
    if not len(rows):
        raise ExportError("none of the texts to train on has a label")
    learnt = data.take(rows)
    if recipe.functional:
        learnt = join(learnt, _functional(recipe.functional))
    tokenizer = build_moderator_tokenizer()
    examples = _examples(learnt, recipe, tokenizer, recipe.max_tokens)
    torch.manual_seed(recipe.seed)
    head = recipe.head
    model = EncoderClassifier(
        encoder, harms=len(HARMS), hidden=head.hidden * head.members, layers=head.layers, dropout=head.dropout
    )

    started = time.monotonic()
    frozen = frozen_states(model.to(place.device), examples, place, cache=states, say=say)
    model.cpu()
    loss = fit_heads(model, frozen, examples, recipe)
    figures: dict[str, object] = {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "device": place.device.type,
        "bf16": place.bf16,
        "torch": str(torch.__version__),
        "rows": len(learnt),
        "rows_by_source": {str(name): int((learnt.sources == name).sum()) for name in np.unique(learnt.sources)},
        "probe": {"loss": loss, "seconds": time.monotonic() - started},
    }
    say(f"fitted the head to {len(learnt)} texts: loss {loss:.4f}")
    if recipe.tune:
        tuned_on = [
            _examples(texts, recipe, tokenizer, recipe.tune.max_tokens) for texts in _epochs(learnt, recipe.tune)
        ]
        started = time.monotonic()
        fine_tune(
            model,
            tuned_on,
            recipe.tune,
            place,
            seed=recipe.seed,
            key=_key(recipe, tuned_on, place),
            folder=folder / "checkpoints",
            say=say,
        )
        figures["tune"] = {"seconds": time.monotonic() - started}
    return Trained(model.eval(), figures)


def _examples(data: Dataset, recipe: TrainingRecipe, tokenizer: bytes, max_tokens: int) -> Examples:
    """Each text's first window: few texts are longer, and a label is for what a person read first."""
    reader = WindowTokenizer(tokenizer, window=max_tokens, overlap=0, max_windows=1)
    return make_examples(data, recipe.balance, recipe.form, reader)


def _functional(functional: Functional) -> Dataset:
    return to_dataset(expand(read_library(), seed=functional.seed, per_template=functional.per_template))


def _epochs(data: Dataset, tune: Tune) -> Iterator[Dataset]:
    """The texts of each epoch, with its noise."""
    for epoch in range(tune.epochs):
        noise = Augmentation(share=tune.noise.share) if tune.noise else None
        yield replace(data, texts=tuple(augment_all(data.texts, noise, epoch=epoch))) if noise else data


def _key(recipe: TrainingRecipe, epochs: Sequence[Examples], place: Place) -> str:
    """What a checkpoint is a checkpoint of; how much of it is kept in the end can be chosen anew."""
    said = (
        recipe.model_dump_json(exclude={"tune": {"keep"}})
        + "".join(examples.digest for examples in epochs)
        + str(place)
    )
    return hashlib.sha256(said.encode()).hexdigest()
