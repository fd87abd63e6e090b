"""Which tokenizers may be asked word by word, judged from their files."""

import base64
import json
from collections.abc import Sequence as Items
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.normalizers import BertNormalizer, Lowercase, Normalizer, Precompiled, Replace

from export.text.charsmap import build_charsmap
from stream.scoring.wordwise import MARK, PREPENDED, SEPARATORS, SPACED_LETTERS, UNMIXED, split_of

SPACED = Replace(Regex(SPACED_LETTERS), "")


def file_of(steps: Items[Normalizer]) -> dict[str, Any]:  # Any: JSON
    """The file of a BERT tokenizer with these normalizers."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    tokenizer.normalizer = normalizers.Sequence(list(steps))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    loaded: dict[str, Any] = json.loads(tokenizer.to_str())
    return loaded


def maps(**replacements: str) -> Precompiled:
    return Precompiled(build_charsmap(replacements))


@pytest.mark.parametrize(
    "steps",
    [
        [BertNormalizer()],
        [SPACED, BertNormalizer()],
        [maps(é="e", 三="three ", **{f"{MARK}с": "c", "3": f"{MARK}3"}), Replace(Regex(UNMIXED), ""), BertNormalizer()],
    ],
)
def test_what_keeps_to_words_is_split(steps: Items[Normalizer]) -> None:
    """Maps within words and the patterns that are known leave a tokenizer one that can be asked word by word."""
    split = split_of(file_of(steps))
    assert split is not None
    assert list(split("ab c-d  é")) == ["ab", "c", "-", "d", "é"]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Lowercase()],
        [maps(é="e")],
        [BertNormalizer(), Lowercase()],
        [Replace("a", ""), BertNormalizer()],
        [Replace(Regex(UNMIXED), "x"), BertNormalizer()],
        [Replace(Regex(" "), ""), BertNormalizer()],
        [BertNormalizer(), SPACED],
        *([maps(**{separator: "x"}), BertNormalizer()] for separator in SEPARATORS),
        *([maps(**{prepended: ""}), BertNormalizer()] for prepended in sorted(PREPENDED)),
        [maps(**{f"{MARK} ": "x"}), BertNormalizer()],
    ],
)
def test_what_may_look_beyond_a_word_is_read_whole(steps: Items[Normalizer]) -> None:
    """A normalizer that is not known, or that could join what words part, keeps texts whole."""
    assert split_of(file_of(steps)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"type": "BPE"}},
        {"normalizer": None},
        {"added_tokens": [{"content": "a b", "special": False}]},
    ],
)
def test_other_tokenizers_are_read_whole(change: dict[str, object]) -> None:
    """A tokenizer that is not BERT's, or that finds tokens across words, is never asked word by word."""
    assert split_of(file_of([BertNormalizer()]) | change) is None


@pytest.mark.parametrize("charsmap", [b"", b"\0\0\0\0", b"\3\0\0\0abc", b"\xff\xff\xff\xff\0\0\0\0"])
def test_a_map_that_is_none_is_not_relied_on(charsmap: bytes) -> None:
    """Of a map whose length is not what it says nothing is concluded, and nothing breaks."""
    file = file_of([maps(é="e"), BertNormalizer()])
    file["normalizer"]["normalizers"][0]["precompiled_charsmap"] = base64.b64encode(charsmap).decode()
    assert split_of(file) is None


LETTERS = st.lists(
    st.sampled_from([*"abZ3éс", " ", " ", ".", "-", "_", "*", "  ", "ab", "\u200b", "\n", MARK]), max_size=16
).map("".join)


@given(text=LETTERS)
def test_letters_that_stand_apart_are_joined_alike(text: str) -> None:
    """Python finds what stands between single letters where the tokenizer's library finds it."""
    split = split_of(file_of([SPACED, BertNormalizer()]))
    plain = split_of(file_of([BertNormalizer()]))
    assert split is not None
    assert plain is not None
    assert list(split(text)) == list(plain(SPACED.normalize_str(text)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k i l l", ["kill"]),
        ("go k i l l it", ["go", "kill", "it"]),
        ("k.i.l", ["kil"]),
        ("u r a", ["u", "r", "a"]),
        ("a.b", ["a", ".", "b"]),
        ("i a m ok", ["i", "a", "m", "ok"]),
        ("1 2 3 4", ["1", "2", "3", "4"]),
    ],
)
def test_few_letters_stay_apart(text: str, words: list[str]) -> None:
    """Four letters between spaces are one word, three between points; fewer, and digits, stay as they are."""
    split = split_of(file_of([SPACED, BertNormalizer()]))
    assert split is not None
    assert list(split(text)) == words
