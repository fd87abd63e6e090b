"""Logits, labels and roles of the calibration split in, `calibration.json` out.

One map serves all roles. Thresholds that follow from risks keep the order of the items, whatever rising map there is,
so a map by role would not move one decision made by them; but it would teach the probabilities what share of each role
is harmful in the data (nearly all prompts), which is so nowhere else, and one probability would mean two things.
"""

from __future__ import annotations

from datetime import datetime
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.measuring.metrics import (
    MIN_CALIBRATION_ITEMS,
    expected_calibration_error,
    null_calibration_error,
    reliability,
)
from stream.bundle.calibration import BINS, CalibrationFile, HarmFile, Histogram, RoleFile
from stream.bundle.manifest import Role
from stream.uncertainty.calibration import Calibrator

__all__ = ["MIN_LABELS", "calibrate", "calibrate_known", "calibrator_of", "fit_platt", "uncalibrated"]

MIN_LABELS = 30
"""With fewer items of either label a fit is mostly chance, and a harm of somebody else's model keeps its own word."""

_FOLDS = 5
"""The calibration error is measured on folds not fitted on: two parameters hardly overfit, but none is free."""

_MAX_STEPS = 100
_CONVERGED = 1e-10
_MAX_HALVINGS = 40  # 2^-40 of a step is no step

_ROLES: tuple[Role, ...] = get_args(Role)

Floats = NDArray[np.float64]
Roles = NDArray[np.str_]


def calibrate(
    logits: NDArray[np.float32],
    labels: NDArray[np.float32],
    *,
    harms: tuple[str, ...],
    split: str,
    created_at: datetime,
    roles: Roles | None = None,
) -> CalibrationFile:
    """Calibrate each harm on the n items whose label is known; `logits` and `labels` are (n, h) float32.

    `roles` is (n,), the role of each item, if that is known: figures are then given by role as well [S15].

    Raises `ExportError` for a harm without a harmful and a harmless item, or whose logits do not rise with its labels.
    """
    return CalibrationFile(
        created_at=created_at,
        split=split,
        harms={harm: _calibrate_harm(logits[:, i], labels[:, i], roles, harm) for i, harm in enumerate(harms)},
    )


def calibrate_known(
    logits: NDArray[np.float32],
    labels: NDArray[np.float32],
    *,
    harms: tuple[str, ...],
    split: str,
    created_at: datetime,
) -> CalibrationFile:
    """Calibrate as `calibrate` does each harm with `MIN_LABELS` items of either label; leave the others as they are.

    Raises `ExportError` where logits do not rise with the labels, or no harm has labels enough.
    """
    enough = [i for i in range(len(harms)) if min((labels[:, i] == value).sum() for value in (0, 1)) >= MIN_LABELS]
    if not enough:
        raise ExportError(
            f"no harm has {MIN_LABELS} harmful and {MIN_LABELS} harmless human labels in {split}: give more data, or "
            "none, which makes a bundle that is not calibrated"
        )
    known = calibrate(
        logits[:, enough], labels[:, enough], harms=tuple(harms[i] for i in enough), split=split, created_at=created_at
    )
    others = uncalibrated(harms, created_at=created_at)
    return known.model_copy(update={"harms": {harm: known.harms.get(harm, others.harms[harm]) for harm in harms}})


def uncalibrated(harms: tuple[str, ...], *, created_at: datetime) -> CalibrationFile:
    """The calibration of a model that nobody has labels for: its own probabilities, with nothing behind them."""
    nothing = (0.0,) * BINS
    harm = HarmFile(
        a=1.0,
        b=0.0,
        n_harmful=0.0,
        n_harmless=0.0,
        ece=None,
        ece_null=None,
        histogram=Histogram(harmful=nothing, harmless=nothing),
    )
    return CalibrationFile(
        created_at=created_at,
        split="nothing: no labelled data were given",
        method="none",
        harms=dict.fromkeys(harms, harm),
    )


def calibrator_of(calibration: CalibrationFile, harms: tuple[str, ...]) -> Calibrator:
    """The service's own calibrator with these parameters, so that both compute the same probabilities."""
    fitted = [calibration.harms[harm] for harm in harms]
    return Calibrator(a=np.array([harm.a for harm in fitted]), b=np.array([harm.b for harm in fitted]))


