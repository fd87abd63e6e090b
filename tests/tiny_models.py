"""Tiny language models of random weights: saved as checkpoints, imported, and asked directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from export.importing.imported import Imported
from export.importing.policy import import_policy
from stream.events import EventBatch
from tests.causal import questions_yaml, tokenizer_of
from tests.records import batch_of

__all__ = ["MODELS", "SIZES", "Oracle", "checkpoint", "events", "imported_from", "question"]

SIZES: dict[str, Any] = {
    "vocab_size": 480,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
MODELS: dict[str, Callable[[], PretrainedConfig]] = {
    "gemma": lambda: GemmaConfig(**SIZES),
    "gemma2": lambda: Gemma2Config(**SIZES, sliding_window=24),
    "gemma3_text": lambda: Gemma3TextConfig(
        **SIZES, sliding_window=24, layer_types=["sliding_attention", "full_attention"]
    ),
    "llama": lambda: LlamaConfig(**SIZES),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=24),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES),
}


def checkpoint(
    folder: Path, model: str = "llama", *, tokenizer: str = "gemma", halves: bool = False, **changes: Any
) -> PreTrainedModel:
    """A folder as `save_pretrained` writes it, of a model of random weights, in bfloat16 if `halves` says so."""
    torch.manual_seed(5)
    config = MODELS[model]()
    for name, value in changes.items():
        setattr(config, name, value)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    if halves:
        made.bfloat16()
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_of(tokenizer))
    return made


def imported_from(folder: Path, **changes: Any) -> Imported:
    """Import what is in `folder` with the tiny questions."""
    questions = folder / "questions.yaml"
    questions.write_text(yaml.safe_dump(questions_yaml(**changes), sort_keys=False))
    return import_policy(folder, questions, lambda _: None)


def events(*texts: str, role: str = "prompt", prompt: str | None = None) -> EventBatch:
    """Events of one role."""
    return replace(batch_of(*texts), roles=[role] * len(texts), prompts=[prompt] * len(texts))


def question(harm: str, text: str, *, role: str, prompt: str | None = None) -> str:
    """One question as its author would put it together."""
    family: dict[str, Any] = questions_yaml()["prompt" if role == "prompt" else "response"]
    user, response = (text, "") if role == "prompt" else (prompt or "", text)
    filled = family["template"].replace("{guideline}", family["guidelines"][harm])
    return str(filled.replace("{user}", user).replace("{response}", response))


@dataclass(frozen=True, slots=True)
class Oracle:
    """A model asked by `transformers` alone, one question at a time."""

    model: PreTrainedModel
    tokenizer: Tokenizer

    def log_likelihoods(self, text: str) -> tuple[float, float]:
        """Of Yes and No after a text, control tokens in it being what they are."""
        ids = self.tokenizer.encode(text).ids
        with torch.no_grad():
            likelihoods = self.model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        yes, no = (likelihoods[self.tokenizer.token_to_id(answer)].item() for answer in ("Yes", "No"))
        return yes, no

    def probability(self, text: str, *, alpha: float = 0.0, temperature: float = 1.0) -> float:
        """The definition, as it is written [S01]."""
        yes, no = (np.exp(value / temperature) + alpha for value in self.log_likelihoods(text))
        return float(yes / (yes + no))

    def logit(self, text: str, *, alpha: float, temperature: float) -> float:
        """Of that probability."""
        violated = self.probability(text, alpha=alpha, temperature=temperature)
        return float(np.log(violated / (1 - violated)))
