"""A checkpoint of a sequence classifier in, its ONNX model with one logit per harm out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from export.convert import TorchModel, convert
from export.errors import ExportError
from export.importing.checkpoint import Checkpoint, open_checkpoint, quietly
from export.importing.head import HarmLogits
from export.importing.imported import Imported
from export.importing.labels import HARMLESS, ClassMap, LabelMap
from export.importing.texts import texts_of_lengths
from export.logits import Model, first_window_calls
from export.parity import check_parity
from export.progress import Say
from stream.bundle import TextInput
from stream.bundle.manifest import MAX_FILE_BYTES
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

MODEL, TOKENIZER, LABELS = "model.onnx", "tokenizer.json", "labels.yaml"

MAX_TOKENIZER_BYTES = 64 * 1024 * 1024
"""One of 250,000 pieces has 17 MB."""


def import_classifier(checkpoint: Path, labels: LabelMap, say: Say) -> Imported:
    """Convert the classifier in the folder `checkpoint`; nothing is fetched, and no code of its own is run.

    Raises `ExportError` where it cannot be had as it is, and `ConfigError` where `labels` does not fit it.
    """
    found = open_checkpoint(checkpoint)
    if found.model_type not in FAMILIES:
        raise ExportError(f"{checkpoint} is of type {found.model_type!r}; there are {', '.join(FAMILIES)} to import")
    tokenizer = _read_tokenizer(checkpoint)
    say(f"loading {found.architecture}")
    model = _load(found)
    classes = labels.match(_class_names(model, checkpoint), problem_type=found.problem_type)
    given = _input_of(model)
    reader = WindowTokenizer.of(tokenizer, given)
    _refuse_other_vocabulary(model, reader, checkpoint)

    say("converting to ONNX")
    served = _Served(model, classes)
    content = convert(served)
    say("comparing the converted model with its module")
    session = open_session(content, "cpu", signature=reads_tokens(len(classes.harms)))
    windows = reader.read(texts_of_lengths(given.max_tokens))
    parity = check_parity(_logits(TorchModel(served), windows), _logits(session, windows))
    say(f"largest difference of a logit: {parity.max_abs_logit:.2g} over {parity.texts} texts")
    return Imported(
        harms=classes.harms,
        roles=labels.roles,
        input=given,
        artefacts={"cpu": (MODEL, content)},
        tokenizer=tokenizer,
        parity=parity,
        about=_about(found, model, classes, labels.source),
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


def _load(checkpoint: Checkpoint) -> PreTrainedModel:
    try:
        with quietly():
            model, said = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="eager",  # what a config may ask for instead is fetched, and runs on a GPU only
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise ExportError(f"cannot load {checkpoint.folder}: {error}") from None
    _refuse_made_up(checkpoint, said)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > MAX_FILE_BYTES:
        raise ExportError(
            f"{checkpoint.folder} has {size / 1e9:.1f} GB of weights in float32, a model may have "
            f"{MAX_FILE_BYTES / 1e9:.1f} GB: import a smaller one"
        )
    return cast(PreTrainedModel, model.eval())


def _refuse_made_up(checkpoint: Checkpoint, said: dict[str, Any]) -> None:
    """Raise `ExportError` where weights were missing: `transformers` fills them with random numbers and goes on."""
    missing = sorted(map(str, [*said["missing_keys"], *said["mismatched_keys"]]))
    if missing:
        raise ExportError(
            f"{checkpoint.folder} lacks {len(missing)} of the weights of a {checkpoint.architecture}, or has them in "
            f"another shape, {missing[0]} first: import a checkpoint that was trained as a classifier"
        )


def _class_names(model: PreTrainedModel, folder: Path) -> list[str]:
    names = {int(number): str(name) for number, name in (model.config.id2label or {}).items()}
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        raise ExportError(
            f"id2label of {folder / 'config.json'} does not give every class one name of its own: mend it"
        )
    return [names[number] for number in sorted(names)]


def _input_of(model: PreTrainedModel) -> TextInput:
    positions = int(model.config.max_position_embeddings)
    if model.config.model_type in _POSITIONS_FROM_PADDING:
        positions -= model.config.pad_token_id + 1
    window = min(positions, MAX_TOKENS)
    return TextInput(max_tokens=window, stride=min(STRIDE, window // 4), max_windows=MAX_WINDOWS)


def _read_tokenizer(folder: Path) -> bytes:
    try:
        with (folder / TOKENIZER).open("rb") as file:
            content = file.read(MAX_TOKENIZER_BYTES + 1)
    except OSError as error:
        raise ExportError(
            f"cannot read {folder / TOKENIZER}: {error.strerror}. Of tokenizers only that file is read, which holds "
            "rules and no code; `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` writes it from others"
        ) from None
    if len(content) > MAX_TOKENIZER_BYTES:
        raise ExportError(f"{folder / TOKENIZER} has more than {MAX_TOKENIZER_BYTES} bytes, which no tokenizer has")
    return content


def _refuse_other_vocabulary(model: PreTrainedModel, reader: WindowTokenizer, folder: Path) -> None:
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if reader.largest_id >= rows:
        raise ExportError(
            f"{folder / TOKENIZER} has tokens up to {reader.largest_id}, the model has {rows} rows for them: the two "
            "are not of one checkpoint"
        )


def _logits(model: Model, windows: TokenWindows) -> NDArray[np.float32]:
    return np.concatenate([model.run(windows.inputs(batch)) for batch in first_window_calls(windows)])


def _about(checkpoint: Checkpoint, model: PreTrainedModel, classes: ClassMap, source: str | None) -> str:
    size = sum(parameter.numel() for parameter in model.parameters())
    kind = {
        "softmax": "One class of all (softmax): a harm's probability is the sum over its classes.",
        "sigmoid": "Each class by itself (sigmoid): a harm with several classes has the largest.",
    }[classes.scores]
    lines = [
        f"A {checkpoint.architecture} of {size / 1e6:,.1f} million parameters, trained elsewhere, converted as it is,",
        f"in float32. {kind}",
        "",
        "| class of the checkpoint | means |",
        "|---|---|",
        *(f"| {_cell(name)} | {_cell(meaning)} |" for name, meaning in classes.meanings),
        "",
        *(f"`{name}`: sha256 {digest}" for name, digest in checkpoint.weights().items()),
        *([] if source is None else ["", f"Where it is from: {source}"]),
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text if text == HARMLESS else f"`{text.replace('|', '/').replace('`', '')}`"
