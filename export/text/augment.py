"""Texts in, the same texts as hurried or evasive people write: noise that changes no label.

For what the tokenizer cannot undo without spoiling honest text: typing errors, `sh!t`, `f*ck`, words spaced with odd
signs or run together. It also does what the tokenizer does undo, look-alikes and emoji, since not all of that is undone
everywhere. It is applied to raw text, before the tokenizer, in training only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from export.errors import ExportError
from export.text.characters import LOOKALIKES

__all__ = ["KINDS", "Augmentation", "augment", "augment_all"]

Kind = Callable[[str, random.Random], str]

_WORD = re.compile(r"[A-Za-z]{3,}")

_WORDS_CHANGED = 0.15
"""Share of the words that one kind of noise changes, but one at least: more and people could not read it either."""

_NEIGHBOURS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        (
            "s",
            "v",
            "x",
            "s",
            "w",
            "d",
            "f",
            "g",
            "u",
            "h",
            "j",
            "k",
            "n",
            "b",
            "i",
            "o",
            "w",
            "e",
            "a",
            "r",
            "y",
            "c",
            "q",
            "z",
            "t",
            "x",
        ),
        strict=True,
    )
)
"""A key beside each key."""

_SYMBOLS = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!", "l": "1", "o": "0", "s": "5$", "t": "7+", "z": "2"}

_SIGNS = ("😀", "😂", "😅", "🙂", "🙄", "🤔", "👀", "✨", "🙏", "😭", "❗", "☕", "🌧️", "📱", "👋🏽", "🤷‍♀️")
"""Emoji that say nothing of anybody: a text keeps its label with them."""

_HIDDEN = ("\u200b", "\u200c", "\u2060", "\u00ad", "\ufe0f")

_MATHEMATICAL = (0x1D400, 0x1D5D4, 0x1D670)
_FULL_WIDTH = 0xFF21

_WRITTEN_LIKE: Mapping[str, str] = {
    letter: "".join(key for key, value in LOOKALIKES.items() if value == letter and key.islower())
    for letter in "aceiopsuxy"
}
"""Letters of other scripts that nobody tells from each Latin one."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much of the text is changed, and in how many ways at once."""

    share: float = 0.3
    """Of texts that are changed, 0 to 1; the others stay as they are, for most text is honest."""
    most_kinds: int = 2
    kinds: tuple[str, ...] = ()
    """Names in `KINDS`; none means all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - KINDS.keys()):
            raise ExportError(f"there is no kind of noise {unknown[0]!r}: choose among {', '.join(KINDS)}")
        if not (0 <= self.share <= 1 and 1 <= self.most_kinds <= len(KINDS)):
            raise ExportError(
                f"a share of {self.share} and up to {self.most_kinds} kinds of noise: "
                f"give a share from 0 to 1 and 1 to {len(KINDS)} kinds"
            )


def augment_all(texts: Sequence[str], how: Augmentation, *, epoch: int) -> list[str]:
    """The n texts with noise on a share of them, other noise in each epoch; same arguments, same result."""
    chances = (random.Random(f"{how.seed} {epoch} {number}") for number in range(len(texts)))
    return [
        augment(text, chance, how) if chance.random() < how.share else text
        for text, chance in zip(texts, chances, strict=True)
    ]


def augment(text: str, chance: random.Random, how: Augmentation) -> str:
    """`text` with one to `how.most_kinds` kinds of noise, one after another."""
    names = list(how.kinds or KINDS)
    for name in chance.sample(names, chance.randint(1, min(how.most_kinds, len(names)))):
        text = KINDS[name](text, chance)
    return text


def _on_words(change: Kind) -> Kind:
    """What does `change` to a few of the words of three letters and more."""

    def changed(text: str, chance: random.Random) -> str:
        words = list(_WORD.finditer(text))
        if not words:
            return text
        chosen = chance.sample(words, max(1, int(len(words) * _WORDS_CHANGED)))
        parts, end = [], 0
        for word in sorted(chosen, key=re.Match.start):
            parts += [text[end : word.start()], change(word[0], chance)]
            end = word.end()
        return "".join([*parts, text[end:]])

    return changed


def _typo(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word) - 1)
    before, here, after = word[:at], word[at], word[at + 1 :]
    wrong = _NEIGHBOURS[here.lower()]
    return chance.choice((before + after, before + here + here + after, before + wrong + after, _swap(word, at)))


def _swap(word: str, at: int) -> str:
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _spaced(word: str, chance: random.Random) -> str:
    return chance.choice((" ", ".", "-", "_", "*", " . ", "/", "|")).join(word)


def _leet(word: str, chance: random.Random) -> str:
    return "".join(
        chance.choice(_SYMBOLS[letter.lower()]) if letter.lower() in _SYMBOLS and chance.random() < 0.6 else letter  # noqa: PLR2004
        for letter in word
    )


def _masked(word: str, chance: random.Random) -> str:
    """One letter after the first becomes a star; it can still be guessed."""
    at = chance.randrange(1, len(word))
    return word[:at] + chance.choice("*#_.") + word[at + 1 :]


def _stretched(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word))
    return word[:at] + word[at] * chance.randint(3, 6) + word[at + 1 :]


def _lookalike(word: str, chance: random.Random) -> str:
    return "".join(
        chance.choice(_WRITTEN_LIKE[letter]) if letter in _WRITTEN_LIKE and chance.random() < 0.7 else letter  # noqa: PLR2004
        for letter in word
    )


def _styled(word: str, chance: random.Random) -> str:
    """Full width, or a mathematical alphabet: capitals first, then the small letters."""
    first = chance.choice((*_MATHEMATICAL, _FULL_WIDTH))
    small = 0x20 if first == _FULL_WIDTH else 26
    return "".join(
        chr(first + (ord(letter) - ord("A") if letter.isupper() else ord(letter) - ord("a") + small)) for letter in word
    )


def _hidden(word: str, chance: random.Random) -> str:
    at = chance.randrange(1, len(word))
    return word[:at] + chance.choice(_HIDDEN) + word[at:]


def _run_together(text: str, chance: random.Random) -> str:
    """One space goes."""
    spaces = [at for at, character in enumerate(text) if character == " "]
    if not spaces:
        return text
    at = chance.choice(spaces)
    return text[:at] + text[at + 1 :]


def _emoji(text: str, chance: random.Random) -> str:
    """One or two emoji after the text, before it, or between two words."""
    signs = "".join(chance.choices(_SIGNS, k=chance.randint(1, 2)))
    words = text.split(" ")
    words.insert(chance.choice((0, len(words), chance.randint(0, len(words)))), signs)
    return " ".join(words)


def _case(text: str, chance: random.Random) -> str:
    return chance.choice((text.upper(), text.lower(), text.title(), text.swapcase()))


def _punctuation(text: str, chance: random.Random) -> str:
    bare = text.rstrip(".!?")
    return chance.choice((bare, bare + "!!!", bare + "...", text.replace(",", "").replace("'", "")))


KINDS: Mapping[str, Kind] = {
    "typo": _on_words(_typo),
    "spaced": _on_words(_spaced),
    "leet": _on_words(_leet),
    "masked": _on_words(_masked),
    "stretched": _on_words(_stretched),
    "lookalike": _on_words(_lookalike),
    "styled": _on_words(_styled),
    "hidden": _on_words(_hidden),
    "run_together": _run_together,
    "emoji": _emoji,
    "case": _case,
    "punctuation": _punctuation,
}
"""Kinds of noise by name."""
