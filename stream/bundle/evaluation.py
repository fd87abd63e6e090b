"""What `evaluation.json` holds: measured quality, one row per harm and slice of the test split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from stream.bundle.manifest import explain, refuse_newer
from stream.errors import BundleError

__all__ = ["Conversion", "Evaluation", "Measurement", "parse_evaluation"]

Share = Annotated[float, Field(ge=0, le=1)]
Rows = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Measurement(_Strict):
    """One harm on one slice of the test split. A figure is null where there were too few items to publish it."""

    harm: str
    part: str
    """`all`, `role=NAME`, `source=NAME` or `group=AXIS:NAME`, a group that the text is about."""
    labels: Literal["human", "silver"]
    """Who said what is harmful: people, or a rule, a keyword or another model."""
    n: Rows
    positives: Rows
    average_precision: Share | None
    """Step form, not interpolated [S02]. Depends on the prevalence, positives / n: never compare across prevalences."""
    average_precision_low: Share | None
    average_precision_high: Share | None
    """Bounds of the 95 % bootstrap interval of `average_precision`."""
    auroc: Share | None
    harmless_mean: Share | None
    """Mean probability given to harmless items: where a group's is higher, its harmless content is suspected more."""
    ece: Share | None
    """Expected calibration error over 15 bins [S07]."""
    ece_null: Share | None
    """What the expected calibration error of a perfectly calibrated model would be at this n."""


class Conversion(_Strict):
    """What the way from the trained module to the served artefact cost."""

    parity_max_abs_logit: Annotated[float, Field(ge=0)]
    """Largest difference in any logit between the converted module and the artefact."""
    parity_texts: Rows
    average_precision_change: dict[str, float]
    """By harm, on the test split's human labels: average precision as served minus as trained (quantisation)."""


class Evaluation(_Strict):
    """The whole of `evaluation.json`."""

    schema_version: Literal[1] = 1
    created_at: AwareDatetime
    split_rows: dict[Literal["train", "validation", "calibration", "test"], Rows]
    measurements: tuple[Measurement, ...]
    conversion: Conversion


def parse_evaluation(content: bytes, *, name: str) -> Evaluation:
    """Parse the bytes of the evaluation file `name`; raise `BundleError` naming each field that is wrong."""
    refuse_newer(content, name)
    try:
        return Evaluation.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
