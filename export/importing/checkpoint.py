"""A checkpoint's folder in, what its `config.json` says out; what would run code of its own is refused unread."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from export.errors import ExportError
from export.models.weights import refuse_pickled

__all__ = ["Checkpoint", "open_checkpoint", "quietly", "read_file"]

CONFIG, TOKENIZER = "config.json", "tokenizer.json"

MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""The longest have some thousand classes; that is a hundred kilobytes."""

MAX_TOKENIZER_BYTES = 64 * 1024 * 1024
"""One of 250,000 pieces has 17 MB."""


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    architectures: tuple[str, ...] | None = None
    model_type: str = ""
    problem_type: str | None = None
    auto_map: object = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder as `save_pretrained` writes it, with weights that are numbers and no code."""

    folder: Path
    architecture: str
    """The class that `config.json` names first, such as `BertForSequenceClassification`."""
    model_type: str
    problem_type: str | None

    def weights(self) -> dict[str, str]:
        """The SHA-256 of every file of weights, by name."""
        return {path.name: _sha256(path) for path in sorted(self.folder.glob("*.safetensors"))}

    def tokenizer(self) -> bytes:
        """Its `tokenizer.json`. Raises `ExportError` where there is none."""
        return read_file(
            self.folder / TOKENIZER,
            most=MAX_TOKENIZER_BYTES,
            advice="of tokenizers only that file is read, which holds rules and no code; "
            "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` writes it from others",
        )


def open_checkpoint(folder: Path) -> Checkpoint:
    """Look at a checkpoint without loading it.

    Raises `ExportError` where it is none, needs code of its own, has weights in pickles only, or is half of a model.
    """
    if not folder.is_dir():
        raise ExportError(f"there is no folder {folder}: give the one that `save_pretrained` wrote; nothing is fetched")
    config = _read_config(folder / CONFIG)
    if config.auto_map is not None:
        raise ExportError(
            f"{folder / CONFIG} names code of its own (auto_map), which an import does not run: save the model as one "
            "of transformers' own classes"
        )
    if (folder / "adapter_config.json").exists():
        raise ExportError(
            f"{folder} holds an adapter to another model: merge the two (peft's `merge_and_unload`) and save the whole"
        )
    if not config.architectures:
        raise ExportError(
            f"{folder / CONFIG} names no architectures, so it is not known what the weights are: save the model again "
            "with `save_pretrained`"
        )
    refuse_pickled(folder)
    if not any(folder.glob("*.safetensors")):
        raise ExportError(f"{folder} holds no weights (*.safetensors): fetch the whole checkpoint")
    return Checkpoint(folder, config.architectures[0], config.model_type, config.problem_type)


def read_file(path: Path, *, most: int, advice: str) -> bytes:
    """A file of a checkpoint. Raises `ExportError` where it cannot be read, with `advice`, or has more than `most`."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}; {advice}") from None
    if len(content) > most:
        raise ExportError(f"{path} has more than {most:,} bytes, which no such file of a model has")
    return content


@contextmanager
def quietly() -> Iterator[None]:
    """Keep `transformers` from drawing progress, and from saying on stderr what we raise or say ourselves."""
    from transformers.utils import logging  # noqa: PLC0415 - who only looks at a checkpoint does not need it

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what it will change of its own code concerns nobody here
        yield


def _read_config(path: Path) -> _Config:
    content = read_file(path, most=MAX_CONFIG_BYTES, advice="give a folder that `save_pretrained` wrote")
    try:
        return _Config.model_validate(json.loads(content))
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ExportError(f"{path}: {where or 'content'}: {problem['msg']}; fetch the checkpoint again") from None
    except (ValueError, RecursionError):
        raise ExportError(f"{path} is not JSON: fetch the checkpoint again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
