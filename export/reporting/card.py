"""What was measured in, `CARD.md` out: what the model is for, how good it is, where it fails, and whom to thank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from export.data.sources import Source
from export.reporting import card_figures
from stream.bundle.evaluation import Evaluation
from stream.bundle.manifest import TextInput, TrainingSource

__all__ = ["write_card"]

_CARD = """\
# {title}

{about}

## Use

Scores English text (prompts, generated output, posts) for six harms. It feeds a policy that acts, abstains or asks a
person; it is not made to judge people, to replace reviewers, or for texts in other languages. Texts are read in windows
of {max_tokens} tokens, {stride} of them shared, at most {max_windows} windows; a text has the largest logit of its
windows.

## Limits

{limits}
- Figures over all sources flatter: sources differ in how harmful they are, and a model that tells sources apart ranks
  well. The figures by source are the sterner ones.
- The data are public, partly old, and mixed in proportions that no platform has. Prevalence and error on your traffic
  will differ: calibrate and choose thresholds on your own labels where you can.
- `self_harm` and `sexual` have few human-labelled positives, the former largely written by a language model from
  templates (`sap200`), so that near-copies of test texts were in training: expect less on real traffic.

## Quality on the test split

Human labels only, of {test_rows} texts that no other step has seen. Average precision depends on the prevalence, so
compare it with nothing that has another one. In brackets, the 95 % bootstrap interval. A calibration error (ECE, 15
bins) is to be read beside the one that a perfect model would have at this n. `-`: not published, for fewer than 30
positives or negatives, or 200 texts. The last column is the mean probability given to harmless texts.

{overall}
{more}
{left_out}### By role

{by_role}

### By source

{by_source}

### By group that the text is about

The groups are annotators' where a source has them, keyword matches elsewhere, and are whom a text is about, not who
wrote it. Compare the last column with the harm's row in the first table: where it is higher, harmless content about the
group is suspected more than other harmless content.

{by_group}

### Where a rule gave the labels (silver)

Keyword rules, scores of other classifiers and sources assumed harmless; shown apart, since agreeing with a rule is not
being right.

{silver}

{fairness}## Calibration and thresholds

Platt scaling with smoothed targets, per harm, on the human labels of the calibration split ({calibration_rows} texts in
all). Silver labels are left out: a threshold derived from these histograms promises a rate of errors as people see
them. The promise holds for content like the calibration split's.
{within_roles}
## From training to serving

Largest difference of a logit between the converted module and the ONNX file: {parity:.2g}, over {parity_texts:,} texts.
Change of average precision from the trained to the served weights: {change}.{flips}

## Data

{train_rows} texts to train on, {validation_rows} to choose by, {calibration_rows} to calibrate, {test_rows} to test.
Which is which is decided by the digest of the text's letters, so no text, nor one that differs only in case,
punctuation, digits or emoji, is in two of them. Texts from a source count less the larger it is. Unknown labels are
left out of loss and figures. Rows below are those learnt from.

{data}

Attribution, where a licence asks for it:

{attribution}

Vocabulary: WordPiece of `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0). This model's weights are under the
licence of the project that ships it.
"""


_WITHIN_ROLES = """\
It holds over all roles together, or within each under a policy with `risks_within: role`: items are counted by role as
well. The map is one for all roles; how far off it is within each of them is in the table by role.
"""


def write_card(
    *,
    title: str,
    about: str,
    limits: str,
    model_input: TextInput,
    evaluation: Evaluation,
    training_data: Sequence[TrainingSource],
    sources: Sequence[Source],
    figures: Iterable[str] = (),
    within_roles: bool = False,
) -> str:
    """Write the model card in Markdown.

    `about` says what kind of model it is, `limits` what it cannot do, `sources` whom to attribute; `figures` are paths
    of pictures in the bundle, `within_roles` says that its calibration is by role too.
    """
    rows = evaluation.measurements
    human = [row for row in rows if row.labels == "human"]
    return _CARD.format(
        title=title,
        about=about,
        limits=limits,
        **model_input.model_dump(),
        overall=card_figures.table((row for row in human if row.part == "all"), first="harm"),
        more=card_figures.at_thresholds(evaluation, figures),
        left_out=card_figures.left_out(evaluation.left_out),
        fairness=card_figures.fairness(evaluation.counterfactual),
        by_role=card_figures.table((row for row in human if row.part.startswith("role=")), first="harm and role"),
        by_source=card_figures.table(
            (row for row in human if row.part.startswith("source=") and card_figures.published(row)),
            first="harm and source",
        ),
        by_group=card_figures.table(
            (row for row in human if row.part.startswith("group=") and card_figures.published(row)),
            first="harm and group",
        ),
        silver=card_figures.table(
            (row for row in rows if row.labels == "silver" and card_figures.published(row)), first="harm and part"
        ),
        within_roles=_WITHIN_ROLES if within_roles else "",
        parity=evaluation.conversion.parity_max_abs_logit,
        parity_texts=evaluation.conversion.parity_texts,
        change=", ".join(f"{h} {c:+.4f}" for h, c in evaluation.conversion.average_precision_change.items()),
        flips=_flips(evaluation.conversion.flips),
        **{f"{part}_rows": f"{count:,}" for part, count in evaluation.split_rows.items()},
        data=_data_table(training_data, {source.name: source for source in sources}),
        attribution="\n".join(
            f"- `{source.name}`: {source.attribution}; {source.licence}" for source in sources if source.attribution
        )
        or "- none",
    )


def _flips(shares: dict[str, float] | None) -> str:
    if shares is None:
        return ""
    listed = ", ".join(f"{harm} {share:.2%}" for harm, share in shares.items())
    return f"\nDecisions that rounding turns round at the default thresholds, on the calibration split: {listed}."


def _data_table(training_data: Sequence[TrainingSource], sources: dict[str, Source]) -> str:
    head = ["| source | repository | licence | rows |", "|---|---|---|--:|"]
    return "\n".join(
        head
        + [
            f"| {used.source} | {sources[used.source].repository} | {used.licence} | {used.rows:,} |"
            for used in training_data
        ]
    )
