"""`make bench-gpu`: one table of what a bundle's artefact for CUDA is worth on this GPU, on screen and in `build/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ops.bench.gpu.checks import check_provider
from ops.bench.gpu.forms import derive_others, shipped_form
from ops.bench.gpu.graphs import compare_graphs
from ops.bench.gpu.machine import about_machine
from ops.bench.gpu.numeric import compare_forms
from ops.bench.gpu.rows import Report, Row, as_json, as_markdown, as_table
from ops.bench.gpu.speed import LENGTHS, compare_speed
from stream.bundle import Bundle, load, trust_of
from stream.errors import FairwayError, ProviderError
from stream.scoring.session import Provider
from stream.settings import Settings, load_settings

REPORT, DRY_REPORT = Path("build/bench-gpu.json"), Path("build/bench-gpu-dry-run.json")
FILE_WIDTH = 180


def main() -> None:
    """Measure, show and write. Exit code 2 where nothing can be measured."""
    arguments = _arguments()
    # A file has no width of its own, and the table is unreadable in rich's 80 columns.
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    progress = Console(stderr=True, soft_wrap=True)
    try:
        settings, _ = load_settings({"slice_max_records": arguments.texts})
        bundle = load(arguments.bundle, trust_of(settings))
        rows = []
        for row in measure(bundle, settings, arguments.provider, rounds=arguments.rounds):
            progress.print(" | ".join(filter(None, row.cells())), markup=False, style="dim")
            rows.append(row)
    except FairwayError as error:
        dry = "; `--provider cpu` tries the benchmark itself out" if isinstance(error, ProviderError) else ""
        progress.print(f"{error}{dry}", markup=False)
        sys.exit(2)
    about = {"bundle": f"{bundle.manifest.name} {bundle.manifest.version}", "digest": bundle.digest, **about_machine()}
    about |= {"texts": arguments.texts, "rounds": arguments.rounds}
    report = Report(about, rows, is_dry=arguments.provider == "cpu")
    console.print(as_table(report))
    written = {DRY_REPORT if report.is_dry else REPORT: as_json(report)}
    if arguments.table is not None:
        written[arguments.table] = as_markdown(report)
    for path, content in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        console.print(f"written to {path}")


def measure(bundle: Bundle, settings: Settings, provider: Provider, *, rounds: int) -> Iterator[Row]:
    """Every row, the guard's first.

    Raises `ProviderError` where CUDA does not run here, and `BundleError` where the bundle has no artefact for it.
    """
    shipped = shipped_form(bundle)
    yield from check_provider(bundle, shipped, provider, max_batch_tokens=settings.max_batch_tokens)
    forms = (shipped, *derive_others(shipped))
    yield from compare_forms(bundle, forms, settings, provider)
    for form in forms:
        yield from compare_speed(bundle, form, settings, provider, lengths=LENGTHS, rounds=rounds)
    yield from compare_graphs(shipped, provider, harms=len(bundle.manifest.harms), rounds=rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.gpu", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("models/moderator"))
    parser.add_argument(
        "--provider", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run, best with --texts 64 --rounds 1"
    )
    parser.add_argument("--texts", type=int, default=1024, help="of each comparison; calls of more rows are left out")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each side; the best of each is reported")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the table, as Markdown")
    return parser.parse_args()


if __name__ == "__main__":
    main()
