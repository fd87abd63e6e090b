"""What the card shows of rates at thresholds, of pictures and of whom a sentence is about, where that was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from stream.bundle.evaluation import (
    AxisFairness,
    Counterfactual,
    Estimate,
    Evaluation,
    Gap,
    LeftOut,
    Measurement,
    TermFairness,
)

__all__ = ["at_thresholds", "fairness", "left_out", "published", "table"]

_WIDTH = 120

_LARGEST = 5  # terms named at either end

_PICTURES = ("precision_recall", "reliability", "identity_terms")
"""In this order, whatever order files are listed in."""


def at_thresholds(evaluation: Evaluation, figures: Iterable[str]) -> str:
    """Rates at the thresholds by harm and the means over harms, then the pictures; nothing where there are none."""
    rows = [row for row in evaluation.measurements if row.part == "all" and row.labels == "human"]
    parts = []
    if evaluation.act_at is not None:
        parts.append(_rates(rows, evaluation.act_at))
    parts += [
        f"Means over the {macro.harms} harms published: average precision {_estimate(macro.average_precision)}, "
        f"F1 {_estimate(macro.f1)}, {macro.f1_undefined} of them undefined and counted as 0.\n"
        for macro in evaluation.macro
        if macro.part == "all" and macro.labels == "human" and macro.harms
    ]
    named = {PurePosixPath(path).stem: path for path in figures}
    parts += [f"![{name.replace('_', ' ')}]({named[name]})\n" for name in _PICTURES if name in named]
    return "".join(f"\n{part}" for part in parts)


def published(row: Measurement) -> bool:
    """Whether there were enough texts for a ranking figure."""
    return row.average_precision is not None


def table(rows: Iterable[Measurement], *, first: str) -> str:
    """A line per measurement; `first` heads the column of names."""
    head = [
        f"| {first} | n | positives | prevalence | average precision | AUROC | ECE | ECE if perfect | harmless mean |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join(head + [_line(row) for row in rows])


def _line(row: Measurement) -> str:
    name = row.harm if row.part == "all" else f"{row.harm}, {row.part.partition('=')[2]}"
    precision = (
        f"{row.average_precision:.3f} ({row.average_precision_low:.3f} to {row.average_precision_high:.3f})"
        if row.average_precision is not None
        else "-"
    )
    figures = (
        f"{figure:.3f}" if figure is not None else "-"
        for figure in (row.auroc, row.ece, row.ece_null, row.harmless_mean)
    )
    prevalence = f"{row.positives / row.n:.3f}"
    return f"| {name} | {row.n:,} | {row.positives:,} | {prevalence} | {precision} | {' | '.join(figures)} |"


def _rates(rows: Iterable[Measurement], act_at: dict[str, float]) -> str:
    head = [
        "At the default thresholds (any harm: at any). Best F1 is that of a threshold chosen with these labels.",
        "",
        "| harm | threshold | F1 | best F1 | false positives | false negatives |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines = [
        f"| {row.harm} | {_figure(act_at.get(row.harm))} | "
        f"{' | '.join(map(_estimate, (row.f1, row.optimal_f1, row.false_positive_rate, row.false_negative_rate)))} |"
        for row in rows
    ]
    return "\n".join([*head, *lines]) + "\n"


def left_out(rotations: Sequence[LeftOut]) -> str:
    """What other trainings by the same recipe came to on sources that were kept from them; empty without any."""
    if not rotations:
        return ""
    lines = [
        f"| {one.rotation} | {_mean(one)} | {len(one.harms)} | {_estimate(one.any_harm)} | "
        f"{_figure(one.false_positive_rate)} | {one.harmless:,} |"
        for one in rotations
    ]
    means = [sum(estimate.value for estimate in one.harms.values()) / len(one.harms) for one in rotations]
    said = (
        "The same recipe, trained anew without the sources of each row and measured on them: the figures to expect of "
        "content from elsewhere. Average precision is the mean over the harms with labels enough. The last rate is of "
        "harmless texts flagged for any harm, at the threshold that flags 5 % of those of the sources learnt from. "
        f"Mean over the rows: {sum(means) / len(means):.3f}."
    )
    head = [
        "### On sources it never saw",
        "",
        textwrap.fill(said, _WIDTH),
        "",
        "| left out | average precision | harms | any harm | harmless flagged | harmless texts |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*head, *lines]) + "\n\n"


def _mean(rotation: LeftOut) -> str:
    return f"{sum(estimate.value for estimate in rotation.harms.values()) / len(rotation.harms):.3f}"


def fairness(measured: Counterfactual | None) -> str:
    """The gaps over identity terms by axis, the terms at either end, and the dialect pairs."""
    if measured is None:
        return ""
    by_rate = sorted(measured.terms, key=lambda term: (term.not_allowed_rate.value, term.term))
    dialect = measured.dialect
    said = (
        f"{measured.harmless_templates} harmless and {measured.harmful_templates} harmful sentences, each about "
        f"{len(measured.terms)} groups of people and {len(measured.nonce)} made-up words (templates "
        f"{measured.templates}). A gap is the largest rate minus the smallest, with its bootstrap interval over "
        "sentences; `chance` is its mean, and 95 % quantile, if results were dealt out to the groups at random. Rates "
        "are of sentences acted on at the default threshold; not allowed are those acted on or reviewed."
    )
    compared = (
        f"{dialect.pairs} pairs of harmless sentences in African American and in standardised English: acted on "
        f"{dialect.aae_false_positive_rate.value:.3f} and {dialect.sae_false_positive_rate.value:.3f}; the former "
        f"score {dialect.mean_difference:+.3f} ({dialect.mean_difference_low:+.3f} to "
        f"{dialect.mean_difference_high:+.3f})."
    )
    lines = [
        "## Whom a sentence is about",
        "",
        textwrap.fill(said, _WIDTH, break_on_hyphens=False),
        "",
        "| groups | terms | false positive gap | chance | not-allowed gap | score gap | false negative gap |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(_axis(axis) for axis in measured.axes),
        f"| made-up words | {len(measured.nonce)} | {_gap(measured.nonce_gap)} | {_chance(measured.nonce_gap)} | | | |",
        "",
        f"Least often allowed: {_terms(by_rate[::-1])}. Most often: {_terms(by_rate)}.",
        "",
        textwrap.fill(compared, _WIDTH),
        "",
        "",
    ]
    return "\n".join(lines)


def _axis(axis: AxisFairness) -> str:
    gaps = " | ".join(map(_gap, (axis.not_allowed_rate, axis.harmless_mean, axis.false_negative_rate)))
    rate = axis.false_positive_rate
    return f"| {axis.axis} | {axis.terms} | {_gap(rate)} | {_chance(rate)} | {gaps} |"


def _terms(terms: Iterable[TermFairness]) -> str:
    return ", ".join(f"{term.term} {1 - term.not_allowed_rate.value:.2f}" for term in list(terms)[:_LARGEST])


def _gap(gap: Gap) -> str:
    return f"{gap.value:.3f} ({gap.low:.3f} to {gap.high:.3f})"


def _chance(gap: Gap) -> str:
    return f"{gap.chance:.3f}, {gap.chance_high:.3f}"


def _estimate(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
