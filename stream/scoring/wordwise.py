"""A tokenizer's file in; out, how to split a text so that its tokens are those of its words, where that can be shown.

A text's words can be remembered, and a remembered word costs a tenth of a tokenized one. It is right where nothing that
the tokenizer does to a character looks beyond the word. BERT's tokenizers are such, and stay so with normalizers before
theirs that are known: maps of characters that change no space and no ASCII punctuation, and the two patterns below.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["MARK", "PREPENDED", "SEPARATORS", "SPACED_LETTERS", "UNMIXED", "split_of"]

Json = Mapping[str, Any]  # Any: whatever the file says, until it has been compared
Split = Callable[[str], Sequence[str]]

SEPARATORS = " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_WORD = re.compile(rf"[^{re.escape(SEPARATORS)}]+|[{re.escape(SEPARATORS[1:])}]")
"""What lies between spaces and ASCII punctuation, and each punctuation mark. BERT's tokenizers split a text there among
other places, and nothing they do to a character looks beyond; so the tokens of a text are those of these words."""

PREPENDED = frozenset(
    map(
        chr,
        (
            *(*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0xD4E, 0x110BD, 0x110CD, 0x111C2, 0x111C3),
            *(0x113D1, 0x1193F, 0x11941, 0x11A3A, *range(0x11A84, 0x11A8A), 0x11D46, 0x11F02),
        ),
    )
)
"""Unicode's `Prepend`: the only characters that join the next one, a space too, into one grapheme. A map replaces a
short grapheme whole once its first character has a replacement, so one of these would swallow what follows it."""

MARK = "\u070f"
"""Put before a letter or digit that stands for a Latin letter if its neighbours allow: a prepended mark, so that mark
and letter are one grapheme and can be mapped together. Those in a text, Syriac abbreviations, BERT removes anyway."""


def _spaced_letters() -> str:
    """The pattern of what stands between single letters: `k i l l` from four letters on, `k.i.l.l` from three.

    Of real text, three letters between spaces are mostly words (`u r a`); four, or three with points, never were.
    """
    letter, single, before = "[A-Za-z]", "(?![0-9A-Za-z])", "[0-9A-Za-z]"

    def positions(between: str, letters: int) -> list[str]:
        run = [between.join([letter] * count) for count in range(letters)]
        return [
            f"(?<={run[left]})(?<!{before}{run[left]}){between}(?={run[letters - left]}{single})"
            for left in range(1, letters)
        ]

    return "|".join(positions(" ", 4) + positions("[._*-]", 3))


SPACED_LETTERS = _spaced_letters()
"""A pattern of ASCII alone, which reads the same to Python as to the tokenizer's library."""

_MAY_BE_SPACED = re.compile(" [A-Za-z] [A-Za-z] ")
_MAY_BE_DOTTED = re.compile("[._*-][A-Za-z][._*-]")
"""The middle of every run that is joined, and hardly ever in a text without one: 99 texts in 100 are not looked at
further."""


def _unmixed() -> str:
    """The pattern of the marks that are to go, since no Latin neighbour makes the marked character a Latin letter.

    A look-alike is Latin within eight characters of a Latin letter, with only other foreign ones between. A digit is a
    letter between letters: three in all, or one on each side of two digits. `mp3s` and `1st` keep theirs.
    """
    # No separator is in any of these classes, and so nothing here looks beyond a word.
    latin, foreign, digit = "[A-Za-z]", rf"[^\x00-\x7f{MARK}]", "[0-9]"
    behind = "".join(f"(?<!{latin}{(MARK + foreign) * count}{MARK})" for count in range(8))
    letters = "|".join(
        (
            f"(?<={latin}{MARK}){digit}{latin}{{2}}",
            f"(?<={latin}{{2}}{MARK}){digit}(?!s(?!{latin})){latin}",
            f"(?<={latin}{MARK}){digit}{MARK}{digit}{latin}",
            f"(?<={latin}{MARK}{digit}{MARK}){digit}{latin}",
        )
    )
    return (
        f"{MARK}(?:(?={foreign})(?!(?:{MARK}?{foreign}){{1,8}}{latin}){behind}"
        f"|(?={digit})(?!{letters})|(?!{foreign}|{digit}))"
    )


UNMIXED = _unmixed()


def split_of(tokenizer: Json) -> Split | None:
    """How to split a text into words that can be tokenized one by one; None if that cannot be shown of `tokenizer`."""
    normalizers = _normalizers(tokenizer.get("normalizer"))
    joins = bool(normalizers) and _pattern(normalizers[0]) == SPACED_LETTERS
    wordwise = (
        _kind(tokenizer.get("pre_tokenizer")) == "BertPreTokenizer"
        and _kind(tokenizer.get("model")) == "WordPiece"
        # Added tokens are found in a text before it is split, unless they are special ones.
        and all(token.get("special") for token in tokenizer.get("added_tokens") or ())
        and any(_kind(normalizer) == "BertNormalizer" for normalizer in normalizers)
        and all(map(_keeps_to_words, normalizers[1:] if joins else normalizers))
    )
    if not wordwise:
        return None
    return _split_spaced if joins else _WORD.findall


def _split_spaced(text: str) -> Sequence[str]:
    if _MAY_BE_SPACED.search(text) or _MAY_BE_DOTTED.search(text):
        text = _SPACED.sub("", text)
    return _WORD.findall(text)


_SPACED = re.compile(SPACED_LETTERS)


def _normalizers(normalizer: Json | None) -> Sequence[Json]:
    if normalizer is None:
        return ()
    return normalizer["normalizers"] if _kind(normalizer) == "Sequence" else (normalizer,)


def _kind(part: Json | None) -> object:
    return part and part.get("type")


def _pattern(normalizer: Json) -> object:
    """The pattern of what a normalizer removes, if that is what it does."""
    removes = _kind(normalizer) == "Replace" and normalizer["content"] == ""
    return normalizer["pattern"].get("Regex") if removes else None


def _keeps_to_words(normalizer: Json) -> bool:
    if _kind(normalizer) == "Precompiled":
        return _maps_within_words(base64.b64decode(normalizer["precompiled_charsmap"]))
    return _kind(normalizer) == "BertNormalizer" or _pattern(normalizer) == UNMIXED


def _maps_within_words(charsmap: bytes) -> bool:
    """Whether a compiled map has no replacement that begins with a separator or that could swallow one."""
    size = int.from_bytes(charsmap[:4], "little")
    if size % 4 or not 0 < size <= len(charsmap) - 4:
        return False
    units = memoryview(charsmap[4 : 4 + size]).cast("I")
    places = [place for character in PREPENDED if (place := _walk(units, character.encode()))]
    swallows = any(_is_key(units[place]) for place in places)
    return not swallows and not any(_step(units, place, ord(mark)) for place in (0, *places) for mark in SEPARATORS)


def _walk(units: memoryview[int], key: bytes) -> int:
    """The place of `key` in the double array, 0 if no replacement begins with it."""
    place = 0
    for byte in key:
        place = _step(units, place, byte)
        if not place:
            return 0
    return place


def _step(units: memoryview[int], place: int, byte: int) -> int:
    unit = units[place]
    child = place ^ (unit >> 10 << ((unit & 1 << 9) >> 6)) ^ byte
    return child if child < len(units) and units[child] & 0x800000FF == byte else 0


def _is_key(unit: int) -> bool:
    return bool(unit >> 8 & 1)
