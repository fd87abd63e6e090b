"""A bundle and labelled data in, a folder to read out: one page, its pictures, and every table as JSON.

What is written depends on bundle, policy and data alone: no time, no path, no content and no id of a text or image.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from export.counterfactual import load_templates, measure_counterfactual
from export.data.labelled import Unusable
from export.errors import ExportError
from export.measuring.curves import HarmCurves, curves, kinds_of
from export.measuring.evaluate import measure, measure_macro
from export.measuring.scored import Judge, ask, score
from export.progress import Say
from export.reporting.figures import draw_precision_recall, draw_reliability, draw_terms
from export.reporting.page import gap_table, html_page, html_table, macro_table, measurement_table, picture, section
from stream.bundle.evaluation import ANY_HARM, Counterfactual, Macro, Measurement
from stream.bundle.manifest import Modality

__all__ = ["Report", "evaluate_bundle", "write_files", "write_report"]

_SHOWN_LINES = 50  # unusable lines on the page; the table has up to a thousand

_KINDS = {
    "role": "By role",
    "source": "By source",
    "group": "By group that the {modality} is about",
    "locale": "By locale",
    "length": "By length in characters",
    "size": "By size",
    "format": "By format of the file",
}

_NOTES = (
    "Average precision depends on the prevalence beside it: compare it with nothing that has another one. In brackets, "
    "the 95 % interval; copies of {one} count as one. Best F1 is chosen with these labels, F1 at threshold is not. "
    "(!) marks a calibration error above what chance makes of a perfect model. any_harm is scored by the largest "
    "probability, which is not calibrated as the probability of any harm."
)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured about one bundle on some labelled texts."""

    bundle: str
    digest: str
    policy: str
    part: str | None
    modality: Modality
    items: int
    """Texts, or images, that were measured."""
    unusable: Unusable
    labels_unknown: tuple[str, ...]
    act_at: Mapping[str, float]
    measurements: tuple[Measurement, ...]
    macro: tuple[Macro, ...]
    curves: tuple[HarmCurves, ...]
    counterfactual: Counterfactual | None
    """None for a model of images, which reads no sentences."""


def evaluate_bundle(judge: Judge, paths: Sequence[Path], *, part: str | None, say: Say) -> Report:
    """Score the labelled rows and measure. Raises `ExportError` where none can be used."""
    scored = score([judge], paths, part=part, say=say)
    say(f"measuring {len(scored.ids):,} {scored.modality}s; {scored.unusable.count:,} lines could not be used")
    (items,) = scored.items
    measurements = measure(items, harms=judge.harms, with_small=True)
    macro = measure_macro(items, harms=judge.harms)
    return Report(
        bundle=judge.name,
        digest=judge.digest,
        policy=f"{judge.policy.name} {judge.policy.version}, {judge.policy.digest}",
        part=part,
        modality=scored.modality,
        items=len(scored.ids),
        unusable=scored.unusable,
        labels_unknown=scored.labels_unknown,
        act_at=judge.act_at,
        measurements=measurements,
        macro=macro,
        curves=curves(items, harms=judge.harms),
        counterfactual=_ask_about_people(judge, say),
    )


def _ask_about_people(judge: Judge, say: Say) -> Counterfactual | None:
    if judge.modality != "text":
        return None
    say("asking about people in sentences that differ in nothing else")
    return measure_counterfactual(partial(ask, judge), load_templates())


