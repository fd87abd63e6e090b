"""A converted model in, a bundle out: calibrated and evaluated on labelled texts where there are some, else as it is.

What was not measured is not stated: without labelled texts, or for a harm that has none, the probabilities are the
model's own word, the calibration has nothing behind it, and a policy that states a risk is told that there are not
enough data to derive a threshold from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from export.bundling.pack import CALIBRATION, CARD, EVALUATION, TOKENIZER, manifest_of, pack
from export.counterfactual import Answers, Sentence, load_templates, measure_counterfactual
from export.data.splits import SplitName
from export.errors import ExportError
from export.importing.card import write_card
from export.importing.imported import Imported
from export.importing.scoring import ScoredRows, score_rows, score_sentences
from export.measuring.calibrate import calibrate_known, calibrator_of, uncalibrated
from export.measuring.curves import curves
from export.measuring.evaluate import measure, measure_macro
from export.measuring.thresholds import Thresholds, default_thresholds
from export.progress import Say
from export.reporting.figures import draw_all
from stream.bundle import Bundle, Manifest
from stream.bundle.calibration import CalibrationFile
from stream.bundle.evaluation import Conversion, Evaluation
from stream.bundle.load import assemble
from stream.scoring import Scorer
from stream.scoring.opening import open_scorer

__all__ = ["finish"]

_CALIBRATED_ON = "calibration: 85 % of the labelled {modality}s, by digest; human labels only"

_BATCH_TOKENS = 16_384  # the service's default


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is known of a model, and pictures of it."""

    calibration: CalibrationFile
    evaluation: Evaluation
    figures: dict[str, bytes]


def finish(
    imported: Imported,
    out: Path,
    *,
    data: Sequence[Path],
    created_at: datetime,
    say: Say,
) -> Bundle:
    """Write the bundle `out` of a converted model, unsigned; `data` are files, or folders of files, of labelled rows.

    Raises `ExportError` where the data calibrate no harm at all, the model disagrees with them, or they are texts and
    it reads images, or the other way round.
    """
    unknown = _nothing_known(imported, created_at)
    measured = unknown
    if data:
        say("opening the model as a worker does")
        scorer = open_scorer(_provisional(imported, unknown), provider="cpu", max_batch_tokens=_BATCH_TOKENS)
        modality = imported.input.modality
        scored = score_rows(scorer, data, name=imported.name, modality=modality, roles=imported.roles, say=say)
        measured = _measure(imported, scorer, scored, created_at, say=say)
    else:
        say("no labelled data: the bundle is not calibrated, and no risk can be promised of it")
    card = write_card(imported, measured.calibration, measured.evaluation, measured.figures)
    files = _files(imported, measured) | {CARD: card.encode()}
    manifest = _manifest(imported, files, created_at=created_at)
    say("packing, and scoring the golden batch")
    return pack(out, manifest, files=files)


def _nothing_known(imported: Imported, created_at: datetime) -> _Measured:
    evaluation = Evaluation(
        created_at=created_at,
        split_rows=_split_rows(calibration=0, test=0),
        measurements=(),
        conversion=_conversion(imported),
    )
    return _Measured(uncalibrated(imported.harms, created_at=created_at), evaluation, {})


def _split_rows(*, calibration: int, test: int) -> dict[SplitName, int]:
    return {"train": 0, "validation": 0, "calibration": calibration, "test": test}


def _conversion(imported: Imported) -> Conversion:
    """No weights were rounded, so nothing changed but the order in which numbers are added up."""
    parity = imported.parity
    return Conversion(parity_max_abs_logit=parity.max_abs_logit, parity_texts=parity.texts, average_precision_change={})


def _provisional(imported: Imported, unknown: _Measured) -> Bundle:
    """The bundle as it would be without data, in memory: what a scorer is opened from is always a bundle."""
    files = _files(imported, unknown) | {CARD: b""}
    manifest = _manifest(imported, files, created_at=unknown.evaluation.created_at)
    return assemble(Path(imported.name), manifest.model_dump_json().encode(), files, signer=None)


def _measure(imported: Imported, scorer: Scorer, scored: ScoredRows, created_at: datetime, *, say: Say) -> _Measured:
    """Calibrate on the rows that are not for testing, and evaluate on those that are."""
    harms, modality = imported.harms, imported.input.modality
    fitting, testing = np.flatnonzero(~scored.is_test), np.flatnonzero(scored.is_test)
    if not len(testing):
        raise ExportError(f"none of the {len(fitting)} labelled {modality}s is in the test split: give more data")
    calibration = calibrate_known(
        scored.logits[fitting],
        scored.labels.human_labels[fitting],
        harms=harms,
        split=_CALIBRATED_ON.format(modality=modality),
        created_at=created_at,
    )
    calibrator = calibrator_of(calibration, harms)
    thresholds = default_thresholds(calibration, harms)
    probabilities = calibrator.apply(scored.logits[testing])
    items = scored.labels.take(testing).items(probabilities, probabilities >= thresholds.act_at, harms=harms)

    # A harm that is not calibrated would leave no sentence allowed, and hide what the others do.
    fitted = [i for i, harm in enumerate(harms) if calibration.harms[harm].is_fitted]
    cuts = Thresholds(thresholds.act_at[fitted], thresholds.allow_below[fitted])

    def answer(sentences: Sequence[Sentence]) -> Answers:
        return cuts.answers(calibrator.apply(score_sentences(scorer, sentences))[:, fitted])

    say(f"evaluating on {len(testing):,} {modality}s")
    # A classifier reads these thousands of sentences in minutes, a language model in hours; one of images reads none.
    counterfactual = measure_counterfactual(answer, load_templates()) if imported.input.kind == "text" else None
    evaluation = Evaluation(
        created_at=created_at,
        split_rows=_split_rows(calibration=len(fitting), test=len(testing)),
        measurements=measure(items, harms=harms),
        conversion=_conversion(imported),
        macro=measure_macro(items, harms=harms),
        act_at=dict(zip(harms, thresholds.act_at.tolist(), strict=True)),
        counterfactual=counterfactual,
    )
    return _Measured(calibration, evaluation, draw_all(curves(items, harms=harms), counterfactual))


def _files(imported: Imported, measured: _Measured) -> dict[str, bytes]:
    """Every file of the bundle but the card."""
    tokenizer = {} if imported.tokenizer is None else {TOKENIZER: imported.tokenizer}
    return {
        **dict(imported.artefacts.values()),
        **tokenizer,
        **imported.files,
        **measured.figures,
        CALIBRATION: measured.calibration.model_dump_json().encode(),
        EVALUATION: measured.evaluation.model_dump_json().encode(),
    }


def _manifest(imported: Imported, files: dict[str, bytes], *, created_at: datetime) -> Manifest:
    return manifest_of(
        files,
        name=imported.name,
        version=imported.version,
        created_at=created_at,
        harms=imported.harms,
        roles=imported.roles,
        model_input=imported.input,
        artefacts={provider: file for provider, (file, _) in imported.artefacts.items()},
    )
