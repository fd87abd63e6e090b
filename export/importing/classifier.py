"""A checkpoint of a sequence classifier in, its ONNX model with one logit per harm out."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from export.errors import ExportError
from export.graphs.convert import TorchModel, convert
from export.graphs.parity import check_parity
from export.importing.card import about_classes
from export.importing.checkpoint import open_checkpoint
from export.importing.head import HarmLogits
from export.importing.imported import MODEL, Imported
from export.importing.labels import LABELS, ClassMap, LabelMap
from export.importing.loading import class_names, load_model, read_config, refuse_other_vocabulary
from export.importing.texts import texts_of_lengths
from export.models.logits import Model, first_window_calls
from export.progress import Say
from stream.bundle import TextInput
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import TokenWindows, WindowTokenizer

__all__ = ["FAMILIES", "import_classifier"]

FAMILIES = ("bert", "deberta", "deberta-v2", "distilbert", "roberta", "xlm-roberta")
"""Kinds of encoder that were tried, by the `model_type` of their config.json; deberta-v2 is DeBERTa v3's as well."""

_POSITIONS_FROM_PADDING = frozenset({"roberta", "xlm-roberta"})
"""These number positions from the id of their padding on."""

MAX_TOKENS = 512
"""Longest window, whatever a model could take: attention costs the square of it."""

STRIDE = 64
"""Tokens shared by two windows, so that no phrase falls between them; a quarter of a window shorter than 256."""

MAX_WINDOWS = 8


def import_classifier(checkpoint: Path, labels: LabelMap, say: Say) -> Imported:
    """Convert the classifier in the folder `checkpoint`; nothing is fetched, and no code of its own is run.

    Raises `ExportError` where it cannot be had as it is, and `ConfigError` where `labels` does not fit it.
    """
    found = open_checkpoint(checkpoint)
    if found.model_type not in FAMILIES:
        raise ExportError(f"{checkpoint} is of type {found.model_type!r}; there are {', '.join(FAMILIES)} to import")
    tokenizer = found.tokenizer()
    say(f"loading {found.architecture}")
    model = load_model(found, AutoModelForSequenceClassification, read_config(found))
    classes = labels.match(class_names(model, found), problem_type=found.problem_type)
    given = _input_of(model)
    reader = WindowTokenizer.of(tokenizer, given)
    refuse_other_vocabulary(model, reader.largest_id, checkpoint)

    say("converting to ONNX")
    served = _Served(model, classes)
    content = convert(served)
    say("comparing the converted model with its module")
    session = open_session(content, "cpu", signature=reads_tokens(len(classes.harms)))
    windows = reader.read(texts_of_lengths(given.max_tokens))
    parity = check_parity(_logits(TorchModel(served), windows), _logits(session, windows))
    say(f"largest difference of a logit: {parity.max_abs_logit:.2g} over {parity.texts} texts")
    return Imported(
        name=labels.name,
        version=labels.version,
        harms=classes.harms,
        roles=labels.roles,
        input=given,
        artefacts={"cpu": (MODEL, content)},
        tokenizer=tokenizer,
        parity=parity,
        about=about_classes(found.architecture, model.num_parameters(), classes, source=labels.source),
        weights=found.weights(),
        files={LABELS: labels.content},
    )


class _Served(nn.Module):
    """The classifier as it is served: token ids and mask, both (n, l) int64, to harm logits (n, h) float32."""

    def __init__(self, model: PreTrainedModel, classes: ClassMap) -> None:
        super().__init__()
        self.model: nn.Module = model
        self.head = HarmLogits(classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # A RoBERTa takes our padding, which has another id than its own, for tokens and numbers it; but it is at the
        # end, so that no token of the text is moved, and the mask hides it.
        return cast(Tensor, self.head(self.model(input_ids=input_ids, attention_mask=attention_mask).logits))


def _input_of(model: PreTrainedModel) -> TextInput:
    positions = int(model.config.max_position_embeddings)
    if model.config.model_type in _POSITIONS_FROM_PADDING:
        positions -= model.config.pad_token_id + 1
    window = min(positions, MAX_TOKENS)
    return TextInput(max_tokens=window, stride=min(STRIDE, window // 4), max_windows=MAX_WINDOWS)


def _logits(model: Model, windows: TokenWindows) -> NDArray[np.float32]:
    return np.concatenate([model.run(windows.inputs(batch)) for batch in first_window_calls(windows)])
