"""Noise on texts to train on: seeded, on a share of them, and undone by the tokenizer where it can be."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from export.errors import ExportError
from export.text.augment import KINDS, Augmentation, augment, augment_all
from export.text.tokens import build_moderator_tokenizer

TEXT = "I can't believe that you would ever hurt a spider, not even once."
ALL = Augmentation(share=1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_a_text(kind: str) -> None:
    """Each kind of noise changes an ordinary text in most draws, and never to nothing."""
    results = [KINDS[kind](TEXT, random.Random(seed)) for seed in range(20)]
    assert sum(result != TEXT for result in results) >= 10
    assert len(set(results)) > 3 or kind in {"case", "punctuation"}


@given(text=st.text(max_size=60), seed=st.integers(0, 10))
def test_any_text_can_be_noisy(text: str, seed: int) -> None:
    """No text, however odd, breaks a kind of noise, and the result can be written down."""
    for kind in KINDS.values():
        kind(text, random.Random(seed)).encode()


@given(text=st.text(max_size=60), seed=st.integers(0, 10))
def test_most_of_a_text_stays(text: str, seed: int) -> None:
    """Noise changes words here and there: a text does not grow beyond a few letters for each it had."""
    noisy = augment(text, random.Random(seed), ALL)
    assert len(noisy) <= 9 * len(text) + 40


def test_noise_is_seeded() -> None:
    """Seed and epoch decide the noise, and the texts beside a text do not."""
    texts = [f"{TEXT} {number}" for number in range(50)]
    noisy = augment_all(texts, ALL, epoch=0)
    assert noisy == augment_all(texts, ALL, epoch=0)
    assert noisy[:10] == augment_all(texts[:10], ALL, epoch=0)
    assert noisy != augment_all(texts, ALL, epoch=1)
    assert noisy != augment_all(texts, Augmentation(share=1, seed=1), epoch=0)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_is_changed(share: float) -> None:
    """About the share of texts that was asked for is changed."""
    texts = [f"{TEXT} {number}" for number in range(2000)]
    changed = sum(map(str.__ne__, texts, augment_all(texts, Augmentation(share=share), epoch=0)))
    assert changed == pytest.approx(share * len(texts), abs=120)


@pytest.mark.parametrize("kind", ["lookalike", "styled", "hidden", "case"])
def test_the_tokenizer_undoes_what_it_can(kind: str) -> None:
    """Letters written otherwise, hidden signs and capitals reach the model as the plain text does."""
    tokenizer = Tokenizer.from_buffer(build_moderator_tokenizer())
    plain = tokenizer.encode(TEXT).tokens
    results = [tokenizer.encode(KINDS[kind](TEXT, random.Random(seed))).tokens for seed in range(50)]
    assert sum(result == plain for result in results) >= 45


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ("typos",)}, "no kind of noise 'typos': choose among typo"),
        ({"share": 1.5}, "a share of 1.5"),
        ({"share": -0.1}, "give a share from 0 to 1"),
        ({"most_kinds": 0}, "up to 0 kinds"),
        ({"most_kinds": 99}, "1 to 12 kinds"),
    ],
)
def test_settings_out_of_bounds_are_refused(change: dict[str, object], message: str) -> None:
    """A kind that is none, a share that is none and a count that is none are refused with what is there."""
    with pytest.raises(ExportError, match=message):
        Augmentation(**change)  # type: ignore[arg-type]  # wrong on purpose
