"""The moderator's tokenizer: what hides a word does not, and what is honest stays as it is."""

import json
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from export.text.characters import DIGITS, LOOKALIKES
from export.text.tokens import VOCABULARY, build_moderator_tokenizer, build_tokenizer
from stream.scoring.tokenize import WindowTokenizer
from stream.scoring.wordwise import MARK, PREPENDED, split_of

LONGEST_TEXT = 100_000


@cache
def tokenizer_file() -> bytes:
    return build_moderator_tokenizer()


@cache
def library() -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(tokenizer_file())
    tokenizer.encode_special_tokens = True
    return tokenizer


@cache
def reader() -> WindowTokenizer:
    return WindowTokenizer(tokenizer_file(), window=64, overlap=2, max_windows=64)


def tokens(text: str) -> list[str]:
    found: list[str] = library().encode(text, add_special_tokens=False).tokens
    return found


@pytest.mark.parametrize(
    "written",
    [
        *("kіll", "кill", "ΚILL", "kiӏl", "Κ\u0456LL"),
        *("ｋｉｌｌ", "𝐤𝐢𝐥𝐥", "𝖐𝖎𝖑𝖑", "𝕜𝕚𝕝𝕝", "ⓚⓘⓛⓛ", "⒦⒤⒧⒧", "🅺🅸🅻🅻", "🅚🅘🅛🅛", "ᵏⁱˡˡ", "ᴋɪʟʟ", "🇰🇮🇱🇱"),
        *(
            "k\u200bi\u200dl\u2060l",
            "\u202ekill\u202c",
            "k\u00adill",
            "\ufeffkill",
            "k\u034fill",
            "ki\ufe0fll",
            "k\u3164ill",
        ),
        *(
            "k\u0337i\u0336l\u0335l\u0334",
            "k" + "\u0301" * 50 + "ill",
            "kí\u20dell",
            "k\u0456\u0301ll",
            "k\u200b\u0456ll",
        ),
        *("k i l l", "K I L L", "k.i.l.l", "k-i-l-l", "k_i*l.l", "k1ll", "K1LLs"),
    ],
)
def test_disguises_of_a_word_are_seen_through(written: str) -> None:
    """However its letters are drawn, hidden between or stacked upon, a word is the word."""
    assert "".join(token.removeprefix("##") for token in tokens(written)).removesuffix("s") == "kill"


@pytest.mark.parametrize(
    "written",
    [
        *("Привет, мир", "кіт і пес", "сор рот", "Καλημέρα κόσμε", "Հայաստան", "שלום", "مرحبا", "你好"),
        *("35 men in 1998", "the 5th of 10000", "mp3s", "i18n", "h1b and w3c", "3d", "4you", "covid19"),
        *("U.S. and e.g. this", "i m a fool", "a b c", "f*ck", "me@example.com", "$100 and 5%", "café naïve"),
        *("[SEP] [CLS]", "a\tb\nc", "don't stop"),
    ],
)
def test_honest_text_is_read_as_before(written: str) -> None:
    """Other scripts, numbers, names with digits, initials and addresses have the tokens of the plain tokenizer."""
    plain = Tokenizer.from_buffer(build_tokenizer())
    plain.encode_special_tokens = True
    assert tokens(written) == plain.encode(written, add_special_tokens=False).tokens


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("😂", "face with tears of joy"),
        ("lol😂😂", "lol face with tears of joy face with tears of joy"),
        ("👍🏿", "thumbs up dark skin tone"),
        ("👨‍👩‍👧", "man woman girl"),
        ("🤷🏽‍♀️", "person shrugging medium skin tone female sign"),
        ("❤️", "red heart"),
        ("🏳️‍🌈", "white flag rainbow"),
        ("🇬🇧", "gb"),
        ("1️⃣", "1"),
        ("™ ½ … ﬁ", "tm 1/2 ... fi"),
        ("Ⓜ️‼️", "m!!"),
    ],
)
def test_emoji_are_read_by_their_names(written: str, read: str) -> None:
    """An emoji is the words of its name, sign by sign where several are joined."""
    assert tokens(written) == tokens(read)


PIECES = st.one_of(
    st.sampled_from(["kill", "k1ll", "кill", "killеr", "3", "s", "a.b.c", "k i l l", "x ", ". ", "[SEP]", "mp3s"]),
    st.sampled_from([*LOOKALIKES, *DIGITS, *"abk", MARK, MARK, *sorted(PREPENDED)]),
    st.sampled_from(
        [" ", "  ", ".", "-", "'", "\r\n", "\u0301", "\u200d", "\ufe0f", "\u20e3", "🇬", "👍", "🏿", "\u3000"]
    ),
    st.text(max_size=6),
)


@given(text=st.lists(PIECES, max_size=14).map("".join))
@example(f"k{MARK}\u0456ll {MARK}{MARK}с {MARK} .{MARK}")
@example("a\u0600 b\u06003c \u0600")
@example("3\u20e3 3\u0301s ab3\u0301s")
def test_reading_word_by_word_is_the_librarys_reading(text: str) -> None:
    """The words of a text, remembered, have the tokens that the library gives the whole text."""
    assert reader().read([text]).tokens.tolist() == library().encode(text, add_special_tokens=False).ids


def test_the_fast_way_is_taken() -> None:
    """The file is one that may be asked word by word, or every text would cost ten times as much."""
    assert split_of(json.loads(tokenizer_file())) is not None


def test_a_rebuilt_file_is_the_same() -> None:
    """Building again gives the same bytes, and the vocabulary of the encoder, entry by entry."""
    assert build_moderator_tokenizer() == tokenizer_file()
    assert library().get_vocab_size() == VOCABULARY
    assert library().get_vocab() == Tokenizer.from_buffer(build_tokenizer()).get_vocab()


@given(text=st.text())
def test_no_text_brings_a_mark_to_the_model(text: str) -> None:
    """Marks of ours are gone when the text has been normalized, those that an author wrote too."""
    assert MARK not in library().normalizer.normalize_str(text + MARK + text)


ATTACKS = [
    "a",
    "k ",
    "a.",
    "a\u0301",
    "\u0301",
    MARK,
    f"{MARK}с",
    "с",
    "сж",
    "a1",
    "1",
    "13",
    "\u200d",
    "👨\u200d",
    "🇬",
    "👍🏿",
    "\ufdfa",
    "क\u094d",
    "\u0600",
    "한",
    "\u1100",
    "漢",
    "[SEP]",
    "'",
    "a_",
    "i ",
    "x" * 99 + " ",
    "\u0344",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ATTACKS, ids=ascii)
def test_no_long_text_takes_long(piece: str) -> None:
    """A hundred thousand characters of anything are read in linear time: in quadratic time this would run for hours."""
    text = (piece * LONGEST_TEXT)[:LONGEST_TEXT]
    assert library().encode(text, add_special_tokens=False) is not None
    assert len(reader().read([text]).windows.lengths) >= 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ending", ["a", "с", "\u200d👍", " .", f"{MARK}с"], ids=ascii)
def test_no_ending_sends_the_tokenizer_back(ending: str) -> None:
    """What comes last makes nothing look back over all that went before, text after text."""
    for piece in ATTACKS:
        text = (piece * LONGEST_TEXT)[: LONGEST_TEXT // 20] + ending
        assert library().encode(text, add_special_tokens=False) is not None
