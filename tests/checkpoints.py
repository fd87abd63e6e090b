"""Tiny classifiers of text of random weights, saved as checkpoints; label maps; and bundles of what was imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaConfig,
    DebertaForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from export.importing.finish import finish
from export.importing.imported import Imported
from stream.bundle import Bundle, load
from stream.bundle.sign import sign
from tests.bundles import own_trust, signer

__all__ = [
    "CLASSES",
    "KINDS",
    "MEANINGS",
    "class_logits",
    "edit_config",
    "harm_logits",
    "label_map",
    "save_checkpoint",
    "signed_bundle",
]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


CLASSES = ("calm", "rude", "insult", "threat")

MEANINGS = {"calm": "harmless", "rude": "harassment", "insult": "harassment", "threat": "violence"}

ROWS = 320
"""Rows of the word tables: all printable characters, whole and as ends of words."""

_SIZES: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 70,
    "initializer_range": 0.4,
}
_RELATIVE: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert", "deberta", "deberta-v2", "deberta-v3")


def _tiny(kind: str, *, classes: Sequence[str] = CLASSES, seed: int = 0, **more: Any) -> PreTrainedModel:
    """A classifier of random weights, large enough that its logits differ by some units from text to text."""
    torch.manual_seed(seed)
    names: dict[str, Any] = {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
        "problem_type": "single_label_classification",
        **more,
    }
    v3: dict[str, Any] = {
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    }
    makers: Mapping[str, Any] = {
        "bert": lambda: BertForSequenceClassification(BertConfig(**_SIZES | names)),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**_SIZES | names)),
        "xlm-roberta": lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**_SIZES | names)),
        "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(**_distil(names))),
        "deberta": lambda: DebertaForSequenceClassification(DebertaConfig(**_SIZES | _RELATIVE | names)),
        "deberta-v2": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_SIZES | names)),
        "deberta-v3": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**_SIZES | _RELATIVE | v3 | names)),
    }
    model: PreTrainedModel = makers[kind]()
    model.eval()
    return model


def _distil(names: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"vocab_size": ROWS, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40}
    return sizes | {"max_position_embeddings": 70, "initializer_range": 0.4} | dict(names)


def save_checkpoint(
    folder: Path, kind: str, *, classes: Sequence[str] = CLASSES, seed: int = 0, **more: Any
) -> PreTrainedModel:
    """Write a checkpoint as `save_pretrained` does, with its `tokenizer.json`, and return the model."""
    model = _tiny(kind, classes=classes, seed=seed, **more)
    model.save_pretrained(folder)
    roberta = kind in {"roberta", "xlm-roberta"}
    (folder / "tokenizer.json").write_text(_tokenizer(roberta=roberta).to_str(), encoding="utf-8")
    return model


def _tokenizer(*, roberta: bool) -> Tokenizer:
    """Letters, and frequent endings; special tokens with the ids that each family has them under."""
    special = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [chr(code) for code in range(33, 127)]
    words = ["the", "you", "and", "##ing", "##er", "##ed", "##s"]
    vocabulary = list(dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *words]))
    ids = {token: number for number, token in enumerate(vocabulary)}
    unknown = "<unk>" if roberta else "[UNK]"
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unknown, max_input_chars_per_word=200))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    begin, end = ("<s>", "</s>") if roberta else ("[CLS]", "[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, ids[begin]), (end, ids[end])]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def label_map(path: Path, classes: Mapping[str, str], **more: Any) -> Path:
    """Write a label map, with other fields than these in `more`, None leaving one out; JSON is YAML."""
    head = {"schema_version": 1, "name": "imported", "version": "3", "roles": ["post", "output"]}
    document = {**head, "classes": dict(classes), **more}
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    return path


def edit_config(folder: Path, **fields: object) -> None:
    """Change what a checkpoint's `config.json` says."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))


def signed_bundle(imported: Imported, folder: Path) -> Bundle:
    """The bundle of an imported model without data, signed with the tests' own key and loaded as a worker does."""
    finish(imported, folder, data=[], created_at=NOW, say=lambda _: None)
    sign(folder, signer())
    return load(folder, own_trust())


def class_logits(model: PreTrainedModel, folder: Path, texts: list[str]) -> NDArray[np.float64]:
    """The logits of transformers' own model behind transformers' own tokenizer, one call for all texts."""
    roberta = "roberta" in model.config.model_type
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>" if roberta else "[PAD]"
    )
    inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return np.asarray(model(**inputs).logits.double().numpy())


def harm_logits(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harassment and violence of `MEANINGS` by brute force, from the probabilities of four classes that share one."""
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    harms = np.stack([p[:, 1] + p[:, 2], p[:, 3]], axis=1)
    return np.asarray(np.log(harms / (1 - harms)))
