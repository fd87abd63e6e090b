"""Character maps of tokenizers that lead the library astray, or make much of little."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import Precompiled

from export.text.charsmap import build_charsmap
from stream.bundle import load
from stream.errors import BundleError
from stream.scoring.charsmap import MAX_REPLACEMENT_BYTES, longest_replaced, refuse_hostile_maps
from stream.scoring.rehearsal import rehearse
from stream.scoring.tokenize import WindowTokenizer
from tests.bundles import LITE, UNSIGNED, copy_of_lite, replace_listed

SOUND = build_charsmap({"ж": "zh", "b": "ä", "é": "e", "ﷺ": "x" * 33})
TABLE_BYTES = int.from_bytes(SOUND[:4], "little")
REPLACEMENTS = SOUND[4 + TABLE_BYTES :]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound bundle, to be tampered with by somebody who can sign."""
    return copy_of_lite(tmp_path / "bundle", signed=False)


@cache
def lite_tokenizer() -> bytes:
    return (LITE / "tokenizer.json").read_bytes()


def with_maps(*maps: object) -> bytes:
    """The tokenizer of the shipped bundle with character maps, as base64 or as they are, before its normalizer."""
    document = json.loads(lite_tokenizer())
    steps = [{"type": "Precompiled", "precompiled_charsmap": encoded(content)} for content in maps]
    document["normalizer"] = {"type": "Sequence", "normalizers": [*steps, document["normalizer"]]}
    return json.dumps(document).encode()


def encoded(content: object) -> object:
    return base64.b64encode(content).decode() if isinstance(content, bytes) else content


def with_units(change: Callable[[int], int]) -> bytes:
    """The sound map with other entries in its table."""
    units = struct.unpack(f"<{TABLE_BYTES // 4}I", SOUND[4 : 4 + TABLE_BYTES])
    return SOUND[:4] + struct.pack(f"<{len(units)}I", *map(change, units)) + REPLACEMENTS


def is_value(unit: int) -> bool:
    return bool(unit >> 31)


