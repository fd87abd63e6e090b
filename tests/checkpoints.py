"""Checkpoints made for tests: tiny classifiers of random weights with a tokenizer of their own, as folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
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
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

__all__ = ["CLASSES", "KINDS", "label_map", "save_checkpoint", "tiny_classifier"]

CLASSES = ("calm", "rude", "insult", "threat")

ROWS = 320
"""Rows of the word tables: all printable characters, whole and as ends of words."""

_SIZES = {
    "vocab_size": ROWS,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 70,
    "initializer_range": 0.4,
}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert", "deberta", "deberta-v2", "deberta-v3")


def tiny_classifier(kind: str, *, classes: Sequence[str] = CLASSES, seed: int = 0, **more: Any) -> PreTrainedModel:
    """A classifier of random weights, large enough that its logits differ by some units from text to text."""
    torch.manual_seed(seed)
    names: dict[str, Any] = {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: number for number, name in enumerate(classes)},
        "problem_type": "single_label_classification",
        **more,
    }
    v3 = {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False}
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
    return model.eval()


def _distil(names: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"vocab_size": ROWS, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40}
    return sizes | {"max_position_embeddings": 70, "initializer_range": 0.4} | dict(names)


def save_checkpoint(
    folder: Path, kind: str, *, classes: Sequence[str] = CLASSES, seed: int = 0, **more: Any
) -> PreTrainedModel:
    """Write a checkpoint as `save_pretrained` does, with its `tokenizer.json`, and return the model."""
    model = tiny_classifier(kind, classes=classes, seed=seed, **more)
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
    """Write a label map; JSON is YAML."""
    head = {"schema_version": 1, "name": "imported", "version": "3", "roles": ["post", "output"]}
    path.write_text(json.dumps({**head, "classes": dict(classes), **more}), encoding="utf-8")
    return path
