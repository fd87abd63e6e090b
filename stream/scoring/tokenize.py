"""Texts in, token windows or encoded texts out, and the two input arrays of a model call; all use of `tokenizers`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from stream.bundle.manifest import TextInput
from stream.errors import BundleError
from stream.scoring.batching import MicroBatch
from stream.scoring.charsmap import refuse_hostile_maps
from stream.scoring.windows import Windows, lay_windows
from stream.scoring.words import BYTES_PER_TOKEN, KnownWords
from stream.scoring.wordwise import split_of

__all__ = [
    "MAX_CHARACTERS_PER_TOKEN",
    "Encoded",
    "ModelInputs",
    "PlainTokenizer",
    "TokenWindows",
    "TokenizeError",
    "WindowTokenizer",
]

_NOT_ITS_FAULT = (KeyboardInterrupt, SystemExit, MemoryError)
"""What is raised while a text is read, and says nothing about it."""

MAX_CHARACTERS_PER_TOKEN = 8
"""A text is cut before tokenising at this many characters per token that could be read. English prose has 4.5 to a
token, so ordinary text is cut by its tokens, never here. Without this cut a megabyte of spaces or of one long word,
which is hardly any tokens, would hold up a whole slice for a second."""


class TokenizeError(BundleError):
    """The library fails on this text: a rule of the tokenizer gives up on it, or is at fault."""


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """The inputs of one model call, both (n, l) int64 and contiguous; padding is id 0 with mask 0."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Specials:
    """The tokens put before and after every window, such as [CLS] and [SEP]."""

    prefix: list[int]
    suffix: list[int]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class TokenWindows:
    """The windows of t texts: `tokens` is (k,) intc, the content of all texts; `windows` cover it.

    `failures` says by its place which text could not be read, and why; it has one empty window.
    """

    tokens: NDArray[np.intc]
    windows: Windows
    specials: Specials
    failures: Mapping[int, TokenizeError]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(r,) int64, tokens of each window with its specials."""
        return self.windows.lengths + len(self.specials)

    def inputs(self, batch: MicroBatch) -> ModelInputs:
        """Lay the windows of `batch` out as one padded call, (n + `batch.idle`, `batch.length`)."""
        before, after = len(self.specials.prefix), len(self.specials.suffix)
        count = len(batch.rows)
        starts, ends = self.windows.starts[batch.rows], self.windows.lengths[batch.rows] + before
        columns = np.arange(batch.length)
        ids = np.zeros((count + batch.idle, batch.length), dtype=np.int64)
        mask = np.zeros_like(ids)
        # An idle row attends to one token: a softmax over no token at all is NaN, and slow on some hardware.
        mask[count:, 0] = 1
        mask[:count] = columns < (ends + after)[:, None]
        inside = (columns >= before) & (columns < ends[:, None])
        ids[:count][inside] = self.tokens[((starts - before)[:, None] + columns)[inside]]
        ids[:, :before] = self.specials.prefix
        for at, token in enumerate(self.specials.suffix):
            ids[np.arange(count), ends + at] = token
        return ModelInputs(ids, mask)


class WindowTokenizer:
    """Reads texts as windows of at most `window` tokens, specials included. Threads may share it."""

    def __init__(self, tokenizer_json: bytes, *, window: int, overlap: int, max_windows: int) -> None:
        """`tokenizer_json` must be verified bytes. Raises `BundleError` where it is no tokenizer or no window fits."""
        document = _parse(tokenizer_json)
        self._tokenizer = _load(tokenizer_json)
        self._specials = _specials(self._tokenizer)
        self._split: Callable[[str], Sequence[str]] = split_of(document) or _whole
        self._words = KnownWords(self._encode)
        self._width = window - len(self._specials)
        self._overlap = overlap
        self._max_windows = max_windows
        if not 0 <= overlap < self._width:
            raise BundleError(
                f"windows of {window} tokens that share {overlap} cannot be laid over a text: {len(self._specials)} of "
                "them are special tokens, and each window must read on by at least one; mend `input` in the manifest"
            )
        step = self._width - overlap
        self._max_characters = MAX_CHARACTERS_PER_TOKEN * (self._width + (max_windows - 1) * step)

    @classmethod
    def of(cls, tokenizer_json: bytes, given: TextInput, *, max_windows: int | None = None) -> WindowTokenizer:
        """The one that reads texts as a bundle's model does, in at most as many windows as its evaluation did."""
        most = given.max_windows if max_windows is None else max_windows
        return cls(tokenizer_json, window=given.max_tokens, overlap=given.stride, max_windows=most)

    @property
    def largest_id(self) -> int:
        """The largest token id that a text can become; the model's embedding table must reach it."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def read(self, texts: Sequence[str]) -> TokenWindows:
        """Tokenise t texts and lay windows over them. No text makes this raise, whatever characters it holds."""
        too_long = np.fromiter((len(text) > self._max_characters for text in texts), dtype=np.bool_, count=len(texts))
        split, read = self._split, self._words.read
        tokens, failures = list[bytes](), dict[int, TokenizeError]()
        for text in texts:
            try:
                tokens.append(read(split(text[: self._max_characters])))
            except TokenizeError as error:
                failures[len(tokens)] = error
                tokens.append(b"")
        counts = np.fromiter(map(len, tokens), dtype=np.int64, count=len(texts)) // BYTES_PER_TOKEN
        windows = lay_windows(counts, width=self._width, overlap=self._overlap, max_windows=self._max_windows)
        windows = replace(windows, cut=windows.cut | too_long)
        return TokenWindows(np.frombuffer(b"".join(tokens), dtype=np.intc), windows, self._specials, failures)

    def _encode(self, word: str) -> Sequence[int]:
        return _encode(self._tokenizer, word).ids


@dataclass(frozen=True, slots=True)
class Encoded:
    """Of k tokens, their ids, and for each the characters it stands for: from the first to beyond the last."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class PlainTokenizer:
    """Reads text as characters, whatever control tokens it spells; knows those by name. Threads may share it.

    Control tokens are all that were added to the vocabulary, but for white space. Many a tokenizer marks only some of
    them as special, and a turn that an author could end is as bad as a beginning that they could write.
    """

    def __init__(self, tokenizer_json: bytes) -> None:
        """`tokenizer_json` must be verified bytes.

        Raises `BundleError` where it is no tokenizer, puts tokens after a text, or lets a text write a control token.
        """
        document = _parse(tokenizer_json)
        specials = _specials(_load(tokenizer_json))
        if specials.suffix:
            raise BundleError(
                "the bundle's tokenizer puts tokens after a text, where the model's answer belongs: import the model "
                "with a tokenizer that does not (add_eos_token: false)"
            )
        self.prefix = specials.prefix
        """The tokens it puts before a text by itself."""
        added = [token for token in document.get("added_tokens") or () if token["content"].strip()]
        self.controls: dict[str, int] = {token["content"]: token["id"] for token in added}
        """The id of each control token by its name."""
        self._control = re.compile("|".join(map(_pattern_of, sorted(added, key=_longest_first))) or "(?!)")
        for token in added:
            token["special"] = True  # and so, by `_load`, characters
        self._first = _load(json.dumps(document).encode())
        _begin_nowhere(document.get("pre_tokenizer"))
        self._later = _load(json.dumps(document).encode())
        self._refuse_forgeries(document["model"])

    @property
    def largest_id(self) -> int:
        """The largest token id that a text can become."""
        return max(self._first.get_vocab(with_added_tokens=True).values())

    def split(self, template: str) -> Iterator[tuple[str, int | None]]:
        """Cut a template at its control tokens: pairs of the text before one and its id, None after the last text."""
        at = 0
        for found in self._control.finditer(template):
            name = found[0] if found[0] in self.controls else found[0].strip()
            yield template[at : found.start()], self.controls[name]
            at = found.end()
        yield template[at:], None

    def encode(self, text: str, *, first: bool) -> Encoded:
        """The tokens of a text between control tokens; `first` says that none comes before it.

        Raises `TokenizeError` where the library fails on it.
        """
        encoding = _encode(self._first if first else self._later, text)
        return Encoded(encoding.ids, encoding.offsets)

    def _refuse_forgeries(self, model: dict[str, Any]) -> None:  # Any: JSON
        """Raise `BundleError` where a control token's name, as characters, still becomes that token."""
        for name, token in self.controls.items():
            texts = (name, f"a{name}a", f" {name} ")
            is_written = any(token in self.encode(text, first=True).ids for text in texts)
            if is_written and name != model.get("unk_token"):  # which stands for characters it does not know
                raise BundleError(
                    f"the bundle's tokenizer reads the characters {name[:40]!a} as the control token of this name, so "
                    "that an author could write it: such a model cannot be asked about a text safely"
                )