HOSTILE: dict[str, tuple[Sequence[object], str]] = {
    "nothing": ([b""], "is cut short: its table is to have 0 bytes, 0 are there"),
    "an empty table": ([bytes(4)], "is cut short: its table is to have 0 bytes, 0 are there"),
    "cut within the table": ([SOUND[:100]], rf"is cut short: its table is to have {TABLE_BYTES} bytes, 96 are there"),
    "a table of four gigabytes": (
        [(2**32 - 1024).to_bytes(4, "little") + SOUND[4:]],
        "is cut short: its table is to have 4294966272 bytes",
    ),
    "a table shorter than its trie": (
        [(256).to_bytes(4, "little") + SOUND[4:]],
        "has a table of 256 bytes, which is no number of whole blocks",
    ),
    "cut within the replacements": ([SOUND[: 4 + TABLE_BYTES + 3]], r"points to byte \d+ of replacements of 3"),
    "without replacements": ([SOUND[: 4 + TABLE_BYTES]], r"points to byte \d+ of replacements of 0"),
    "replacements far away": (
        [with_units(lambda unit: unit | 0x00FFFF00 if is_value(unit) else unit)],
        rf"points to byte 167\d+ of replacements of {len(REPLACEMENTS)}",
    ),
    "replacements that begin within a character": (
        [SOUND[: 4 + TABLE_BYTES] + "жжжжжжжжжжжжжжжжжжжжж".encode()],
        "points into the middle of a replacement's character",
    ),
    "a trie that leaves its table": (
        [with_units(lambda unit: unit | 1 << 30 if unit and not is_value(unit) else unit)],
        rf"points to entry \d+ of a table of {TABLE_BYTES // 4}",
    ),
    "replacements that are no UTF-8": ([SOUND + b"\xff"], "has replacements that are no UTF-8"),
    "what is not base64": (["%"], "is not base64"),
    "what is no text": ([7], "is not base64"),
    "a bomb": ([build_charsmap({"ж": "a" * 1_000_000})], r"makes '\\u0436' 1000000 bytes long; 256 are allowed"),
    "a bomb in two steps": (
        [build_charsmap({"ж": "b" * 100}), build_charsmap({"b": "c" * 200})],
        r"makes 'b' 200 bytes long, and with the maps before it up to 20000; 256 are allowed",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_character_map_that_the_library_would_follow_astray(folder: Path, name: str) -> None:
    """Each damaged or bloated map is refused before the library reads it, by its number and with what is wrong."""
    maps, complaint = HOSTILE[name]
    tokenizer = with_maps(*maps)
    with pytest.raises(BundleError, match=rf"character map \d of the bundle's tokenizer.*{complaint}"):
        WindowTokenizer(tokenizer, window=16, overlap=0, max_windows=1)
    replace_listed(folder, {"tokenizer.json": tokenizer})
    with pytest.raises(BundleError, match=complaint) as raised:
        rehearse(load(folder, UNSIGNED))
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    "hide",
    [
        lambda text: text.replace('"type": "Precompiled", ', ""),
        lambda text: text.replace("precompiled_charsmap", "\\u0070recompiled_charsmap"),
    ],
    ids=["without its type", "under an escaped name"],
)
def test_character_map_that_is_hidden(hide: Callable[[str], str]) -> None:
    """A map is known by the name under which the library finds it, however it is written."""
    hidden = hide(with_maps(SOUND[: 4 + TABLE_BYTES]).decode()).encode()
    with pytest.raises(BundleError, match="character map 1"):
        WindowTokenizer(hidden, window=16, overlap=0, max_windows=1)


def test_character_map_that_is_slow_to_read(folder: Path) -> None:
    """What maps may make of a character is also timed: with the character that they make longest, and named."""
    document = json.loads(with_maps(build_charsmap({"ж": "q" * MAX_REPLACEMENT_BYTES})))
    document["normalizer"]["normalizers"].insert(
        1, {"type": "Replace", "pattern": {"String": "q"}, "content": "q" * 90}
    )
    replace_listed(folder, {"tokenizer.json": json.dumps(document).encode()})
    with pytest.raises(BundleError, match=r"repeats '\\u0436'|more memory|brought down|processor time"):
        rehearse(load(folder, UNSIGNED))


@pytest.mark.parametrize(("beyond", "is_sound"), [(0, True), (1, False)])
def test_where_the_replacements_end(beyond: int, is_sound: bool) -> None:
    """A replacement may begin where the last one has ended, and is nothing then; beyond that it is refused."""
    place = 1 << 31 | len(REPLACEMENTS) + beyond
    content = with_units(lambda unit: place if is_value(unit) else unit)
    document = {"normalizer": {"precompiled_charsmap": encoded(content)}}
    if is_sound:
        refuse_hostile_maps(document)
        assert Precompiled(content).normalize_str("aж") == "a"
    else:
        with pytest.raises(BundleError, match="points to byte"):
            refuse_hostile_maps(document)


def test_a_trie_that_runs_in_a_circle_has_an_end() -> None:
    """A node that is its own child is looked at once; to the library it is a key that no text ends."""
    units = [256 << 10, *[0] * 511]
    units[256 ^ ord("a")] = ord("a") << 10 | ord("a")
    content = (4 * len(units)).to_bytes(4, "little") + struct.pack(f"<{len(units)}I", *units)
    refuse_hostile_maps({"normalizer": {"precompiled_charsmap": encoded(content)}})
    assert Precompiled(content).normalize_str("aaaa b") == "aaaa b"


CHARACTERS = [*"ж bäéﷺ", *map(chr, range(1, 0x800, 7)), "\u070f", "字", "😀", "\U0010fffd"]


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_map_that_is_accepted_makes_the_library_panic(damage: list[tuple[int, int]]) -> None:
    """However the bytes of a map are changed, it is refused, or the library replaces any character by it."""
    content = bytearray(SOUND)
    for at, byte in damage:
        content[at] = byte
    document = {"normalizer": {"precompiled_charsmap": encoded(bytes(content))}}
    try:
        refuse_hostile_maps(document)
    except BundleError:
        return
    normalizer = Precompiled(bytes(content))
    for character in CHARACTERS:
        normalizer.normalize_str(character)


@given(
    st.dictionaries(
        st.characters(codec="utf-8", categories=["Ll", "Lu", "Lo", "So", "Nd"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=MAX_REPLACEMENT_BYTES // 4),
        min_size=1,
        max_size=40,
    )
)
def test_sound_maps_are_accepted(replacements: dict[str, str]) -> None:
    """A map as it is compiled is never refused, and the character with the longest replacement is found."""
    document = {"normalizer": {"precompiled_charsmap": encoded(build_charsmap(replacements))}}
    refuse_hostile_maps(document)
    (found,) = longest_replaced(document)
    assert len(replacements[found].encode()) == max(len(text.encode()) for text in replacements.values())
