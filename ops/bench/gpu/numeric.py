"""How far the probabilities of each precision are from the CPU's, and how many decisions that turns.

Two references on the CPU: the artefact's weights in float32, so that only arithmetic differs (and the weights, for
bfloat16), and the artefact that ships for the CPU, on which the calibration was fitted and which is rounded to 8 bits.
Texts are made up, so that few are near a threshold: a share of decisions here says that nothing is broken, not what
becomes of anybody's content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ops.bench.gpu.forms import SHIPPED, WHOLE, Form
from ops.bench.gpu.rows import Reason, Row, attempt
from ops.bench.gpu.workload import decoder_of, records_of, scorer_of
from ops.bench.texts import texts
from stream.bundle import Bundle
from stream.pipeline import Moderated, Pipeline
from stream.policy import compile_policy
from stream.scoring.golden import AT_ANY_TIME
from stream.scoring.session import Provider
from stream.settings import Settings
from stream.uncertainty import Calibrator

__all__ = ["Differences", "compare_decisions", "compare_forms"]


@dataclass(frozen=True, slots=True)
class Differences:
    """Between two ways of running a model, over the same texts."""

    probability: float
    """The largest difference of any harm's."""
    turned: float
    """Share of texts for which any harm is selected otherwise: harmful, harmless or undecided."""


def compare_forms(bundle: Bundle, forms: Sequence[Form], settings: Settings, provider: Provider) -> Iterator[Row]:
    """Each form on `provider` against both references on the CPU."""
    shape = f"{settings.slice_max_records:,} texts"
    whole = next(form for form in forms if form.precision == WHOLE)
    for_cpu = Form(SHIPPED, bundle.read(bundle.manifest.artefacts["cpu"]))
    references = {
        name: attempt(_moderate, bundle, form, settings, "cpu")
        for name, form in (("float32 on the CPU", whole), ("the CPU artefact", for_cpu))
    }
    for form in forms:
        found = attempt(_moderate, bundle, form, settings, provider)
        for name, reference in references.items():
            yield from _rows(reference, found, against=name, precision=form.precision, shape=shape)


def _rows(
    reference: Moderated | Reason, found: Moderated | Reason, *, against: str, precision: str, shape: str
) -> Iterator[Row]:
    what = f"probabilities, to {against}"
    if isinstance(reference, Reason) or isinstance(found, Reason):
        note = " ".join(refused.text for refused in (reference, found) if isinstance(refused, Reason))
        yield Row(what, precision, shape, note=note)
        return
    differences = compare_decisions(reference, found)
    yield Row(what, precision, shape, differences.probability, unit="difference", note="the largest")
    yield Row(f"decisions, to {against}", precision, shape, differences.turned, unit="share", note="turned")


def _moderate(bundle: Bundle, form: Form, settings: Settings, provider: Provider) -> Moderated:
    """What becomes of made-up texts by the policy of the settings, through the service's own pipeline."""
    session = form.session(provider, harms=len(bundle.manifest.harms))
    scorer = scorer_of(bundle, session, max_batch_tokens=settings.max_batch_tokens)
    harms = [bundle.calibration.harms[harm] for harm in scorer.harms]
    calibrator = Calibrator(np.array([harm.a for harm in harms]), np.array([harm.b for harm in harms]))
    policy = compile_policy(settings.policy, bundle.calibration.harms)
    pipeline = Pipeline(decoder_of(settings), scorer, calibrator, policy)
    records = records_of(texts(settings.slice_max_records))
    return pipeline.run(records, topic="bench", partition=0, now=AT_ANY_TIME)


def compare_decisions(reference: Moderated, other: Moderated) -> Differences:
    """Compare what became of the same texts."""
    apart = np.abs(reference.probabilities - other.probabilities)
    turned = (reference.selections != other.selections).any(axis=1)
    return Differences(float(apart.max()), float(turned.mean()))
