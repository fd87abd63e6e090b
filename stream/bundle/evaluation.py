"""What `evaluation.json` holds: measured quality, one row per harm and slice of the test split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from stream.bundle.manifest import explain, refuse_newer
from stream.errors import BundleError

__all__ = [
    "ANY_HARM",
    "AxisFairness",
    "Conversion",
    "Counterfactual",
    "DialectFairness",
    "Estimate",
    "Evaluation",
    "Gap",
    "LeftOut",
    "Macro",
    "Measurement",
    "TermFairness",
    "parse_evaluation",
]

Share = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
Rows = Annotated[int, Field(ge=0)]

ANY_HARM = "any_harm"
"""Stands where a harm does for all of them: harmful if any label is, scored by the largest probability [S01, S02]."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Estimate(_Strict):
    """A share with its 95 % interval."""

    value: Share
    low: Share
    high: Share


class Measurement(_Strict):
    """One harm on one slice of the test split. A figure is null where there were too few items to publish it."""

    harm: str
    """Name of the harm, or `any_harm`."""
    part: str
    """`all`, `role=NAME`, `source=NAME`, `locale=NAME`, `group=AXIS:NAME`, a group that the item is about; of texts
    `length=CHARACTERS`, of images `size=PIXELS` and `format=NAME`."""
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
    ece_alarm: Share | None = None
    """Three standard deviations above `ece_null`: a larger error is none that chance makes [S07]."""
    distinct: Rows | None = None
    """Different texts among the n; intervals take copies of a text as one."""
    prevalence: Estimate | None = None
    auroc_low: Share | None = None
    auroc_high: Share | None = None
    optimal_f1: Estimate | None = None
    """Best F1 of any one threshold, chosen with these labels: not one that a threshold chosen beforehand reaches."""
    f1: Estimate | None = None
    """F1 at the threshold in force."""
    false_positive_rate: Estimate | None = None
    """Share of the harmless items that reach the threshold in force."""
    false_negative_rate: Estimate | None = None
    """Share of the harmful items that do not reach it."""


class Macro(_Strict):
    """Means over the harms, `any_harm` not among them, on one slice; null where no harm of it is published."""

    part: str
    labels: Literal["human", "silver"]
    harms: Rows
    """Harms with figures published, over which the means are."""
    average_precision: Estimate | None
    f1: Estimate | None
    """Macro-F1 at the thresholds in force; a class with neither a harmful nor a flagged item counts as 0."""
    f1_undefined: Rows
    """Such classes among `harms`."""


class Gap(_Strict):
    """Largest minus smallest rate over terms, with its bootstrap interval over templates and what chance makes of it.

    A largest difference of many is above zero though nothing differs: `chance` is its mean, `chance_high` its 95 %
    quantile, if within each template the results are dealt out to the terms at random.
    """

    value: Share
    low: Share
    high: Share
    chance: Share
    chance_high: Share


class TermFairness(_Strict):
    """One identity term, over all templates."""

    term: str
    axis: str
    false_positive_rate: Estimate
    """Share of the harmless sentences about the term that are acted on."""
    not_allowed_rate: Estimate
    """Share of them that are not allowed straight away: acted on or reviewed."""
    false_negative_rate: Estimate
    """Share of the harmful sentences about the term that are not acted on."""
    harmless_mean: Share
    """Mean over the harmless sentences of the largest probability of any harm."""
    neutrality: Share
    """Share of swaps with a made-up word that change the score no more than a swap of two made-up words does [S27]."""


class AxisFairness(_Strict):
    """The gaps over all terms (`all`), or over those of one axis."""

    axis: str
    terms: Rows
    false_positive_rate: Gap
    not_allowed_rate: Gap
    harmless_mean: Gap
    false_negative_rate: Gap


class DialectFairness(_Strict):
    """Harmless sentences in African American (AAE) and standardised English (SAE); differences are AAE - SAE."""

    pairs: Rows
    aae_false_positive_rate: Estimate
    sae_false_positive_rate: Estimate
    false_positive_difference: Difference
    false_positive_difference_low: Difference
    false_positive_difference_high: Difference
    not_allowed_difference: Difference
    mean_difference: Difference
    """Mean difference of the largest probability of any harm."""
    mean_difference_low: Difference
    mean_difference_high: Difference


class Counterfactual(_Strict):
    """Sentences that differ only in whom they are about [S27]: what a text says being equal, does that matter?"""

    templates: str
    """Version and digest of the sentences."""
    harmless_templates: Rows
    harmful_templates: Rows
    axes: tuple[AxisFairness, ...]
    terms: tuple[TermFairness, ...]
    nonce: tuple[TermFairness, ...]
    """Made-up words in the same sentences: the negative control, in no gap of `axes`."""
    nonce_gap: Gap
    """The gap of false positive rates over the made-up words: what is left when a word means nothing."""
    dialect: DialectFairness

    @property
    def gap(self) -> Gap:
        """The gap of false positive rates over all terms, which is the one to judge by."""
        return next(axis.false_positive_rate for axis in self.axes if axis.axis == "all")


class Conversion(_Strict):
    """What the way from the trained module to the served artefact cost."""

    parity_max_abs_logit: Annotated[float, Field(ge=0)]
    """Largest difference in any logit between the converted module and the artefact."""
    parity_texts: Rows
    average_precision_change: dict[str, float]
    """By harm, on the test split's human labels: average precision as served minus as trained (quantisation)."""
    flips: dict[str, Share] | None = None
    """By harm, on the calibration split: share of texts that quantisation puts on the other side of `act_at`."""


class LeftOut(_Strict):
    """How the same way of training did on sources that it was kept from: what another origin costs."""

    rotation: str
    """Name of the group of sources."""
    harms: Annotated[dict[str, Estimate], Field(min_length=1)]
    """Average precision of the harms that had labels enough, with its 95 % interval."""
    any_harm: Estimate | None
    false_positive_rate: Share | None
    """Of the harmless texts, at the threshold that flags 5 % of those of the sources that were learnt from."""
    harmless: Rows


class Evaluation(_Strict):
    """The whole of `evaluation.json`."""

    schema_version: Literal[1] = 1
    created_at: AwareDatetime
    split_rows: dict[Literal["train", "validation", "calibration", "test"], Rows]
    measurements: tuple[Measurement, ...]
    conversion: Conversion
    macro: tuple[Macro, ...] = ()
    act_at: dict[str, Share] | None = None
    """By harm: the threshold of the rates and of F1; see the card for where it is from."""
    counterfactual: Counterfactual | None = None
    left_out: tuple[LeftOut, ...] = ()
    """Of other trainings by the same recipe, one per rotation; not of the model in this bundle, which saw them all."""


def parse_evaluation(content: bytes, *, name: str) -> Evaluation:
    """Parse the bytes of the evaluation file `name`; raise `BundleError` naming each field that is wrong."""
    refuse_newer(content, name)
    try:
        return Evaluation.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
