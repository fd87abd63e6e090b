"""The ways of training that rotations compare: each learns from a fold and gives logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.data.balance import row_weights
from export.data.dataset import HARMS, Dataset
from export.graphs.convert import TorchModel
from export.measuring.rotations import Fold, Learner
from export.models import lite
from export.models.encoder import read_minilm, served
from export.models.logits import text_logits
from export.progress import Say
from export.text.tokens import build_moderator_tokenizer, build_tokenizer
from export.train import STATES, train_on
from export.training.place import Place
from export.training.recipe import TrainingRecipe
from stream.bundle import TextInput
from stream.scoring.tokenize import WindowTokenizer

__all__ = ["encoder_learner", "lite_learner"]


def lite_learner(data: Dataset, training: lite.Training, *, model_input: TextInput, say: Say) -> Learner:
    """The lite model, its weight decay chosen on the validation rows of the sources that stay."""
    reader = WindowTokenizer.of(build_tokenizer(), model_input)

    def learn(fold: Fold) -> NDArray[np.float32]:
        rows = np.concatenate([fold.train, fold.validation])
        learnt = data.take(rows)
        learning = lite.TrainingSet(
            windows=reader.read(learnt.texts),
            labels=learnt.labels,
            human_labels=learnt.human_labels,
            weights=row_weights(learnt.sources, learnt.silver),
            train=np.arange(len(fold.train)),
            validation=np.arange(len(fold.train), len(rows)),
        )
        model = lite.quantise(lite.train_apart(learning, training, say=say))
        measured = data.take(np.concatenate([fold.validation, fold.left_out]))
        return text_logits(TorchModel(model), reader.read(measured.texts), harms=len(HARMS))

    return learn


def encoder_learner(
    data: Dataset, recipe: TrainingRecipe, *, model_input: TextInput, place: Place, folder: Path, say: Say
) -> Learner:
    """The encoder with its head by a training recipe, each rotation in a folder of its own, where it can go on."""
    reader = WindowTokenizer.of(build_moderator_tokenizer(), model_input)

    def learn(fold: Fold) -> NDArray[np.float32]:
        trained = train_on(
            data,
            fold.train,
            recipe,
            encoder=read_minilm(),
            place=place,
            folder=folder / fold.rotation.name,
            states=folder / STATES,
            say=say,
        )
        measured = data.take(np.concatenate([fold.validation, fold.left_out]))
        windows = reader.read(measured.as_read(recipe.form))
        return text_logits(TorchModel(served(trained.model)), windows, harms=len(HARMS))

    return learn
