"""What `calibration.json` holds: per harm, the map from logit to probability and what was measured with it.

The map is one for content of all roles; what was measured with it is there by role as well, where that was known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from stream.bundle.manifest import Role, explain, refuse_newer
from stream.errors import BundleError

__all__ = [
    "BINS",
    "Calibration",
    "CalibrationFile",
    "HarmCalibration",
    "HarmFile",
    "Histogram",
    "RoleCalibration",
    "RoleFile",
    "parse_calibration",
]

BINS = 1024
"""Bins of equal width on [0, 1]; with so many, average precision from counts is within 0.0003 of exact [S02]."""

# Counts are floats so that a weighted or decayed histogram fits; a sum may differ from its total by rounding alone.
_COUNT_TOLERANCE = 1e-6

Count = Annotated[float, Field(ge=0)]
Counts = Annotated[tuple[Count, ...], Field(min_length=BINS, max_length=BINS)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class RoleCalibration:
    """What one harm's map gave to the calibration items of one role, counted as in `HarmCalibration`."""

    n_harmful: float
    n_harmless: float
    harmful: tuple[float, ...]
    harmless: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HarmCalibration:
    """One harm: probability = sigmoid(a * logit + b), and the histogram of those probabilities by label.

    `harmful[i]` and `harmless[i]` count the calibration items with `min(floor(1024 * probability), 1023) == i`. With
    no items at all nothing was fitted: the probability is the model's own word, and no risk can be derived from it.
    """

    a: float
    b: float
    n_harmful: float
    n_harmless: float
    ece: float | None
    """Expected calibration error of `a` and `b` on the items they were not fitted on (see the card) [S07]; None where
    there are none."""
    ece_null: float | None
    """What that error would be on average for a perfectly calibrated model at the same n."""
    harmful: tuple[float, ...]
    harmless: tuple[float, ...]
    roles: Mapping[str, RoleCalibration] = field(default_factory=dict)
    """The same items by role; empty where nobody noted roles."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are items behind it."""
        return self.n_harmful + self.n_harmless > 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of every harm, in the manifest's order."""

    created_at: datetime
    split: str
    method: str
    harms: Mapping[str, HarmCalibration]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Histogram(_Strict):
    """Counts of calibrated probabilities by label."""

    bins: Literal[1024] = 1024
    harmful: Counts
    harmless: Counts


class RoleFile(_Strict):
    """The items of one role as written in the file."""

    n_harmful: Count
    n_harmless: Count
    ece: Share | None = None
    """Expected calibration error within the role, of the map for all roles [S07]; null for too few items to tell."""
    ece_null: Share | None = None
    """What that error would be on average for a perfectly calibrated model at the same n."""
    ece_alarm: Share | None = None
    """Three standard deviations above `ece_null`: a larger error is none that chance makes."""
    histogram: Histogram


class HarmFile(_Strict):
    """One harm as written in the file."""

    a: Annotated[float, Field(gt=0)]  # a slope of zero or less would turn the model's order around
    b: float
    n_harmful: Count
    n_harmless: Count
    ece: Share | None
    ece_null: Share | None
    histogram: Histogram
    roles: dict[Role, RoleFile] = Field(default_factory=dict)
    """The items by role, for the roles that have any."""

    @property
    def is_fitted(self) -> bool:
        """Whether there are items behind it."""
        return self.n_harmful + self.n_harmless > 0


class CalibrationFile(_Strict):
    """The whole of `calibration.json`."""

    schema_version: Literal[1] = 1
    created_at: AwareDatetime
    split: Annotated[str, Field(min_length=1, max_length=500)]
    method: Literal["platt", "none"] = "platt"
    """`none` where no harm has any items: every probability is the model's own."""
    harms: dict[str, HarmFile]


def parse_calibration(content: bytes, harms: tuple[str, ...], *, name: str) -> Calibration:
    """Parse the bytes of the calibration file `name`; raise `BundleError` where it is wrong or lacks one of `harms`."""
    refuse_newer(content, name)
    try:
        file = CalibrationFile.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
    if set(file.harms) != set(harms):
        raise BundleError(f"{name} calibrates {sorted(file.harms)}, the manifest names {sorted(harms)}")
    for harm in harms:
        _check_totals(file.harms[harm], harm, name)
        for role, part in file.harms[harm].roles.items():
            _check_totals(part, f"{harm} in role {role}", name)
    return Calibration(file.created_at, file.split, file.method, {harm: _freeze(file.harms[harm]) for harm in harms})


def _check_totals(file: HarmFile | RoleFile, which: str, name: str) -> None:
    histogram = file.histogram
    for label, counts, total in (
        ("harmful", histogram.harmful, file.n_harmful),
        ("harmless", histogram.harmless, file.n_harmless),
    ):
        if abs(sum(counts) - total) > _COUNT_TOLERANCE * max(total, 1.0):
            raise BundleError(f"{name}: the {label} histogram of {which} counts {sum(counts):g} items, not {total:g}")


def _freeze(file: HarmFile) -> HarmCalibration:
    return HarmCalibration(
        a=file.a,
        b=file.b,
        n_harmful=file.n_harmful,
        n_harmless=file.n_harmless,
        ece=file.ece,
        ece_null=file.ece_null,
        harmful=file.histogram.harmful,
        harmless=file.histogram.harmless,
        roles={str(role): _freeze_role(part) for role, part in file.roles.items()},
    )


def _freeze_role(file: RoleFile) -> RoleCalibration:
    return RoleCalibration(file.n_harmful, file.n_harmless, file.histogram.harmful, file.histogram.harmless)
