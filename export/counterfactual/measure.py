"""A model to ask and the templates in, gaps over identity terms out, each beside what chance alone would make of it.

Every term stands in the same sentences, so that what differs between two terms is the term. The unit of the intervals
is the template: they say how far another author's sentences might have moved the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.counterfactual.templates import Sentence, Templates, Term
from export.errors import ExportError
from stream.bundle.evaluation import AxisFairness, Counterfactual, DialectFairness, Estimate, Gap, TermFairness
from stream.fairness.intervals import wilson

__all__ = ["MAX_GAP", "Answers", "Ask", "measure_counterfactual", "refuse_unfair"]

MAX_GAP = 0.05
"""Largest gap of false positive rates over identity terms that the gate lets pass."""

_DRAWS = 1000

_SMALLEST = 1e-6  # probabilities are millionths; 0 has no logarithm

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model with its thresholds says of n sentences; columns are (n,)."""

    probability: Floats
    """The largest probability of any harm."""
    flagged: Flags
    """Whether any harm reaches the threshold at which it is acted on."""
    not_allowed: Flags
    """Whether any harm keeps the sentence from being allowed straight away."""


Ask = Callable[[Sequence[Sentence]], Answers]


def measure_counterfactual(ask: Ask, templates: Templates) -> Counterfactual:
    """Ask a model about every template and term, and compare. Deterministic: resamples are drawn from a fixed seed."""
    harmless = _grid(ask, templates, harmful=False)
    harmful = _grid(ask, templates, harmful=True)
    identity = len(templates.terms)
    neutrality = _neutrality(harmless.probability, identity)
    terms = [*templates.terms, *templates.nonce]
    rows = [_term(term, harmless, harmful, j, float(neutrality[j])) for j, term in enumerate(terms)]
    axes = {"all": np.arange(identity)}
    axes |= {
        axis: np.array([j for j, term in enumerate(templates.terms) if term.axis == axis])
        for axis in dict.fromkeys(term.axis for term in templates.terms)
    }
    return Counterfactual(
        templates=f"{templates.version} {templates.digest}",
        harmless_templates=len(templates.harmless),
        harmful_templates=len(templates.harmful),
        axes=tuple(_axis(axis, harmless, harmful, columns) for axis, columns in axes.items()),
        terms=tuple(rows[:identity]),
        nonce=tuple(rows[identity:]),
        nonce_gap=_gap(harmless.flagged[:, identity:]),
        dialect=_dialect(ask, templates),
    )


def refuse_unfair(measured: Counterfactual, *, max_gap: float = MAX_GAP) -> None:
    """Raise `ExportError` where false positive rates over identity terms differ by more than `max_gap`."""
    if measured.gap.value > max_gap:
        by_rate = sorted(measured.terms, key=lambda term: term.false_positive_rate.value)
        least, most = by_rate[0], by_rate[-1]
        raise ExportError(
            f"harmless sentences about {most.term} are acted on {100 * measured.gap.value:.1f} points more often than "
            f"the same about {least.term}, {100 * max_gap:g} are allowed: train on more harmless text about the former"
        )


@dataclass(frozen=True, slots=True)
class _Grid:
    """Answers by template (rows, t) and term (columns, identity terms first, made-up words last)."""

    probability: Floats
    flagged: NDArray[np.float64]
    not_allowed: NDArray[np.float64]


def _grid(ask: Ask, templates: Templates, *, harmful: bool) -> _Grid:
    rows = templates.harmful if harmful else templates.harmless
    terms = [*templates.terms, *templates.nonce]
    answers = ask(list(templates.sentences(rows, terms)))
    shape = (len(rows), len(terms))
    return _Grid(
        answers.probability.reshape(shape),
        answers.flagged.reshape(shape).astype(np.float64),
        answers.not_allowed.reshape(shape).astype(np.float64),
    )


def _term(term: Term, harmless: _Grid, harmful: _Grid, j: int, neutrality: float) -> TermFairness:
    return TermFairness(
        term=term.term,
        axis=term.axis,
        false_positive_rate=_share(harmless.flagged[:, j]),
        not_allowed_rate=_share(harmless.not_allowed[:, j]),
        false_negative_rate=_share(1 - harmful.flagged[:, j]),
        harmless_mean=float(harmless.probability[:, j].mean()),
        neutrality=neutrality,
    )


def _axis(axis: str, harmless: _Grid, harmful: _Grid, columns: NDArray[np.int64]) -> AxisFairness:
    return AxisFairness(
        axis=axis,
        terms=len(columns),
        false_positive_rate=_gap(harmless.flagged[:, columns]),
        not_allowed_rate=_gap(harmless.not_allowed[:, columns]),
        harmless_mean=_gap(harmless.probability[:, columns]),
        false_negative_rate=_gap(1 - harmful.flagged[:, columns]),
    )


def _gap(values: Floats) -> Gap:
    """The gap of the column means of (t, terms) values in [0, 1]."""
    generator = np.random.default_rng(0)
    count = len(values)
    weights = generator.multinomial(count, np.full(count, 1 / count), size=_DRAWS) / count
    low, high = np.quantile(np.ptp(weights @ values, axis=1), [0.025, 0.975])
    dealt = np.array([np.ptp(generator.permuted(values, axis=1).mean(axis=0)) for _ in range(_DRAWS)])
    return Gap(
        value=_clip(float(np.ptp(values.mean(axis=0)))),
        low=_clip(float(low)),
        high=_clip(float(high)),
        chance=_clip(float(dealt.mean())),
        chance_high=_clip(float(np.quantile(dealt, 0.95))),
    )


def _neutrality(probability: Floats, identity: int) -> Floats:
    """Per term, the share of swaps with a made-up word that change ln p by at most delta; (terms,).

    delta is the 95 % quantile of that change between two made-up words, over all templates [S27]. A made-up word is
    compared with the others only.
    """
    logs = np.log(np.maximum(probability, _SMALLEST))
    nonce = logs[:, identity:]
    changes = np.abs(logs[:, :, None] - nonce[:, None, :])
    apart = np.ones(changes.shape[1:], dtype=np.bool_)
    apart[identity:][np.eye(nonce.shape[1], dtype=np.bool_)] = False
    delta = np.quantile(changes[:, identity:][:, apart[identity:]], 0.95)
    return np.array([(changes[:, j, apart[j]] <= delta).mean() for j in range(changes.shape[1])])


def _dialect(ask: Ask, templates: Templates) -> DialectFairness:
    aae, sae = (ask([pair[side] for pair in templates.dialect]) for side in (0, 1))
    flagged = aae.flagged.astype(np.float64) - sae.flagged
    probability = aae.probability - sae.probability
    count = len(templates.dialect)
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=_DRAWS) / count
    low, high = np.quantile(weights @ np.stack([flagged, probability], axis=1), [0.025, 0.975], axis=0)
    return DialectFairness(
        pairs=count,
        aae_false_positive_rate=_share(aae.flagged.astype(np.float64)),
        sae_false_positive_rate=_share(sae.flagged.astype(np.float64)),
        false_positive_difference=float(flagged.mean()),
        false_positive_difference_low=float(low[0]),
        false_positive_difference_high=float(high[0]),
        not_allowed_difference=float((aae.not_allowed.astype(np.float64) - sae.not_allowed).mean()),
        mean_difference=float(probability.mean()),
        mean_difference_low=float(low[1]),
        mean_difference_high=float(high[1]),
    )


def _share(hits: Floats) -> Estimate:
    interval = wilson(hits.sum(), len(hits))
    return Estimate(value=float(hits.mean()), low=_clip(float(interval.low)), high=_clip(float(interval.high)))


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
