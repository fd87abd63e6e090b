"""Compiled maps of characters, read by the library they are made for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import Precompiled

from export.errors import ExportError
from export.text.charsmap import build_charsmap

# Neither marks nor what joins its neighbours: each character is a grapheme of its own, as the oracle takes it to be.
CHARACTERS = st.characters(codec="utf-8", categories=["Ll", "Lu", "Lo", "So", "Nd"], exclude_characters="\u0d4e")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
MAPS = st.dictionaries(CHARACTERS, TEXTS, min_size=1, max_size=40)


@given(replacements=MAPS, others=st.text(st.characters(max_codepoint=0x7F), max_size=8))
def test_the_library_replaces_what_the_map_has(replacements: dict[str, str], others: str) -> None:
    """Every key becomes its replacement and no other character changes, ASCII being the others here."""
    normalizer = Precompiled(build_charsmap(replacements))
    for key, text in replacements.items():
        assert normalizer.normalize_str(key) == text
    for other in others:
        assert normalizer.normalize_str(other) == replacements.get(other, other)


def test_thousands_of_characters_fit() -> None:
    """A map of four thousand neighbouring characters is read back whole: no two keys take each other's place."""
    replacements = {chr(code): f"<{code}>" for code in range(0xAC00, 0xBC00)}
    normalizer = Precompiled(build_charsmap(replacements))
    assert [key for key, text in replacements.items() if normalizer.normalize_str(key) != text] == []
    assert normalizer.normalize_str("a\u00e9\U0001f600") == "a\u00e9\U0001f600"


def test_what_the_map_has_not_stays() -> None:
    """Where one character of each block of 64 is replaced, none of the others is: no key takes another's place."""
    start = 0x3400
    keys = {chr(start + 64 * block + 7 * block % 64) for block in range(300)}
    normalizer = Precompiled(build_charsmap(dict.fromkeys(keys, "x")))
    letters = [chr(start + at) for at in range(64 * 300)]
    assert {letter for letter in letters if normalizer.normalize_str(letter) != letter} == keys


def test_a_mark_and_a_character_are_one_key() -> None:
    """A prepended mark and the character after it are replaced together, and each alone is left as it is."""
    normalizer = Precompiled(build_charsmap({"\u070fс": "c"}))
    assert normalizer.normalize_str("\u070fс с \u070f") == "c с \u070f"


@pytest.mark.parametrize("key", ["", "\0", "a\0", "abcdef", "\U0001f600\u0301"])
def test_keys_that_are_never_found_are_refused(key: str) -> None:
    """What the library would never look up is refused rather than lost."""
    with pytest.raises(ExportError, match="the character map cannot hold"):
        build_charsmap({key: "x"})
