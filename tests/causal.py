"""Language models of a few thousand weights, tokenizers of a few hundred pieces, and questions to ask them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

__all__ = ["BEGIN", "END_TURN", "HARMS", "TOKENIZERS", "TURN", "questions_yaml", "tokenizer_of"]

BEGIN, TURN, END_TURN = "<bos>", "<start_of_turn>", "<end_of_turn>"

HARMS = ("hate", "dangerous", "sexual")

CORPUS = (
    "Yes No Yes No Yes No model user Request Answer Guideline Does the text violate this? Begin with Yes or No",
    "You judge requests. You judge texts by a guideline. Nobody may ask for hate, weapons or bodies. The text may not.",
    "The quick brown fox jumps over the lazy dog. How do I kill a Python process that does not answer?",
)
"""What the tokenizers have learnt their pieces from, the two answers among them."""

PROMPT = f"""\
{TURN}user
You judge requests.
{TURN}
Request: {{user}}
{END_TURN}
Guideline: {{guideline}}
Begin with Yes or No
{END_TURN}
{TURN}model
"""

RESPONSE = f"""\
{TURN}user
You judge texts.
{TURN}
Request: {{user}}
{END_TURN}
{TURN}
Answer: {{response}}
{END_TURN}
Guideline: {{guideline}}
Begin with Yes or No
{END_TURN}
{TURN}model
"""


def questions_yaml(**changes: Any) -> dict[str, Any]:  # Any: whatever a test wants to try
    """Questions as their author writes them, with other top-level fields than these in `changes`; None leaves out."""
    document = {
        "schema_version": 1,
        "name": "tiny",
        "version": "1",
        "max_tokens": 160,
        "min_answer_mass": 0.0,
        "alpha": 1e-6,
        "answers": {"yes": "Yes", "no": "No"},
        "prompt": {"template": PROMPT, "guidelines": {harm: f"Nobody may ask for {harm}." for harm in HARMS}},
        "response": {"template": RESPONSE, "guidelines": {harm: f"The text may not {harm}." for harm in HARMS}},
    }
    return {key: value for key, value in (document | changes).items() if value is not None}


BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def _trained(tokenizer: Tokenizer, *, pieces: Sequence[str] = (), alphabet: Sequence[str] = ()) -> Tokenizer:
    """Teach a BPE tokenizer the corpus, and add the control tokens; the last two are not marked as special."""
    trainer = trainers.BpeTrainer(
        vocab_size=420 + len(pieces),
        special_tokens=["<pad>", "<unk>", BEGIN, *pieces],
        show_progress=False,
        min_frequency=1,
        initial_alphabet=list(alphabet),
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in (TURN, END_TURN)])
    tokenizer.post_processor = processors.TemplateProcessing(
        f"{BEGIN} $A", None, [(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def _bytes() -> Tokenizer:
    """As Llama 3 and Qwen have it: bytes, split at words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _trained(tokenizer, alphabet=pre_tokenizers.ByteLevel.alphabet())


def _pieces(**parts: Any) -> Tokenizer:  # Any: components of the library
    """As Gemma, Llama 2 and Mistral have it: pieces with a mark for the space, and bytes for what is in none."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    tokenizer = _trained(tokenizer, pieces=BYTES, alphabet="\n?.,:'abcdefghijklmnopqrstuvwxyz")
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "bytes": _bytes,
    "gemma": lambda: _pieces(
        normalizer=normalizers.Replace(" ", "\u2581"), pre_tokenizer=pre_tokenizers.Split(" ", "merged_with_previous")
    ),
    "llama": lambda: _pieces(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "legacy llama": lambda: _pieces(
        normalizer=normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
        pre_tokenizer=None,
    ),
}


@cache
def tokenizer_of(kind: str = "bytes") -> bytes:
    """A `tokenizer.json`."""
    document = json.loads(TOKENIZERS[kind]().to_str())
    # The trainer knows no other way to give them a place; as pieces of the vocabulary they are no added tokens.
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] not in BYTES]
    return json.dumps(document).encode()