def _encode(tokenizer: Tokenizer, text: str, *, with_specials: bool = False) -> Encoding:
    try:
        return tokenizer.encode(text, add_special_tokens=with_specials)
    except TypeError:
        # Half a surrogate pair cannot become UTF-8, which the tokenizer works in; `?` reads the same to the model
        # as the replacement character would.
        return _encode(tokenizer, text.encode("utf-8", "replace").decode(), with_specials=with_specials)
    except _NOT_ITS_FAULT:
        raise
    # A panic of the library is a BaseException, of a class that no module offers.
    except BaseException as error:  # noqa: BLE001
        raise TokenizeError(f"the bundle's tokenizer fails on a text ({error}); mend the rule that does") from None


def _pattern_of(token: dict[str, Any]) -> str:  # Any: JSON
    """Where a control token is in a template, with the white space that it swallows."""
    before, after = (r"\s*" if token.get(side) else "" for side in ("lstrip", "rstrip"))
    return f"{before}{re.escape(token['content'])}{after}"


def _longest_first(token: dict[str, Any]) -> int:  # Any: JSON
    return -len(token["content"])


def _begin_nowhere(pre_tokenizer: dict[str, Any] | None) -> None:  # Any: JSON
    """Change a tokenizer that marks the beginning of the whole text so that it marks none."""
    parts = (pre_tokenizer or {}).get("pretokenizers") or [pre_tokenizer or {}]
    for part in parts:
        if part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"