def write_report(folder: Path, report: Report) -> None:
    """Write the report; files of an older one are replaced. Raises `ExportError` where the folder cannot be written."""
    figures = _draw(report)
    write_files(
        folder,
        {
            "index.html": _page(report, figures).encode(),
            "evaluation.json": _json(_tables(report)),
            "curves.json": _json([one.as_dict() for one in report.curves]),
            "unusable.json": _json(asdict(report.unusable)),
            **{f"figures/{name}": content for name, content in figures.items()},
        },
    )


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write these files below `folder`. Raises `ExportError`."""
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise ExportError(f"cannot write {error.filename}: {error.strerror}; give another --report") from None


def _tables(report: Report) -> dict[str, object]:
    return {
        "bundle": report.bundle,
        "digest": report.digest,
        "policy": report.policy,
        "split": report.part,
        "modality": report.modality,
        "items": report.items,
        "unusable_lines": report.unusable.count,
        "labels_unknown": list(report.labels_unknown),
        "act_at": dict(report.act_at),
        "measurements": _plain(report.measurements),
        "macro": _plain(report.macro),
        "counterfactual": report.counterfactual and report.counterfactual.model_dump(mode="json"),
    }


def _plain(rows: Iterable[BaseModel]) -> list[dict[str, object]]:
    return [row.model_dump(mode="json") for row in rows]


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _draw(report: Report) -> dict[str, bytes]:
    figures = {}
    for kind in ("all", *kinds_of(report.curves)):
        ending = "" if kind == "all" else f"_by_{kind}"
        figures[f"precision_recall{ending}.svg"] = draw_precision_recall(report.curves, kind=kind)
        figures[f"reliability{ending}.svg"] = draw_reliability(report.curves, kind=kind)
    if report.counterfactual is not None:
        figures["identity_terms.svg"] = draw_terms(report.counterfactual)
    return figures


def _page(report: Report, figures: Mapping[str, bytes]) -> str:
    human = [row for row in report.measurements if row.labels == "human"]
    silver = [row for row in report.measurements if row.labels == "silver"]
    notes = _NOTES.format(one="an image" if report.modality == "image" else "a text")
    body = [
        section("What was measured", _facts(report)),
        section("Quality", measurement_table(row for row in human if row.part == "all"), text=notes),
        section("Means over harms", macro_table(report.macro)),
        section("Precision and recall", picture(figures["precision_recall.svg"], "precision over recall, by harm")),
        section("Reliability", picture(figures["reliability.svg"], "share harmful over mean probability, by harm")),
        _unasked()
        if report.counterfactual is None
        else _fairness(report.counterfactual, figures["identity_terms.svg"]),
        "<h2>In parts</h2>",
        *(_part(kind, title.format(modality=report.modality), human, figures) for kind, title in _KINDS.items()),
        section("Labelled by rules, keywords or other models", measurement_table(silver), folded=True),
        _unusable(report.unusable),
    ]
    return html_page(f"Evaluation of {report.bundle}", body)


def _facts(report: Report) -> str:
    facts = [
        ("bundle", f"{report.bundle}, {report.digest}"),
        ("policy", report.policy),
        (f"{report.modality}s", f"{report.items:,}" + (f", those of the split {report.part}" if report.part else "")),
        ("lines that could not be used", f"{report.unusable.count:,}"),
        ("harm taken for found at", ", ".join(f"{harm} {at:.3f}" for harm, at in report.act_at.items())),
    ]
    if report.labels_unknown:
        facts.append(("labels that the bundle has no harm for", ", ".join(report.labels_unknown)))
    return html_table(("", ""), facts)


def _unasked() -> str:
    return section(
        "Whom an image shows",
        text="No images were tried that differ in nothing but the people in them, as sentences are for models of text. "
        "The groups that the labelled images name are among the parts below.",
    )


def _fairness(measured: Counterfactual, svg: bytes) -> str:
    dialect = measured.dialect
    return section(
        "Whom a sentence is about",
        gap_table(measured),
        html_table(
            ("dialect pairs", "acted on, AAE", "acted on, SAE", "difference", "difference of mean score"),
            [
                (
                    str(dialect.pairs),
                    f"{dialect.aae_false_positive_rate.value:.3f}",
                    f"{dialect.sae_false_positive_rate.value:.3f}",
                    _signed(
                        dialect.false_positive_difference,
                        dialect.false_positive_difference_low,
                        dialect.false_positive_difference_high,
                    ),
                    _signed(dialect.mean_difference, dialect.mean_difference_low, dialect.mean_difference_high),
                )
            ],
        ),
        picture(svg, "share of harmless sentences acted on and not allowed, by identity term"),
        text=(
            f"{measured.harmless_templates} harmless and {measured.harmful_templates} harmful sentences, each about "
            f"{len(measured.terms)} groups of people. A gap is the largest rate minus the smallest; chance is what it "
            "would be if within each sentence the results were dealt out to the groups at random. "
            f"Templates {measured.templates}."
        ),
    )


def _signed(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _part(kind: str, title: str, rows: Sequence[Measurement], figures: Mapping[str, bytes]) -> str:
    """Any harm first, then every harm, by name; pictures where two or more names have enough; nothing without rows."""
    inside = [row for row in rows if row.part.startswith(f"{kind}=")]
    if not inside:
        return ""
    ordered = [row for row in inside if row.harm == ANY_HARM] + [row for row in inside if row.harm != ANY_HARM]
    drawn = [name for name in (f"precision_recall_by_{kind}.svg", f"reliability_by_{kind}.svg") if name in figures]
    pictures = [picture(figures[name], f"{name.partition('_by_')[0].replace('_', ' ')} by {kind}") for name in drawn]
    return section(title, measurement_table(ordered, first="harm and name"), *pictures, folded=True)


def _unusable(unusable: Unusable) -> str:
    if not unusable.count:
        return ""
    return section(
        "Lines that could not be used",
        html_table(
            ("file", "line", "why"), ((bad.file, str(bad.line), bad.why) for bad in unusable.named[:_SHOWN_LINES])
        ),
        text=f"{unusable.count:,} in all; the first of them:",
    )
