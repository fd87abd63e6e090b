"""What characters stand for, whatever they look like: the tables behind the normalisation of the moderator's tokenizer.

Three tables, each of one character and what it becomes. `plain_forms` holds anywhere: compatibility forms, marks and
invisible characters, letters drawn as symbols, emoji by their names. `lookalikes` holds inside words that have Latin
letters beside them, and `digits` between letters, for `kіll` with a Cyrillic letter is English and `кіт` is Ukrainian.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import emoji

__all__ = ["DIGITS", "LOOKALIKES", "emoji_names", "plain_forms"]

_ASCII = 128
_SURROGATES = range(0xD800, 0xE000)
_LAST = 0x110000

_INVISIBLE = frozenset({"Cf", "Mn", "Me"})
"""Categories that are removed: zero-width and bidi controls, stacked and enclosing marks. BERT's own normalisation
removes most of them too; here they go first, so that they part no word from its look-alikes."""

_LONGEST_FORM = 4
"""Longer forms, such as the 18 letters of ﷺ, hide no word, and would make a text many times as long to read."""

_BLANK = {"\u115f": "", "\u1160": "", "\u3164": "", "\uffa0": "", "\u2800": " ", "\u2028": " ", "\u2029": " "}
"""Characters that have no ink, and are letters or symbols to Unicode."""

_DRAWN_LETTERS = {
    0x1F130: "squared",  # 🄰 has a compatibility form; the four rows after it have none
    0x1F150: "negative circled",
    0x1F170: "negative squared",
    0x1F1E6: "regional indicator: two make a flag, whose letters are its country's",
}
"""First of 26 symbols that are the letters A to Z, by code point."""

_SMALL_CAPITALS = dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢɑɡɩıƙƿȷ", "abcdefghijklmnopqrstuvwyzagiikpj", strict=True))
"""Letters of phonetic alphabets that are Latin ones to the eye."""

_DIGIT_FORMS = {"⁄": "/", "∕": "/", "−": "-", "‐": "-", "‑": "-", "ʹ": "'", "ʼ": "'", "’": "'", "‘": "'", "™": " tm "}
"""Signs that BERT's vocabulary knows under another code point, or that would stick to a word."""

_CYRILLIC = (
    "аaвbгrеeзeиnіiјjкkмmнhоoпnрpсcтtуyхxѕsһhԁdԛqԝwѵvьbяrшwщwэeюo"
    "АaВbЕeІiЈjКkМmНhОoРpСcТtУyХxЅsҺhԚqԜwИnЯrШwЩwЬbЄeєeҮyүyҚkқkғfҒfӏlӀi"
)
_GREEK = "αaβbγyεeηnιiκkλaμuνvοoπnρpσoςcτtυuχxωwΑaΒbΕeΖzΗhΙiΚkΛaΜmΝnΟoΡpΣeΤtΥyΧxϲcϳjϹcϺm"
_ARMENIAN = "աwգqզqհhյjոnոnսuցgօoՏsՍuՕoԼlՀhքp"
_CHEROKEE = "ᎪaᏴbᏟcᎠdᎬeᏀgᎻhᎥiᎫjᏦkᏞlᎷmΝnᏢpᎡrᏚsᎢtᏙvᎳwᎩyᏃz"
_LISU = "ꓐbꓑpꓒdꓓdꓔtꓖgꓗkꓙjꓚcꓜzꓝfꓟmꓠnꓡlꓢsꓣrꓦvꓧhꓪwꓫxꓬyꓮaꓰeꓲiꓳoꓴu"
_HEBREW = "סoוi"


def _pairs(table: str) -> dict[str, str]:
    return dict(zip(table[::2], table[1::2], strict=True))


LOOKALIKES = {
    key: value
    for table in (_CYRILLIC, _GREEK, _ARMENIAN, _CHEROKEE, _LISU, _HEBREW)
    for key, value in _pairs(table).items()
}
"""Letters of other scripts, and the Latin one (lower case) that each is taken for by the eye."""

DIGITS = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t"}
"""Digits that stand for a letter between letters. 2, 6, 8 and 9 rarely do, and make names: `b2b`, `i18n`."""


def emoji_names() -> dict[str, str]:
    """Every emoji of one code point, with its name in words; sequences are read sign by sign, skin tone and all."""
    names: dict[str, str] = {}
    for sequence, entry in sorted(emoji.EMOJI_DATA.items()):
        character = sequence.replace("\ufe0f", "")
        if len(character) == 1 and _is_picture(character):
            names[character] = _words(entry["en"])
    return names


def _is_picture(character: str) -> bool:
    """Whether a character is no letter or sign in disguise, as Ⓜ and ‼ are, nor one of those drawn as symbols."""
    is_sign = ord(character) < _ASCII or unicodedata.normalize("NFKC", character) != character
    return not is_sign and character not in _drawn_letters()


def _words(name: str) -> str:
    """`:face_with_tears_of_joy:` as words; what is in brackets repeats what the picture shows."""
    return name.strip(":").replace("_", " ").partition(" (")[0].replace("’", "'").lower()


def _drawn_letters() -> dict[str, str]:
    return {chr(first + at): chr(ord("a") + at) for first in _DRAWN_LETTERS for at in range(26)}


def plain_forms() -> dict[str, str]:
    """Each character, of all of Unicode, that stands for something else wherever it is, and what that is."""
    forms = dict(_compatibility_forms())
    forms |= {key: f" {name} " for key, name in emoji_names().items()}
    forms |= _BLANK | _SMALL_CAPITALS | _drawn_letters() | _DIGIT_FORMS
    forms |= {chr(0x249C + at): chr(ord("a") + at) for at in range(26)}  # ⒜ is a letter, not a letter in brackets
    return forms


def _compatibility_forms() -> Iterator[tuple[str, str]]:
    """What NFKC and the removal of invisible characters make of single characters."""
    for code in range(_ASCII, _LAST):
        character = chr(code)
        if code in _SURROGATES:
            continue
        if unicodedata.category(character) in _INVISIBLE:
            yield character, ""
        elif (form := unicodedata.normalize("NFKC", character)) != character and len(form) <= _LONGEST_FORM:
            yield character, form.replace("\u2044", "/")
