"""Probabilities and labels of the test split in, `evaluation.json` out: every harm, whole and in parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.dataset import Dataset
from export.metrics import (
    auroc,
    average_precision,
    average_precision_interval,
    expected_calibration_error,
    null_calibration_error,
)
from stream.bundle.evaluation import Measurement

__all__ = ["average_precision_change", "measure"]

_MIN_POSITIVES = 30
"""With fewer positives (or negatives) a ranking figure is mostly chance, and is not published [S02]."""

_MIN_ITEMS = 200
"""With fewer items even a perfect model's calibration error is above 0.06, and the error is not published [S07]."""


def measure(probabilities: NDArray[np.float64], data: Dataset, *, harms: tuple[str, ...]) -> tuple[Measurement, ...]:
    """Measure the n texts of `data` by harm, by who labelled them, and then over all, by role, source and group.

    `probabilities` is (n, h) float64. Parts that are too small for any figure are left out.
    """
    labels = data.labels
    rows = (
        _measure_part(probabilities[mask, i], labels[mask, i], harm=harm, part=part, labelled_by=labelled_by)
        for i, harm in enumerate(harms)
        for labelled_by, by in _labellers(data)
        for part, inside in _parts(data)
        if (mask := inside & by & ~np.isnan(labels[:, i])).any()
    )
    return tuple(row for row in rows if row.harmless_mean is not None or row.ece is not None)


def average_precision_change(
    served: NDArray[np.float32], trained: NDArray[np.float32], labels: NDArray[np.float32], *, harms: tuple[str, ...]
) -> dict[str, float]:
    """Average precision of `served` minus that of `trained`, both (n, h) scores, by harm with a harmful label."""
    known = [~np.isnan(column) for column in labels.T]
    return {
        harm: average_precision(served[mask, i], labels[mask, i]) - average_precision(trained[mask, i], labels[mask, i])
        for i, (harm, mask) in enumerate(zip(harms, known, strict=True))
        if labels[mask, i].any()
    }


def _labellers(data: Dataset) -> tuple[tuple[Literal["human", "silver"], NDArray[np.bool_]], ...]:
    return ("human", ~data.silver), ("silver", data.silver)


def _parts(data: Dataset) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "all", np.ones(len(data), dtype=np.bool_)
    for kind, names in (("role", data.roles), ("source", data.sources)):
        for name in np.unique(names):
            yield f"{kind}={name}", names == name
    for group in sorted({group for groups in data.groups for group in groups}):
        yield f"group={group}", np.array([group in groups for groups in data.groups])


def _measure_part(
    scores: NDArray[np.float32],
    labels: NDArray[np.float32],
    *,
    harm: str,
    part: str,
    labelled_by: Literal["human", "silver"],
) -> Measurement:
    positives = int(labels.sum())
    enough_harmless = len(labels) - positives >= _MIN_POSITIVES
    enough_to_rank = positives >= _MIN_POSITIVES and enough_harmless
    enough_to_bin = len(labels) >= _MIN_ITEMS
    interval = average_precision_interval(scores, labels) if enough_to_rank else None
    return Measurement(
        harm=harm,
        part=part,
        labels=labelled_by,
        n=len(labels),
        positives=positives,
        average_precision=average_precision(scores, labels) if enough_to_rank else None,
        average_precision_low=interval.low if interval else None,
        average_precision_high=interval.high if interval else None,
        auroc=auroc(scores, labels) if enough_to_rank else None,
        harmless_mean=float(scores[labels == 0].mean()) if enough_harmless else None,
        ece=expected_calibration_error(scores, labels) if enough_to_bin else None,
        ece_null=null_calibration_error(scores) if enough_to_bin else None,
    )
