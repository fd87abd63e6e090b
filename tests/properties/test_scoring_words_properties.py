"""The tokens that the service reads are the tokenizer's own, for any text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stream.scoring.batching import MicroBatch
from stream.scoring.tokenize import WindowTokenizer

TOKENIZER = Path(__file__).parents[2] / "models" / "lite" / "tokenizer.json"
WINDOW = 16

# Arbitrary text hardly ever has a word in it, a special token, or an accent that follows its letter.
PIECES = st.one_of(
    st.sampled_from(
        ["harm", "Harmless", "[SEP]", "[CLS]", "##s", "naïve", "e\u0301", "≠", "Σίσυφος", "İ", "漢字", "ﬁ"]
    ),
    st.sampled_from(
        [" ", "  ", "\t", "\n", "\x00", "\x1c", "\u00a0", "\u200d", "\ufffd", "'", "_", "-", "@", "\u0338"]
    ),
    st.text(max_size=8),
)
TEXTS = st.lists(PIECES, min_size=1, max_size=12).map("".join)


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    """The tokenizer as its library reads it, apart from special tokens being text."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> WindowTokenizer:
    """Ours, with a window so short that most texts have several."""
    return WindowTokenizer(TOKENIZER.read_bytes(), window=WINDOW, overlap=2, max_windows=8)


@given(texts=st.lists(TEXTS, min_size=1, max_size=6))
@example(["e\u0301", "a\u0338=", "a =\u0338", "[SEP]", " ", "ΑΣ Σ", "a\x01b a\x1cb", "x" * 101])
def test_tokens_are_the_tokenizers(reference: Tokenizer, tokenizer: WindowTokenizer, texts: list[str]) -> None:
    """Reading a text word by word, words remembered, gives the tokens of reading it whole."""
    expected = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    assert tokenizer.read(texts).tokens.tolist() == [token for ids in expected for token in ids]


@given(texts=st.lists(TEXTS, min_size=1, max_size=6), idle=st.integers(0, 3))
def test_inputs_are_framed_and_padded(tokenizer: WindowTokenizer, texts: list[str], idle: int) -> None:
    """A row is [CLS], content, [SEP] under a mask of ones, then zeros under a mask of zeros."""
    read = tokenizer.read(texts)
    rows = np.arange(len(read.lengths))
    inputs = read.inputs(MicroBatch(rows, WINDOW, idle))
    assert inputs.input_ids.shape == inputs.attention_mask.shape == (len(rows) + idle, WINDOW)
    for row, (start, count) in enumerate(zip(read.windows.starts, read.windows.lengths, strict=True)):
        content = read.tokens[start : start + count].tolist()
        padding = [0] * (WINDOW - count - 2)
        assert inputs.input_ids[row].tolist() == [101, *content, 102, *padding]
        assert inputs.attention_mask[row].tolist() == [1] * (count + 2) + padding


@given(text=st.text(st.characters(categories=["Cs", "Ll"]), max_size=20))
def test_lone_surrogates_are_read_as_question_marks(tokenizer: WindowTokenizer, text: str) -> None:
    """Characters that no encoding has do not keep the rest of a text from being read."""
    replaced = "".join("?" if "\ud800" <= character <= "\udfff" else character for character in text)
    assert tokenizer.read([text]).tokens.tolist() == tokenizer.read([replaced]).tokens.tolist()
