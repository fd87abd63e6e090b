"""Reading a bundle's tokenizer, and the words that are remembered."""

from array import array

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from stream.errors import BundleError
from stream.scoring import words
from stream.scoring.tokenize import MAX_CHARACTERS_PER_TOKEN, WindowTokenizer
from stream.scoring.words import KnownWords

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "##b": 5, "a b": 6, "!": 7}


def make_tokenizer(**added: bool) -> bytes:
    """A tokenizer like BERT's, with `a b` as an added token if that is `special` or not."""
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    if added:
        tokenizer.add_tokens([AddedToken("a b", **added)])
    return tokenizer.to_str().encode()


def read(tokenizer: bytes, *texts: str) -> list[int]:
    """The tokens of some texts."""
    return list(WindowTokenizer(tokenizer, window=8, overlap=2, max_windows=2).read(texts).tokens)


def test_added_tokens_are_found_across_words() -> None:
    """A tokenizer with added tokens of several words is not asked word by word, and so still finds them."""
    assert read(make_tokenizer(), "a b!") == [3, 4, 7]
    assert read(make_tokenizer(special=False), "a b!") == [6, 7]


def test_padding_and_truncation_of_the_file_are_switched_off() -> None:
    """What the tokenizer's file says of padding and truncation has no effect: windows are the service's business."""
    tokenizer = Tokenizer.from_buffer(make_tokenizer())
    tokenizer.enable_padding(length=6)
    tokenizer.enable_truncation(3)
    assert read(tokenizer.to_str().encode(), "a b ab", "a") == [3, 4, 3, 5, 3]


def test_a_file_that_is_no_tokenizer_is_refused() -> None:
    """Bytes that are no tokenizer are refused with the tokenizer library's reason."""
    with pytest.raises(BundleError, match=r"tokenizer cannot be read.*Model missing"):
        read(b"{}")


def test_a_tokenizer_that_reads_nothing_is_refused() -> None:
    """A tokenizer that finds no token in plain text is refused."""
    tokenizer = Tokenizer(models.WordLevel({"x": 0}, unk_token="missing"))  # noqa: S106 - a word, no password
    tokenizer.normalizer = normalizers.Replace("a", "")
    with pytest.raises(BundleError, match="does not turn the text `a` into tokens"):
        read(tokenizer.to_str().encode())


@pytest.mark.parametrize(("window", "overlap"), [(2, 0), (8, 6), (8, 7)])
def test_windows_that_do_not_advance_are_refused(window: int, overlap: int) -> None:
    """A window with no room for content, or one that shares all of it with the next, is refused."""
    with pytest.raises(BundleError, match="cannot be laid over a text: 2 of them are special tokens"):
        WindowTokenizer(make_tokenizer(), window=window, overlap=overlap, max_windows=2)


def test_characters_beyond_the_bound_are_not_read() -> None:
    """A text is read up to the characters its windows could hold at most, and is marked as cut if there are more."""
    tokenizer = WindowTokenizer(make_tokenizer(), window=8, overlap=2, max_windows=2)
    bound = MAX_CHARACTERS_PER_TOKEN * 10
    windows = tokenizer.read([" " * bound, " " * (bound + 1), " " * (bound - 1) + "a", " " * bound + "a"])
    assert windows.windows.cut.tolist() == [False, True, False, True]
    assert windows.tokens.tolist() == [3]


def test_a_word_is_asked_for_once() -> None:
    """A known word is not encoded again."""
    asked: list[str] = []

    def encode(word: str) -> list[int]:
        asked.append(word)
        return [len(asked), 70_000]

    known = KnownWords(encode)
    assert known.read(["x", "y", "x"]) == known.read(["x"]) + known.read(["y"]) + known.read(["x"])
    assert asked == ["x", "y"]


def test_memory_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than `MAX_WORDS` words are remembered, none longer than `MAX_WORD_CHARACTERS`; all are read right."""
    monkeypatch.setattr(words, "MAX_WORDS", 3)
    known = KnownWords(lambda word: [len(word)])
    for length in (1, 2, 3, 4, words.MAX_WORD_CHARACTERS + 1, 2, 5, 6, 1):
        assert known.read(["x" * length]) == array("i", [length]).tobytes()
        assert len(known) <= 3
        assert all(len(word) <= words.MAX_WORD_CHARACTERS for word in known)
