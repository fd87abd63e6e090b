"""Tables and pictures in, one HTML page out that needs nothing else: no script, no network, every name escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from stream.bundle.evaluation import ANY_HARM, Counterfactual, Estimate, Gap, Macro, Measurement

__all__ = [
    "NOT_ENOUGH",
    "gap_table",
    "html_page",
    "html_table",
    "macro_table",
    "measurement_table",
    "picture",
    "section",
]

NOT_ENOUGH = "not enough data"

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; font-size: 13px; margin: .6rem 0 1.2rem; display: block; overflow-x: auto }}
td, th {{ padding: .15rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }}
td:first-child, th:first-child {{ text-align: left }}
img {{ max-width: 100%; background: #fff }}
summary {{ cursor: pointer; margin: .4rem 0 }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def html_page(title: str, body: Iterable[str]) -> str:
    """The page; `body` is HTML already."""
    return _PAGE.format(title=escape(title), body="\n".join(body))


def section(heading: str, *parts: str, text: str = "", folded: bool = False) -> str:
    """A heading, a paragraph and what follows, folded away where it is long."""
    said = f"<p>{escape(text)}</p>" if text else ""
    inside = said + "\n".join(parts)
    if folded:
        return f"<details><summary>{escape(heading)}</summary>{inside}</details>"
    return f"<h2>{escape(heading)}</h2>\n{inside}"


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def picture(svg: bytes, description: str) -> str:
    """A picture inside the page, apart from its other pictures and unable to run anything."""
    content = base64.b64encode(svg).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/svg+xml;base64,{content}"></p>'


def measurement_table(rows: Iterable[Measurement], *, first: str = "harm") -> str:
    """One line per measurement, n and prevalence first, an interval beside every figure."""
    header = (
        *(first, "n", "different", "harmful", "prevalence", "average precision", "AUROC", "best F1", "F1 at threshold"),
        *("false positives", "false negatives", "ECE", "ECE if perfect", "alarm above"),
    )
    return html_table(header, (_measured(row) for row in rows))


def _measured(row: Measurement) -> Sequence[str]:
    name = row.harm if row.part == "all" else f"{row.harm}, {row.part.partition('=')[2]}"
    return (
        name,
        f"{row.n:,}",
        "" if row.distinct is None else f"{row.distinct:,}",
        f"{row.positives:,}",
        _estimate(row.prevalence),
        _interval(row.average_precision, row.average_precision_low, row.average_precision_high),
        _interval(row.auroc, row.auroc_low, row.auroc_high),
        *map(_estimate, (row.optimal_f1, row.f1, row.false_positive_rate, row.false_negative_rate)),
        _calibration(row),
        *("" if figure is None else f"{figure:.4f}" for figure in (row.ece_null, row.ece_alarm)),
    )


def _calibration(row: Measurement) -> str:
    if row.harm == ANY_HARM:
        return ""
    if row.ece is None:
        return NOT_ENOUGH
    return f"{row.ece:.4f}{' (!)' if row.ece_alarm is not None and row.ece > row.ece_alarm else ''}"


def macro_table(rows: Iterable[Macro]) -> str:
    """One line per part."""
    header = ("part", "labels", "harms", "macro average precision", "macro F1 at threshold", "F1 undefined")
    return html_table(
        header,
        (
            (
                row.part,
                row.labels,
                str(row.harms),
                _estimate(row.average_precision),
                _estimate(row.f1),
                str(row.f1_undefined),
            )
            for row in rows
        ),
    )


def gap_table(measured: Counterfactual) -> str:
    """Gaps by axis, the made-up words last."""
    header = ("axis", "terms", "false positive gap", "chance", "not-allowed gap", "score gap", "false negative gap")
    rows = [
        (
            axis.axis,
            str(axis.terms),
            _gap(axis.false_positive_rate),
            _chance(axis.false_positive_rate),
            *map(_gap, (axis.not_allowed_rate, axis.harmless_mean, axis.false_negative_rate)),
        )
        for axis in measured.axes
    ]
    nonce = ("made-up words", str(len(measured.nonce)), _gap(measured.nonce_gap), _chance(measured.nonce_gap))
    return html_table(header, [*rows, (*nonce, "", "", "")])


def _gap(gap: Gap) -> str:
    return _interval(gap.value, gap.low, gap.high)


def _chance(gap: Gap) -> str:
    return f"{gap.chance:.3f}, below {gap.chance_high:.3f}"


def _estimate(estimate: Estimate | None) -> str:
    return NOT_ENOUGH if estimate is None else _interval(estimate.value, estimate.low, estimate.high)


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return NOT_ENOUGH
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
