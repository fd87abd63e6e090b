"""A causal language model from a local folder, and the module that is converted of it: questions in, yes and no out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from export.errors import ExportError
from export.importing.checkpoint import Checkpoint
from export.importing.loading import load_model, read_config
from stream.scoring.questions import SHARED

__all__ = ["ARCHITECTURES", "Asked", "Questioned", "read_causal"]

ARCHITECTURES = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Kinds of model whose conversion is tested; `model_type` of config.json."""

_HIDDEN = -1e30
"""Added to the attention of what a token is not to see: its weight is then exactly 0, and nothing is infinite."""

_BY_LENGTH = {"dynamic", "longrope"}
"""Kinds of rotary embedding that are chosen anew for each length, in code that is not part of a graph."""


def read_causal(checkpoint: Checkpoint) -> PreTrainedModel:
    """Its model in float32, ready to convert.

    Raises `ExportError` where it is of a kind that is not known here, its weights are rounded, its places depend on the
    length of a text, or it is larger than a bundle's file may be.
    """
    if checkpoint.model_type not in ARCHITECTURES:
        raise ExportError(
            f"{checkpoint.folder} holds a model of type {checkpoint.model_type!r}; those that can be asked questions "
            f"are {', '.join(ARCHITECTURES)}"
        )
    config = read_config(checkpoint)
    _refuse_unfit(config, checkpoint.folder)
    return load_model(checkpoint, AutoModelForCausalLM, config, bytes_each=2 if config.dtype == torch.bfloat16 else 4)


class Questioned(nn.Module):
    """What is converted: tokens and marks of n rows with h questions each, to (n, h, 2) float32, yes and no.

    With `likelihoods` these are log-likelihoods, for which the last token of each question is held against the whole
    vocabulary; else the head is cut to the two answers, and only their difference means anything.
    """

    def __init__(self, model: PreTrainedModel, *, answers: tuple[int, int], harms: int, likelihoods: bool) -> None:
        super().__init__()
        config = model.config
        self.body = model.base_model
        head = model.get_output_embeddings().weight
        self.head = head if likelihoods else nn.Parameter(head[list(answers)].detach().clone())
        self.answers = list(answers)
        self.harms = harms
        self.likelihoods = likelihoods
        self.soft_cap: float | None = getattr(config, "final_logit_softcapping", None)
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None)
        self.windows = {kind: window if kind == "sliding_attention" else None for kind in kinds or ()}
        self.window = None if kinds else window

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Yes and no of each question of rows of tokens and marks, both (n, l) int64."""
        states = self._last_states(input_ids, attention_mask)
        # The row on the right: a product for each row by itself, whatever its company, with the weights as they lie.
        logits = self.head @ states.transpose(1, 2)
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        if self.likelihoods:
            logits = torch.log_softmax(logits, dim=1)[:, self.answers]
        return logits.transpose(1, 2)

    def _last_states(self, input_ids: Tensor, marks: Tensor) -> Tensor:
        """The state of each question's last token, (n, h, w)."""
        at = torch.arange(input_ids.shape[1])
        theirs = (marks[:, None, :] == SHARED) | (marks[:, None, :] == marks[:, :, None])
        seen = theirs & (at[None, :] <= at[:, None])
        # The place of a token in its own question is the number of tokens it sees before it.
        places = seen.sum(dim=-1) - 1
        masks = {kind: _mask(seen, places, window) for kind, window in self.windows.items()}
        states = self.body(
            input_ids=input_ids,
            attention_mask=masks or _mask(seen, places, self.window),
            position_ids=places,
            use_cache=False,
        ).last_hidden_state
        questions = torch.arange(self.harms) + SHARED + 1
        last = ((marks[:, None, :] == questions[:, None]) * at).amax(dim=-1)
        return torch.gather(states, 1, last[:, :, None].expand(-1, -1, states.shape[-1]))


class Asked:
    """The model as it came, asked one question at a time: what the converted one is held against."""

    def __init__(self, model: PreTrainedModel, answers: tuple[int, int]) -> None:
        self._model = model
        self._answers = list(answers)

    def log_likelihoods(self, question: list[int]) -> tuple[float, float]:
        """Of yes and of no after the tokens of a question."""
        with torch.no_grad():
            logits = self._model(input_ids=torch.tensor([question]), logits_to_keep=1, use_cache=False).logits[0, -1]
        yes, no = torch.log_softmax(logits, dim=-1)[self._answers].tolist()
        return yes, no


def _mask(seen: Tensor, places: Tensor, window: int | None) -> Tensor:
    """What is added to attention, (n, 1, l, l) float32; a layer with a window sees that many tokens at most."""
    if window is not None:
        seen = seen & (places[:, None, :] > places[:, :, None] - window)
    return torch.where(seen, 0.0, _HIDDEN)[:, None]


def _refuse_unfit(config: PretrainedConfig, folder: Path) -> None:
    if getattr(config, "quantization_config", None) is not None:
        raise ExportError(f"the weights in {folder} are rounded (quantization_config): import what they were made from")
    if kinds := _scalings(config) & _BY_LENGTH:
        raise ExportError(
            f"the model in {folder} turns places by the length of a text (rope_type {min(kinds)}), which a converted "
            "model cannot do: use another one"
        )


def _scalings(config: PretrainedConfig) -> set[str]:
    """The kinds of rotary embedding that a model has, of all its layers or of each kind of layer."""
    stated: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    parts = [stated, *(part for part in stated.values() if isinstance(part, dict))]
    return {str(part.get("rope_type", "default")) for part in parts}
