from __future__ import annotations

import numpy as np
import pytest

from export.balance import row_weights
from export.dataset import Dataset
from export.evaluate import average_precision_change, measure
from export.metrics import average_precision
from stream.bundle.evaluation import Measurement

HARMS = ("hate", "violence")


def data_of(labels: np.ndarray[tuple[int, int], np.dtype[np.float32]], *, silver: int = 0) -> Dataset:
    """A data set of these labels, of sources a and b in turn, the first `silver` rows labelled by a rule."""
    n = len(labels)
    return Dataset(
        texts=("x",) * n,
        labels=labels,
        sources=np.where(np.arange(n) % 2, "a", "b"),
        roles=np.full(n, "post"),
        silver=np.arange(n) < silver,
        groups=(("gender:women", "age:old"), ("gender:women",), ()) * (n // 3) + ((),) * (n % 3),
        bad=(),
        held_out=0,
        unsafe=np.full(n, np.nan, np.float32),
        prompts=("",) * n,
    )


def find(rows: tuple[Measurement, ...], **wanted: str) -> Measurement:
    """The one measurement with these fields."""
    (row,) = (row for row in rows if all(getattr(row, field) == value for field, value in wanted.items()))
    return row


@pytest.fixture
def generator() -> np.random.Generator:
    """A seeded generator of its own for each test."""
    return np.random.default_rng(0)


def test_unknown_labels_are_left_out(generator: np.random.Generator) -> None:
    """Items whose label is unknown are in no figure."""
    labels = generator.integers(0, 2, (400, 2)).astype(np.float32)
    labels[:100, 0] = np.nan
    scores = generator.random((400, 2))
    rows = measure(scores, data_of(labels), harms=HARMS)
    hate = find(rows, harm="hate", part="all", labels="human")
    assert (hate.n, hate.positives) == (300, int(np.nansum(labels[:, 0])))
    assert hate.average_precision == average_precision(scores[100:, 0], labels[100:, 0])


def test_labellers_are_apart(generator: np.random.Generator) -> None:
    """What people and what rules labelled is measured apart, never mixed."""
    labels = generator.integers(0, 2, (400, 2)).astype(np.float32)
    rows = measure(generator.random((400, 2)).astype(np.float32), data_of(labels, silver=150), harms=HARMS)
    assert find(rows, harm="hate", part="all", labels="human").n == 250
    assert find(rows, harm="hate", part="all", labels="silver").n == 150


def test_parts_add_up(generator: np.random.Generator) -> None:
    """The sources of a harm have as many items and positives together as the whole."""
    labels = generator.integers(0, 2, (400, 2)).astype(np.float32)
    rows = measure(generator.random((400, 2)).astype(np.float32), data_of(labels), harms=HARMS)
    whole = find(rows, harm="hate", part="all")
    parts = [row for row in rows if row.harm == "hate" and row.part.startswith("source=")]
    assert (whole.n, whole.positives) == (sum(part.n for part in parts), sum(part.positives for part in parts))


def test_a_text_about_two_groups_counts_for_both(generator: np.random.Generator) -> None:
    """A group's part is every text that names it, whatever other groups it names."""
    labels = generator.integers(0, 2, (399, 2)).astype(np.float32)
    rows = measure(generator.random((399, 2)).astype(np.float32), data_of(labels), harms=HARMS)
    assert find(rows, harm="hate", part="group=gender:women").n == 266
    assert find(rows, harm="hate", part="group=age:old").n == 133


def test_parts_without_a_figure_are_left_out(generator: np.random.Generator) -> None:
    """A part with neither 30 harmless items nor 200 in all says nothing and is not written."""
    labels = np.ones((90, 2), np.float32)
    labels[:40, 0] = 0
    rows = measure(generator.random((90, 2)).astype(np.float32), data_of(labels), harms=HARMS)
    assert {row.part for row in rows if row.harm == "hate"} == {"all", "role=post"}
    assert not [row for row in rows if row.harm == "violence"]


def test_harmless_mean_is_over_harmless_items() -> None:
    """The mean probability of harmless items leaves harmful ones out."""
    labels = np.array([[0, 0]] * 40 + [[1, 1]] * 40, np.float32)
    scores = np.where(labels == 1, 0.9, 0.25)
    assert find(measure(scores, data_of(labels), harms=HARMS), harm="hate", part="all").harmless_mean == 0.25


@pytest.mark.parametrize(("positives", "n", "ranked", "binned"), [(29, 400, False, True), (30, 60, True, False)])
def test_figures_need_enough_items(positives: int, n: int, ranked: bool, binned: bool) -> None:
    """Ranking figures need 30 positives and 30 negatives, calibration errors 200 items; else they are null."""
    labels = np.zeros((n, 2), np.float32)
    labels[:positives] = 1
    scores = np.linspace(0, 1, 2 * n).reshape(n, 2)
    row = find(measure(scores, data_of(labels), harms=HARMS), harm="hate", part="all")
    figures = (row.average_precision, row.average_precision_low, row.average_precision_high, row.auroc)
    assert [figure is not None for figure in figures] == [ranked] * 4
    assert [figure is not None for figure in (row.ece, row.ece_null)] == [binned] * 2


def test_change_is_served_minus_trained() -> None:
    """A served model that ranks worse than the trained one shows a negative change; harms without positives none."""
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
    trained = np.array([[0.9, 0.0], [0.1, 0.0], [0.8, 0.0]], np.float32)
    served = np.array([[0.9, 0.0], [0.85, 0.0], [0.8, 0.0]], np.float32)
    assert average_precision_change(served, trained, labels, harms=HARMS) == pytest.approx({"hate": 5 / 6 - 1})


def test_a_source_counts_by_the_root_of_its_size() -> None:
    """Nine times as many rows give a source three times the weight, and silver rows count half."""
    weights = row_weights(np.array(["a"] * 9 + ["b"] * 2), np.array([False] * 10 + [True]))
    assert weights.mean() == pytest.approx(1.0)
    assert weights[9] / weights[0] == pytest.approx(3 / np.sqrt(2))
    assert weights[10] / weights[9] == pytest.approx(0.5)
