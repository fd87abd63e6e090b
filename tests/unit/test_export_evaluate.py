from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from export.data.balance import row_weights
from export.data.dataset import Dataset
from export.data.items import LENGTHS, any_harm, items_of, length_bucket
from export.measuring.evaluate import MAX_NAMES, average_precision_change, measure_macro
from export.measuring.evaluate import measure as measure_columns
from export.measuring.metrics import average_precision
from stream.bundle.evaluation import Measurement

HARMS = ("hate", "violence")


def data_of(labels: np.ndarray[tuple[int, int], np.dtype[np.float32]], *, silver: int = 0) -> Dataset:
    """A data set of these labels, of sources a and b in turn, the first `silver` rows labelled by a rule."""
    n = len(labels)
    return Dataset(
        texts=tuple("abcdefghij"[row % 10] * (1 + row // 10) for row in range(n)),  # no two alike, in letters
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


def measure(
    probabilities: np.ndarray[tuple[int, int], np.dtype[np.float64]], data: Dataset, *, harms: tuple[str, ...]
) -> tuple[Measurement, ...]:
    """Measure with every threshold at 0.5."""
    return measure_columns(items_of(data, probabilities, np.full(len(harms), 0.5)), harms=harms)


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
    assert {row.part for row in rows if row.harm == "hate"} == {"all", "role=post", "length=0-49"}
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


def test_any_harm_is_unknown_where_nobody_asked() -> None:
    """One harm ruled out and another never asked about is not harmless; `unsafe` settles it either way."""
    labels = np.array([[0, np.nan], [0, np.nan], [0, np.nan], [0, 1], [0, 0]], np.float32)
    unsafe = np.array([np.nan, 0, 1, np.nan, np.nan], np.float32)
    assert np.array_equal(any_harm(labels, unsafe), [np.nan, 0, 1, 1, 0], equal_nan=True)


def test_any_harm_is_measured_by_the_largest_probability() -> None:
    """A text is found if any of its harms is: its score is the largest probability, unknown labels are left out."""
    labels = np.array([[1, 0]] * 40 + [[0, 1]] * 40 + [[0, 0]] * 40 + [[0, np.nan]] * 40, np.float32)
    labels = np.repeat(labels, 3, axis=0)
    scores = np.where(labels == 1, 0.9, 0.1)
    row = find(measure(scores, data_of(labels), harms=HARMS), harm="any_harm", part="all")
    assert (row.n, row.positives, row.average_precision) == (360, 240, 1.0)
    assert row.ece is None
    assert row.false_positive_rate is not None
    assert row.false_positive_rate.value == 0.0


def test_rates_are_counted_at_the_threshold() -> None:
    """False positives are harmless texts at or above the threshold, false negatives harmful ones below it."""
    labels = np.array([[0, 0]] * 40 + [[1, 1]] * 50, np.float32)
    scores = np.where(labels == 1, 0.9, 0.1)
    scores[:10] = 0.5
    scores[-5:] = 0.2
    row = find(measure(scores, data_of(labels), harms=HARMS), harm="hate", part="all")
    assert row.false_positive_rate is not None
    assert row.false_negative_rate is not None
    assert row.f1 is not None
    assert (row.false_positive_rate.value, row.false_negative_rate.value) == (0.25, 0.1)
    assert row.f1.value == pytest.approx(2 * 45 / (2 * 45 + 10 + 5))


def test_copies_of_a_text_are_not_enough_data(generator: np.random.Generator) -> None:
    """Thirty copies of one harmful text are one text, and nothing is published about ranking them."""
    labels = np.array([[1, 1]] * 40 + [[0, 0]] * 40, np.float32)
    data = data_of(labels)
    copies = replace(data, texts=("Zyx!",) * 20 + ("zyx 7",) * 20 + data.texts[40:])
    rows = measure(generator.random((80, 2)), copies, harms=HARMS)
    row = find(rows, harm="hate", part="all")
    assert (row.n, row.distinct, row.average_precision) == (80, 41, None)
    assert row.false_negative_rate is None


def test_lengths_are_in_characters() -> None:
    """A text is in the bucket that its number of characters names."""
    assert [length_bucket("a" * n) for n in (1, 49, 50, 199, 200, 999, 1000, 9999)] == [
        bucket for bucket in LENGTHS for _ in range(2)
    ]


def test_means_are_over_the_harms_published(generator: np.random.Generator) -> None:
    """Macro figures average the harms that have enough texts, and say how many those are."""
    labels = generator.integers(0, 2, (300, 3)).astype(np.float32)
    labels[20:, 2] = np.nan
    scores = generator.random((300, 3))
    items = items_of(data_of(labels), scores, np.full(3, 0.5))
    (whole,) = (row for row in measure_macro(items, harms=("a", "b", "c")) if row.part == "all" and row.harms)
    assert whole.harms == 2
    assert whole.average_precision is not None
    expected = np.mean([average_precision(scores[:, i], labels[:, i]) for i in (0, 1)])
    assert whole.average_precision.value == pytest.approx(expected)
    assert whole.average_precision.low < expected < whole.average_precision.high


def test_names_that_are_too_many_are_left_out(generator: np.random.Generator) -> None:
    """Of thousands of sources the most frequent are measured apart, so that data cannot make the work endless."""
    labels = generator.integers(0, 2, (600, 2)).astype(np.float32)
    data = replace(data_of(labels), sources=np.array([f"s{number // 2}" for number in range(600)]))
    rows = measure_columns(items_of(data, generator.random((600, 2)), np.full(2, 0.5)), harms=HARMS, with_small=True)
    assert len({row.part for row in rows if row.part.startswith("source=")}) == MAX_NAMES
