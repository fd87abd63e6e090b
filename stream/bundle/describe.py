"""A verified bundle in, what a person wants to know about it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stream.bundle.evaluation import Evaluation, Measurement, parse_evaluation
from stream.bundle.load import Bundle
from stream.bundle.manifest import ModelInput

__all__ = ["BundleDescription", "HarmDescription", "describe"]


@dataclass(frozen=True, slots=True)
class HarmDescription:
    """One harm: how well the bundle finds it, and how honest its probabilities are. None is `not measured`."""

    harm: str
    positives: int
    n: int
    average_precision: float | None
    auroc: float | None
    ece: float | None
    ece_null: float | None
    calibration_harmful: float
    """Harmful items of the calibration split; a policy can promise no miss rate below 1 / (this + 1) [S17]."""


@dataclass(frozen=True, slots=True)
class BundleDescription:
    """What `fairway bundle show` prints."""

    name: str
    version: str
    digest: str
    signer: str | None
    """Name and fingerprint of the key that signed it; None where that was not asked."""
    calibration_digest: str
    calibrated_at: datetime
    calibrated_on: str
    created_at: datetime
    code_version: str
    bytes: int
    files: int
    providers: tuple[str, ...]
    roles: tuple[str, ...]
    reads: str
    """What the model is given of some content."""
    training_rows: int
    training_sources: int
    harms: Sequence[HarmDescription]


def describe(bundle: Bundle) -> BundleDescription:
    """Sum up a bundle; raise `BundleError` if its evaluation cannot be read."""
    manifest = bundle.manifest
    evaluation = parse_evaluation(bundle.read(manifest.evaluation), name=manifest.evaluation)
    return BundleDescription(
        name=manifest.name,
        version=manifest.version,
        digest=bundle.digest,
        signer=bundle.signer,
        calibration_digest=bundle.calibration_digest,
        calibrated_at=bundle.calibration.created_at,
        calibrated_on=bundle.calibration.split,
        created_at=manifest.created_at,
        code_version=manifest.code_version,
        bytes=sum(entry.bytes for entry in manifest.files.values()),
        files=len(manifest.files) + 1,
        providers=tuple(manifest.artefacts),
        roles=manifest.roles,
        reads=_describe_input(manifest.input),
        training_rows=sum(source.rows for source in manifest.training_data),
        training_sources=len(manifest.training_data),
        harms=tuple(_describe_harm(bundle, evaluation, harm) for harm in manifest.harms),
    )


def _describe_input(given: ModelInput) -> str:
    if given.kind == "text":
        return f"text, {given.max_tokens} tokens at a time, {given.stride} shared"
    if given.kind == "policy":
        return f"text, {given.max_tokens} tokens, in a question per harm"
    return f"images, {given.width} x {given.height} pixels, {given.crops} of each"


def _describe_harm(bundle: Bundle, evaluation: Evaluation, harm: str) -> HarmDescription:
    measured = _overall(evaluation, harm)
    return HarmDescription(
        harm=harm,
        positives=measured.positives if measured else 0,
        n=measured.n if measured else 0,
        average_precision=measured.average_precision if measured else None,
        auroc=measured.auroc if measured else None,
        ece=measured.ece if measured else None,
        ece_null=measured.ece_null if measured else None,
        calibration_harmful=bundle.calibration.harms[harm].n_harmful,
    )


def _overall(evaluation: Evaluation, harm: str) -> Measurement | None:
    """The row over the whole test split by human labels, which is the one to judge a harm by."""
    return next(
        (row for row in evaluation.measurements if (row.harm, row.part, row.labels) == (harm, "all", "human")), None
    )
