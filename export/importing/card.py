"""What is known of an imported model in, `CARD.md` out; what nobody measured is said to be unknown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from export.importing.imported import Imported
from export.importing.labels import HARMLESS, ClassMap
from export.reporting import card_figures
from stream.bundle import ModelInput
from stream.bundle.calibration import CalibrationFile
from stream.bundle.evaluation import Evaluation
from stream.bundle.manifest import Modality

__all__ = ["about_classes", "write_card"]

_CARD = """\
# {title}

{about}

## Use

{use}

## Limits

- It was trained elsewhere. On what, by whose labels and for whom is for the checkpoint's own card to say, and so is the
  licence of its weights; nothing of that was checked when it was imported.
- What its classes mean is what their names and the label map say. Where a class means something else to those who
  labelled it than to your policy, every figure is about theirs.
{limits}
## Quality

{quality}
{fairness}## Calibration and thresholds

{calibration}

## From the checkpoint to serving

Largest difference of a logit between the checkpoint's own module and the file that is served: {parity:.2g}, over
{parity_texts:,} inputs. The weights it was made from:

{weights}
"""

_UNMEASURED = """\
**Not measured.** No labelled {modality}s were given. Measure it on your own with `fairway export evaluate` before you
act on what it says, and whom it is unfair to above all: {untried} any group of people was tried on it.
"""

_MEASURED = """\
On {test_rows} labelled {modality}s that were not calibrated on, human labels only. It is not known whether the
checkpoint was trained on some of them, which would flatter it. Average precision depends on the prevalence, so compare
it with nothing that has another one. In brackets, the 95 % bootstrap interval. A calibration error (ECE, 15 bins) is to
be read beside the one that a perfect model would have at this n. `-`: not published, for fewer than 30 positives or
negatives, or 200 {modality}s. The last column is the mean probability given to harmless {modality}s.

{overall}
{more}
### By {by}

{parts}

### Where a rule gave the labels (silver)

Shown apart, since agreeing with a rule is not being right.

{silver}
"""

_WIDTH = 120


@dataclass(frozen=True, slots=True)
class _Words:
    """What is said of a model of texts in other words than of one of images."""

    untried: str
    no_groups: str
    parts: tuple[str, ...]
    """How the names of the parts begin that the card shows."""
    by: str


_WORDS: Mapping[Modality, _Words] = {
    "text": _Words(
        untried="no sentence about",
        no_groups="was not measured over identity terms: `fairway export evaluate` does that.",
        parts=("role=", "source=", "group="),
        by="role, source and group that the text is about",
    ),
    "image": _Words(
        untried="no image of",
        no_groups="is measured for the `groups` that labelled images name, and for no others.",
        parts=("role=", "source=", "group=", "size=", "format="),
        by="role, source, group that the image is about, size and format",
    ),
}

_SCORES = {
    "softmax": "One class of all (softmax): a harm's probability is the sum over its classes.",
    "sigmoid": "Each class by itself (sigmoid): a harm with several classes has the largest.",
}


def about_classes(architecture: str, parameters: int, classes: ClassMap, *, source: str | None, reads: str = "") -> str:
    """What is said of a classifier of any kind: how large it is, what its classes mean, where its map says it is from.

    `reads` is what else is to be known of what it looks at.
    """
    size = f"A {architecture} of {parameters / 1e6:,.1f} million parameters, trained elsewhere, converted as it is, in"
    lines = [
        _filled(f"{size} float32. {_SCORES[classes.scores]} {reads}"),
        "",
        "| class of the checkpoint | means |",
        "|---|---|",
        *(f"| {_cell(name)} | {_cell(meaning)} |" for name, meaning in classes.meanings),
        *([] if source is None else ["", f"Where it is from: {source}"]),
    ]
    return "\n".join(lines)


def write_card(imported: Imported, calibration: CalibrationFile, evaluation: Evaluation, figures: Iterable[str]) -> str:
    """Write the model card in Markdown; `figures` are paths of pictures in the bundle."""
    is_measured = bool(evaluation.split_rows["test"])
    modality = imported.input.modality
    words = _WORDS[modality]
    return _CARD.format(
        title=f"{imported.name} {imported.version}",
        about=imported.about,
        use=_filled(
            f"Scores {_listed(imported.harms)}, in content of the roles {', '.join(imported.roles)}. It feeds a policy "
            "that acts, abstains or asks a person; it is not made to judge people, or to replace reviewers. "
            + _reads(imported.input)
        ),
        limits=f"- Whom it is unfair to {words.no_groups}\n"
        if is_measured and evaluation.counterfactual is None
        else "",
        quality=_quality(evaluation, figures, modality)
        if is_measured
        else _UNMEASURED.format(modality=modality, untried=words.untried),
        fairness=card_figures.fairness(evaluation.counterfactual),
        calibration=_calibration(calibration, evaluation, modality),
        parity=imported.parity.max_abs_logit,
        parity_texts=imported.parity.texts,
        weights="\n".join(f"- `{name}`: sha256 {digest}" for name, digest in imported.weights.items()),
    )


def _reads(given: ModelInput) -> str:
    if given.kind == "text":
        return (
            f"Texts are read in windows of {given.max_tokens} tokens, {given.stride} of them shared, at most "
            f"{given.max_windows} windows; a text has the largest logit of its windows."
        )
    if given.kind == "policy":
        return f"Texts are read within questions of {given.max_tokens} tokens; the middle of a longer one is cut."
    return f"Images are read in {given.width} x {given.height} pixels."


def _quality(evaluation: Evaluation, figures: Iterable[str], modality: Modality) -> str:
    words = _WORDS[modality]
    human = [row for row in evaluation.measurements if row.labels == "human"]
    parts = (row for row in human if row.part.startswith(words.parts) and card_figures.published(row))
    silver = (row for row in evaluation.measurements if row.labels == "silver" and card_figures.published(row))
    return _MEASURED.format(
        modality=modality,
        by=words.by,
        test_rows=f"{evaluation.split_rows['test']:,}",
        overall=card_figures.table((row for row in human if row.part == "all"), first="harm"),
        more=card_figures.at_thresholds(evaluation, figures),
        parts=card_figures.table(parts, first="harm and part"),
        silver=card_figures.table(silver, first="harm and part"),
    )


def _calibration(calibration: CalibrationFile, evaluation: Evaluation, modality: Modality) -> str:
    fitted = [harm for harm, known in calibration.harms.items() if known.is_fitted]
    others = [harm for harm in calibration.harms if harm not in fitted]
    said = []
    if fitted:
        said.append(
            "Platt scaling with smoothed targets, per harm, on the human labels of "
            f"{evaluation.split_rows['calibration']:,} {modality}s, for {_listed(fitted)}. A threshold derived from "
            f"these histograms promises a rate of errors as people see them, for content like those {modality}s."
        )
    if others:
        said.append(
            f"**Not calibrated: {_listed(others)}.** No labels, or too few, were given. The probability is the model's "
            "own word: nothing says that of content given 0.3 three in ten is harmful. A policy that states a risk for "
            "it is refused, `not enough data`; thresholds given as numbers are taken."
        )
    if fitted and others and evaluation.counterfactual:
        said.append(f"What is said above of sentences about groups of people is said of {_listed(fitted)} alone.")
    return "\n\n".join(map(_filled, said))


def _listed(harms: Iterable[str]) -> str:
    return ", ".join(f"`{harm}`" for harm in harms)


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False, break_long_words=False)


def _cell(text: str) -> str:
    return text if text == HARMLESS else f"`{text.replace('|', '/').replace('`', '')}`"
