"""A checkpoint's model out of its folder, whatever kind it is: nothing fetched, nothing made up, nothing too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from export.errors import ExportError
from export.importing.checkpoint import CONFIG, TOKENIZER, Checkpoint, quietly
from stream.bundle.manifest import MAX_FILE_BYTES

__all__ = ["class_names", "load_model", "read_config", "refuse_other_vocabulary"]

_GRAPH_BYTES = 16 * 1024 * 1024
"""Beside the weights in a model's file; a graph of 48 layers is a tenth of it."""

_UNREADABLE = (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What `transformers` raises for a checkpoint that is torn, or whose config says what nobody expects."""

_Auto = Any  # one of transformers' classes that look for the right one, which have no common type

_NO_SURPRISES: dict[str, Any] = {
    "trust_remote_code": False,
    "attn_implementation": "eager",  # what a config may ask for instead is fetched, and runs on a GPU only
}


def read_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """Its `config.json` as `transformers` understands it. Raises `ExportError`."""
    try:
        with quietly():
            config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ExportError(f"cannot use {checkpoint.folder / CONFIG}: {error}") from None
    return cast(PretrainedConfig, config)


def load_model(
    checkpoint: Checkpoint, auto: _Auto, config: PretrainedConfig, *, bytes_each: int = 4
) -> PreTrainedModel:
    """Its model in float32, ready to convert; `auto` is the class of `transformers` that reads this kind.

    Raises `ExportError` where the weights are not those of the config, or are larger than a bundle's file may be, with
    `bytes_each` for a parameter there; of that the config tells before any are read.
    """
    try:
        with quietly():
            with torch.device("meta"):
                empty = auto.from_config(config, **_NO_SURPRISES)
            _refuse_large(empty, checkpoint, bytes_each)
            model, said = auto.from_pretrained(
                checkpoint.folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **_NO_SURPRISES,
            )
    except _UNREADABLE as error:
        raise ExportError(f"cannot load {checkpoint.folder}: {error}") from None
    _refuse_made_up(checkpoint, said)
    return cast(PreTrainedModel, model.eval())


def class_names(model: PreTrainedModel, checkpoint: Checkpoint) -> list[str]:
    """The classes of a classifier in the order of its logits. Raises `ExportError` where they cannot be told apart."""
    names = {int(number): str(name) for number, name in (model.config.id2label or {}).items()}
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        raise ExportError(
            f"id2label of {checkpoint.folder / CONFIG} does not give every class one name of its own: mend it"
        )
    return [names[number] for number in sorted(names)]


def refuse_other_vocabulary(model: PreTrainedModel, largest_id: int, folder: Path) -> None:
    """Raise `ExportError` where the tokenizer has tokens that the model has no rows for."""
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if largest_id >= rows:
        raise ExportError(
            f"{folder / TOKENIZER} has tokens up to {largest_id}, the model has {rows} rows for them: the two are not "
            "of one checkpoint"
        )


def _refuse_large(empty: PreTrainedModel, checkpoint: Checkpoint, bytes_each: int) -> None:
    weights = bytes_each * sum(parameter.numel() for parameter in empty.parameters())
    if weights + _GRAPH_BYTES > MAX_FILE_BYTES:
        most = (MAX_FILE_BYTES - _GRAPH_BYTES) // bytes_each
        raise ExportError(
            f"{checkpoint.folder} has {weights / 1e9:.1f} GB of weights, a bundle's file may have "
            f"{MAX_FILE_BYTES / 1e9:.1f} GB: import one of at most {most / 1e6:,.0f} million parameters"
        )


def _refuse_made_up(checkpoint: Checkpoint, said: dict[str, Any]) -> None:
    """Raise `ExportError` where weights were missing: `transformers` fills them with random numbers and goes on."""
    missing = sorted(map(str, [*said["missing_keys"], *said["mismatched_keys"]]))
    if missing:
        raise ExportError(
            f"{checkpoint.folder} lacks {len(missing)} of the weights of a {checkpoint.architecture}, or has them in "
            f"another shape, {missing[0]} first: fetch the checkpoint again, or import one that was trained as that"
        )
