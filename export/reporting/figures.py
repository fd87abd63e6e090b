"""Curves in, pictures out: SVG whose bytes depend on the figures alone. The one module that knows matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.measuring.curves import HarmCurves
from stream.bundle.evaluation import Counterfactual, TermFairness

__all__ = ["draw_all", "draw_precision_recall", "draw_reliability", "draw_terms"]

MAX_LINES = 8
"""Lines in one panel, those of the most texts: more colours than that nobody tells apart."""

_STYLE: dict[Any, Any] = {  # Any: matplotlib types its keys as a list of every parameter it has
    "svg.hashsalt": "fairway",  # ids of clip paths are random without one
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.fontsize": 6,
    "legend.frameon": False,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_COLUMNS = 4
_PANEL = (2.9, 2.7)  # inches


def draw_all(drawn: Sequence[HarmCurves], measured: Counterfactual | None) -> dict[str, bytes]:
    """The pictures of a bundle by file name; those of identity terms where they were measured."""
    files = {
        "figures/precision_recall.svg": draw_precision_recall(drawn),
        "figures/reliability.svg": draw_reliability(drawn),
    }
    return files if measured is None else {**files, "figures/identity_terms.svg": draw_terms(measured)}


def draw_precision_recall(drawn: Sequence[HarmCurves], *, kind: str = "all") -> bytes:
    """Precision over recall, one panel per harm, one line per part of `kind`; the dotted line is the prevalence."""

    def panel(axes: Axes, lines: Sequence[HarmCurves]) -> None:
        for one in lines:
            if one.line is None:
                continue
            # Step form: precision holds back to the recall of the threshold above.
            (line,) = axes.step(one.line.recall, one.line.precision, where="pre", linewidth=1, label=_label(one))
            axes.axhline(one.positives / one.n, color=line.get_color(), linewidth=0.6, linestyle=":")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")

    return _panels([one for one in drawn if one.line and _is_kind(one, kind)], panel)


def draw_reliability(drawn: Sequence[HarmCurves], *, kind: str = "all") -> bytes:
    """Share harmful over mean probability, one panel per harm; bars are where a perfect model's shares are [S07]."""

    def panel(axes: Axes, lines: Sequence[HarmCurves]) -> None:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.6)
        for one in lines:
            if one.bins is None:
                continue
            (line,) = axes.plot(one.bins.probability, one.bins.share, "o-", markersize=2.5, linewidth=1)
            line.set_label(_label(one))
            axes.errorbar(
                one.bins.probability,
                one.bins.probability,
                yerr=one.bins.band,
                fmt="none",
                ecolor=line.get_color(),
                alpha=0.35,
                elinewidth=3,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean probability", ylabel="share harmful")

    return _panels([one for one in drawn if one.bins and _is_kind(one, kind)], panel)


def draw_terms(measured: Counterfactual) -> bytes:
    """Per identity term, harmless sentences acted on and not allowed, made-up words last."""
    terms = [*sorted(measured.terms, key=_by_axis), *measured.nonce]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 1 + 0.15 * len(terms)), layout="constrained")
        axes = figure.subplots()
        rows = range(len(terms))
        for name, marker, rates in (
            ("acted on", "o", [term.false_positive_rate for term in terms]),
            ("not allowed straight away", "d", [term.not_allowed_rate for term in terms]),
        ):
            values = [rate.value for rate in rates]
            (line,) = axes.plot(values, rows, marker, markersize=3, label=name)
            axes.hlines(
                rows,
                [rate.low for rate in rates],
                [rate.high for rate in rates],
                color=line.get_color(),
                alpha=0.3,
                linewidth=1,
            )
        axes.set_yticks(rows, [f"{term.axis}: {term.term}" for term in terms], fontsize=6)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xlabel=f"share of {measured.harmless_templates} harmless sentences about the term")
        axes.legend(loc="lower right")
        return _svg(figure)


def _by_axis(term: TermFairness) -> tuple[str, float, str]:
    return term.axis, -term.not_allowed_rate.value, term.term


def _is_kind(one: HarmCurves, kind: str) -> bool:
    return one.part.partition("=")[0] == kind


def _label(one: HarmCurves) -> str:
    name = one.part.partition("=")[2]
    # `$` would begin a formula; a leading `_` would hide the line.
    name = name.replace("$", "S").lstrip("_")[:40]
    return f"{name}{': ' if name else ''}{one.positives:,} of {one.n:,}"


def _panels(drawn: Sequence[HarmCurves], panel: Callable[[Axes, Sequence[HarmCurves]], None]) -> bytes:
    """One panel per harm that has anything to draw; a sentence where none has."""
    harms = list(dict.fromkeys(one.harm for one in drawn))
    rows = max(1, math.ceil(len(harms) / _COLUMNS))
    columns = max(1, min(len(harms), _COLUMNS))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(columns * _PANEL[0], rows * _PANEL[1]), layout="constrained")
        if not harms:
            figure.text(0.5, 0.5, "not enough data", ha="center")
            return _svg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(harms):
                axes.set_axis_off()
                continue
            lines = [one for one in drawn if one.harm == harms[number]]
            panel(axes, sorted(sorted(lines, key=lambda one: -one.n)[:MAX_LINES], key=lambda one: one.part))
            axes.set_title(harms[number].replace("_", " ").replace("$", "S"))
            axes.legend(loc="best")
        return _svg(figure)


def _svg(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata=_NO_METADATA)
    return content.getvalue()
