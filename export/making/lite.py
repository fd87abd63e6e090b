"""The lite model for the recipe: trained here, its table rounded to 8 bits, one file that runs everywhere."""

from __future__ import annotations

import numpy as np

from export.data.balance import row_weights
from export.data.dataset import HARMS
from export.graphs.convert import TorchModel, convert
from export.graphs.parity import check_parity
from export.making.parts import Made, Make, Material
from export.models import lite
from export.models.logits import text_logits
from export.progress import Say
from stream.scoring.session import open_session, reads_tokens

__all__ = ["make_lite"]

_FILE = "model.onnx"


def make_lite(training: lite.Training) -> Make:
    """Train by `training` on the texts to learn from; parity is over the texts to calibrate on."""

    def make(material: Material, say: Say) -> Made:
        candidate = _train(material, training, say)
        say("converting to ONNX")
        model = convert(candidate.served)
        converted = open_session(model, "cpu", signature=reads_tokens(len(HARMS)))
        module, artefact = (
            text_logits(one, material.calibrating.windows, harms=len(HARMS))
            for one in (TorchModel(candidate.served), converted)
        )
        trained = TorchModel(candidate.trained)
        return Made(
            {"cpu": (_FILE, model)},
            trained,
            text_logits(trained, material.calibrating.windows, harms=len(HARMS)),
            check_parity(module, artefact),
        )

    return make


def _train(material: Material, training: lite.Training, say: Say) -> lite.Candidate:
    data, splits = material.learning.data, material.splits
    return lite.train(
        lite.TrainingSet(
            windows=material.learning.windows,
            labels=data.labels,
            human_labels=data.human_labels,
            weights=row_weights(data.sources, data.silver),
            train=np.flatnonzero(np.isin(splits.learning, splits.train)),
            validation=np.flatnonzero(np.isin(splits.learning, splits.validation)),
        ),
        training,
        say=say,
    )
