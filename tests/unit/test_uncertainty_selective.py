"""Answers, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events import Selection
from stream.uncertainty import select

probability = st.floats(0, 1, width=32)
case = st.tuples(probability | st.just(math.nan), st.floats(0, 1.1), st.floats(0, 1.1))


def one_by_one(p: float, act_at: float, allow_below: float) -> Selection:
    """The contract, word by word."""
    if p >= act_at:
        return Selection.HARMFUL
    if p < allow_below:
        return Selection.HARMLESS
    return Selection.ABSTAIN


@given(st.lists(st.lists(case, min_size=2, max_size=2), max_size=30))
def test_each_cell_is_selected_by_its_own_thresholds(cases: list[list[tuple[float, float, float]]]) -> None:
    """The arrays give what the contract says of every cell, and NaN is never answered."""
    cells = np.array(cases, np.float64).reshape(-1, 2, 3)
    found = select(cells[..., 0].astype(np.float32), cells[..., 1], cells[..., 2])
    assert found.dtype == np.int8
    assert found.tolist() == [[one_by_one(*cell) for cell in row] for row in cases]


@pytest.mark.parametrize(
    ("p", "selection"),
    [(0.25, Selection.ABSTAIN), (0.75, Selection.HARMFUL), (math.nan, Selection.ABSTAIN)],
)
def test_thresholds_belong_to_the_careful_side(p: float, selection: Selection) -> None:
    """At `allow_below` there is no answer yet, at `act_at` there is one, and NaN has none."""
    found = select(np.array([[p]], np.float32), act_at=np.array([[0.75]]), allow_below=np.array([[0.25]]))
    assert found.tolist() == [[selection]]


def test_where_thresholds_cross_harmful_wins() -> None:
    """With `allow_below` above `act_at`, what reaches `act_at` is harmful."""
    found = select(np.array([[0.5]], np.float32), act_at=np.array([[0.4]]), allow_below=np.array([[0.6]]))
    assert found.tolist() == [[Selection.HARMFUL]]