def fit_platt(logits: Floats, labels: Floats) -> tuple[float, float]:
    """Fit (a, b) of P(harmful) = sigmoid(a * logit + b) by maximum likelihood with smoothed targets (Platt 1999) [S05].

    `logits` and `labels` are (n,). With n+ harmful and n- harmless items the targets are (n+ + 1) / (n+ + 2) and
    1 / (n- + 2) in place of 1 and 0, so that the fit stays finite where the classes do not overlap. Newton's method
    with step halving: the loss is convex in (a, b).
    """
    harmful = labels.sum()
    targets = np.where(labels == 1, (harmful + 1) / (harmful + 2), 1 / (len(labels) - harmful + 2))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    parameters = np.array([0.0, np.log((harmful + 1) / (len(labels) - harmful + 1))])
    for _ in range(_MAX_STEPS):
        probabilities = 1 / (1 + np.exp(-design @ parameters))
        gradient = design.T @ (probabilities - targets)
        curvature = (design * (probabilities * (1 - probabilities))[:, None]).T @ design
        step = np.linalg.solve(curvature + _CONVERGED * np.eye(2), gradient)
        parameters = parameters - _shorten(step, design, targets, parameters)
        if np.abs(step).max() < _CONVERGED:
            break
    return float(parameters[0]), float(parameters[1])


def _shorten(step: Floats, design: Floats, targets: Floats, parameters: Floats) -> Floats:
    """Halve a Newton step until it does not raise the loss."""
    before = _loss(design @ parameters, targets)
    for _ in range(_MAX_HALVINGS):
        if _loss(design @ (parameters - step), targets) <= before:
            break
        step = step / 2
    return step


def _loss(scaled: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, scaled) - targets * scaled).sum())


def _calibrate_harm(
    logits: NDArray[np.float32], labels: NDArray[np.float32], roles: Roles | None, harm: str
) -> HarmFile:
    known = ~np.isnan(labels)
    logits, labels = logits[known], labels[known]
    if not 0 < labels.sum() < len(labels):
        raise ExportError(
            f"the calibration split has {len(labels)} labels of {harm}, not both harmful and harmless ones"
        )
    a, b = fit_platt(logits.astype(np.float64), labels.astype(np.float64))
    if a <= 0:
        raise ExportError(
            f"logits of {harm} do not rise with its labels (slope {a:.3g}): the model has not learnt it, or what its "
            "classes mean was mapped wrongly"
        )
    probabilities = _apply(a, b, logits)
    held_out = _cross_fit(logits, labels)
    return HarmFile(
        a=a,
        b=b,
        n_harmful=float(labels.sum()),
        n_harmless=float((labels == 0).sum()),
        ece=expected_calibration_error(held_out, labels),
        ece_null=null_calibration_error(held_out),
        histogram=_histograms(probabilities, labels),
        roles={} if roles is None else _by_role(probabilities, held_out, labels, roles[known]),
    )


def _by_role(
    probabilities: Floats, held_out: Floats, labels: NDArray[np.float32], roles: Roles
) -> dict[Role, RoleFile]:
    """What n items have in each role that is among them; `held_out` are probabilities from maps not fitted on them."""
    inside = {role: roles == role for role in _ROLES}
    return {
        role: _measure_role(probabilities[mask], held_out[mask], labels[mask])
        for role, mask in inside.items()
        if mask.any()
    }


def _measure_role(probabilities: Floats, held_out: Floats, labels: NDArray[np.float32]) -> RoleFile:
    binned = reliability(held_out, labels) if len(labels) >= MIN_CALIBRATION_ITEMS else None
    return RoleFile(
        n_harmful=float(labels.sum()),
        n_harmless=float((labels == 0).sum()),
        ece=binned.error() if binned else None,
        ece_null=binned.null_mean() if binned else None,
        ece_alarm=binned.alarm() if binned else None,
        histogram=_histograms(probabilities, labels),
    )


def _apply(a: float, b: float, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    return Calibrator(a=np.array([a]), b=np.array([b])).apply(logits[:, None])[:, 0]


def _cross_fit(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of n items, each from a fit on the other folds."""
    fold = np.arange(len(logits)) % _FOLDS
    probabilities = np.empty(len(logits))
    for held_out in range(_FOLDS):
        inside = fold == held_out
        a, b = fit_platt(logits[~inside].astype(np.float64), labels[~inside].astype(np.float64))
        probabilities[inside] = _apply(a, b, logits[inside])
    return probabilities


def _histograms(probabilities: Floats, labels: NDArray[np.float32]) -> Histogram:
    return Histogram(harmful=_histogram(probabilities[labels == 1]), harmless=_histogram(probabilities[labels == 0]))


def _histogram(probabilities: NDArray[np.float64]) -> tuple[float, ...]:
    bins = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    return tuple(np.bincount(bins, minlength=BINS).astype(np.float64).tolist())
