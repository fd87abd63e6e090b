"""Made-up texts of a length in tokens that is given, as events and as the arrays of a model call; and the scorer."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np

from ops.bench.texts import WORDS, event
from stream.bundle import Bundle
from stream.bundle.manifest import TextInput
from stream.decode import DecodeLimits, Decoder
from stream.errors import BundleError
from stream.events import EventBatch, LineRecord
from stream.scoring.batching import MicroBatch
from stream.scoring.golden import AT_ANY_TIME
from stream.scoring.onnx import OnnxScorer
from stream.scoring.session import OnnxSession
from stream.scoring.tokenize import ModelInputs, WindowTokenizer
from stream.settings import Settings

__all__ = [
    "decoder_of",
    "events_of",
    "inputs_of",
    "random_inputs",
    "records_of",
    "scorer_of",
    "texts_of",
    "tokenizer_of",
]

FIRST_WORD, LAST_WORD = 1000, 29_000
"""Ids of whole words in the vocabulary of BERT."""


def tokenizer_of(bundle: Bundle) -> WindowTokenizer:
    """The service's own. Raises `BundleError` where the bundle reads no text as it is."""
    given, content = _text_input(bundle)
    return WindowTokenizer.of(content, given)


def scorer_of(bundle: Bundle, session: OnnxSession, *, max_batch_tokens: int) -> OnnxScorer:
    """The service's scorer around a model other than the bundle's own: everything else is the bundle's."""
    given, content = _text_input(bundle)
    return OnnxScorer(
        session,
        WindowTokenizer.of(content, given),
        harms=bundle.manifest.harms,
        window=given.max_tokens,
        max_batch_tokens=max_batch_tokens,
        form=given.form,
    )


def _text_input(bundle: Bundle) -> tuple[TextInput, bytes]:
    """How the bundle's model reads text, and its tokenizer's file."""
    given, tokenizer = bundle.manifest.input, bundle.manifest.tokenizer
    if given.kind != "text" or tokenizer is None:
        raise BundleError(f"{bundle.path} has an input of kind {given.kind}; this compares ways of reading text")
    return given, bundle.read(tokenizer)


def texts_of(tokenizer: WindowTokenizer, *, length: int, count: int) -> list[str]:
    """So many texts of exactly `length` tokens, special ones included: everyday words of one token each.

    Raises `BundleError` where the tokenizer makes something else of them.
    """
    alone = tokenizer.read(WORDS).lengths
    shortest = int(alone.min())  # of one token between the special ones
    # Letters that stand apart may be read as one word.
    words = [word for word, tokens in zip(WORDS, alone, strict=True) if tokens == shortest and len(word) > 1]
    chooser = random.Random(length)
    texts = [" ".join(chooser.choices(words, k=length - shortest + 1)) for _ in range(count)]
    if set(tokenizer.read(texts).lengths.tolist()) != {length}:
        raise BundleError(f"the bundle's tokenizer does not read everyday words as one token each up to {length}")
    return texts


def records_of(texts: Iterable[str]) -> list[LineRecord]:
    """Texts as records of content events."""
    return [LineRecord(number, event(number, text)) for number, text in enumerate(texts)]


def decoder_of(settings: Settings) -> Decoder:
    """The service's own, without a mapping."""
    return Decoder(
        DecodeLimits(
            max_event_bytes=settings.max_event_bytes,
            max_json_depth=settings.max_json_depth,
            max_future_s=settings.max_future_s,
            max_image_pixels=settings.max_image_pixels,
            max_image_frames=settings.max_image_frames,
        )
    )


def events_of(texts: Iterable[str], settings: Settings) -> EventBatch:
    """Texts as a decoded batch, as the scorer gets it."""
    events, _ = decoder_of(settings).decode(records_of(texts), now=AT_ANY_TIME)
    return events


def inputs_of(tokenizer: WindowTokenizer, texts: list[str], *, length: int, rows: int) -> list[ModelInputs]:
    """The arrays of the calls that these texts of one length make, `rows` texts each."""
    tokens = tokenizer.read(texts)
    numbers = np.arange(len(texts))
    return [tokens.inputs(MicroBatch(numbers[at : at + rows], length)) for at in range(0, len(texts), rows)]


def random_inputs(*, rows: int, length: int, seed: int) -> ModelInputs:
    """Random words in rows of any number of tokens up to `length`, padded."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(FIRST_WORD, LAST_WORD, (rows, length))
    mask = (np.arange(length) < generator.integers(1, length + 1, (rows, 1))).astype(np.int64)
    return ModelInputs(ids * mask, mask)
