from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.data.splits import SPLIT_NAMES, Splits, check_disjoint, split, text_digest
from export.errors import ExportError


@given(st.lists(st.text(), max_size=50))
def test_every_row_is_in_exactly_one_split(texts: list[str]) -> None:
    """The splits are a partition of the rows."""
    splits = split(texts)
    rows = np.concatenate([getattr(splits, name) for name in SPLIT_NAMES])
    assert sorted(rows.tolist()) == list(range(len(texts)))
    assert sum(splits.sizes().values()) == len(texts)


@given(st.lists(st.text(), min_size=1, max_size=20), st.text())
def test_a_text_keeps_its_split_when_the_data_grow(texts: list[str], more: str) -> None:
    """Which split a text is in depends on the text alone."""

    def first(splits: Splits) -> str:
        return next(name for name in SPLIT_NAMES if 0 in getattr(splits, name))

    assert first(split(texts)) == first(split([*texts, more]))


@pytest.mark.parametrize(
    "variant", ["You're so FUNNY!!", "you re so funny", "you-re so funny 123", "You're so funny 🙃"]
)
def test_near_copies_share_a_digest(variant: str) -> None:
    """Texts that differ in case, punctuation, digits or emoji only are one text to the split."""
    assert text_digest(variant) == text_digest("You're so funny")


@pytest.mark.parametrize("other", ["you are so funny", "youre so funny", ""])
def test_other_words_have_another_digest(other: str) -> None:
    """Texts of other words are other texts."""
    assert text_digest(other) != text_digest("You're so funny")


def test_texts_without_letters_are_told_apart() -> None:
    """Where there are no letters, the text itself decides."""
    assert text_digest("12345") != text_digest("!!!")


def test_shares_are_as_stated() -> None:
    """Training, validation, calibration and test get 63, 7, 15 and 15 percent."""
    sizes = split([chr(97 + i % 26) * (i // 26 + 1) for i in range(20_000)]).sizes()
    shares = {name: size / 20_000 for name, size in sizes.items()}
    assert shares == pytest.approx({"train": 0.63, "validation": 0.07, "calibration": 0.15, "test": 0.15}, abs=0.01)


def test_overlap_is_refused() -> None:
    """A digest in two splits stops the export, naming the splits."""
    rows = np.array([], dtype=np.int64)
    splits = Splits(train=np.array([0]), validation=rows, calibration=rows, test=np.array([1]))
    with pytest.raises(ExportError, match="row 1 is in both train and test"):
        check_disjoint(splits, ["same", "same"])
