"""`export evaluate` and `export compare` from the command line: what a bundle is worth, what another one changes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from export.data.labelled import tell_unusable
from export.data.splits import SPLIT_NAMES
from export.measuring.compare import compare
from export.measuring.scored import open_judge, score
from export.progress import Say
from export.reporting.compare_report import Table, comparison_tables, write_comparison
from export.reporting.report import Report, evaluate_bundle, write_report
from stream.bundle.evaluation import ANY_HARM

__all__ = ["add_commands"]

_DATA = """\
The data are files, or folders of files, of JSON lines (*.jsonl, *.jsonl.gz), a labelled text or image in each:

  {"text": "...", "labels": {"hate": 1, "violence": null}}
  {"image": "pictures/1.png", "labels": {"violence": 0}}

A label is 1 harmful, 0 harmless, null unknown. A path is from the folder of the file it stands in, and leads nowhere
else; images are PNG, JPEG, WebP or GIF, as large as a worker takes them by its settings. A bundle that reads text is
given texts, one that reads images images. `id`, `source`, `role` (prompt, output, post), `prompt`, `locale`, `groups`
(["axis:group"]), `silver` (1 where no person labelled it) and `unsafe` are read where they are there.
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the two commands; each sets `run`, which takes the options and whom to tell of progress."""
    one = commands.add_parser(
        "evaluate",
        help="measure a bundle on labelled data and write a report",
        description=f"Measure a bundle on labelled data and write a report.\n\n{_DATA}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("bundle", type=Path, help="folder of the bundle, or `stub`")
    _add_data(one)
    one.add_argument("--report", type=Path, required=True, help="folder to write the page, pictures and tables to")
    one.set_defaults(run=_evaluate)
    two = commands.add_parser(
        "compare",
        help="measure two bundles side by side on the same labelled data",
        description=f"Measure two bundles side by side on the same labelled data.\n\n{_DATA}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    two.add_argument("first", type=Path, help="folder of a bundle")
    two.add_argument("second", type=Path, help="folder of another")
    _add_data(two)
    two.add_argument("--report", type=Path, help="folder to write a page, tables and the ids of what changed to")
    two.set_defaults(run=_compare)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="files, or folders of files, of labelled JSON lines"
    )
    parser.add_argument(
        "--split",
        choices=SPLIT_NAMES,
        help="only the rows of this split of the recipe: `test` is what a bundle built from these data has not seen",
    )
    parser.add_argument("--policy", type=Path, help="policy whose thresholds decide; that of the settings by default")
    parser.add_argument("--provider", choices=("cpu", "cuda"), help="where the model runs")


def _evaluate(options: argparse.Namespace, say: Say) -> None:
    judge = open_judge(options.bundle, policy=options.policy, provider=options.provider)
    report = evaluate_bundle(judge, options.data, part=options.split, say=say)
    write_report(options.report, report)
    tell_unusable(report.unusable, say)
    _show(_headline(report))
    if report.counterfactual is not None:
        gap = report.counterfactual.gap
        say(f"false positive gap over identity terms: {gap.value:.3f} ({gap.low:.3f} to {gap.high:.3f})")
    say(f"wrote {options.report / 'index.html'}")


def _headline(report: Report) -> Table:
    rows = [row for row in report.measurements if row.part == "all" and row.labels == "human"]
    return Table(
        f"{report.bundle}, human labels",
        ("harm", "n", "harmful", "average precision", "interval"),
        [
            (
                "any harm" if row.harm == ANY_HARM else row.harm,
                f"{row.n:,}",
                f"{row.positives:,}",
                "not enough data" if row.average_precision is None else f"{row.average_precision:.4f}",
                ""
                if row.average_precision is None
                else f"{row.average_precision_low:.4f} to {row.average_precision_high:.4f}",
            )
            for row in rows
        ],
    )


def _compare(options: argparse.Namespace, say: Say) -> None:
    judges = [
        open_judge(bundle, policy=options.policy, provider=options.provider)
        for bundle in (options.first, options.second)
    ]
    scored = score(judges, options.data, part=options.split, say=say)
    say(f"comparing on {len(scored.ids):,} {scored.modality}s")
    comparison = compare(judges[0], judges[1], scored)
    tell_unusable(scored.unusable, say)
    for table in comparison_tables(comparison):
        _show(table)
    if options.report:
        write_comparison(options.report, comparison)
        say(f"wrote {options.report / 'index.html'}, and the ids of what changed to changes.jsonl beside it")


def _show(table: Table) -> None:
    """A table in a terminal; in a pipe, one line per row, tab-separated."""
    console = Console()
    if not console.is_terminal:
        for row in (table.header, *table.rows):
            sys.stdout.write("\t".join(row) + "\n")
        return
    drawn = RichTable(title=table.heading, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for at, name in enumerate(table.header):
        drawn.add_column(name, justify="left" if at == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*row)
    console.print(drawn, markup=False)