def _parse(tokenizer_json: bytes) -> Any:  # Any: JSON
    """The file as JSON, its character maps looked at, which the library follows wherever they point."""
    try:
        document = json.loads(tokenizer_json)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the bundle's tokenizer is not JSON: {error}; export the bundle again") from None
    refuse_hostile_maps(document)
    return document


def _load(tokenizer_json: bytes) -> Tokenizer:
    """A tokenizer that neither pads nor truncates, and to which `[SEP]` in a text is five characters, not a token."""
    try:
        tokenizer = Tokenizer.from_buffer(tokenizer_json)
    except _NOT_ITS_FAULT:
        raise
    except BaseException as error:  # noqa: BLE001 - as in `_encode`
        raise BundleError(f"the bundle's tokenizer cannot be read: {error}; export the bundle again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # Otherwise an author could end the model's reading wherever they like by writing special tokens.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _whole(text: str) -> list[str]:
    """A text as one word, for tokenizers that we know nothing about."""
    return [text]


def _specials(tokenizer: Tokenizer) -> Specials:
    """What the tokenizer puts around a text, found by asking it, since each kind of tokenizer says so differently."""
    bare = _encode(tokenizer, "a").ids
    dressed = _encode(tokenizer, "a", with_specials=True).ids
    before = next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), None)
    if not bare or before is None:
        raise BundleError("the bundle's tokenizer does not turn the text `a` into tokens; export the bundle again")
    return Specials(dressed[:before], dressed[before + len(bare) :])
