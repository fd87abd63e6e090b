"""`fairway export build | train | rotate | import | evaluate | compare`, which is also `python -m export`.

Bundles and the weights they are made of, here or elsewhere, how a way of training does on sources never seen, and what
bundles are worth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from export.commands.importing import add_commands as add_importing
from export.commands.measuring import add_commands as add_measuring
from export.commands.training import add_commands as add_training
from export.commands.training import add_precision, train_by
from export.progress import Say
from stream.errors import FairwayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 where it did what it was asked, 2 where it says on stderr why not."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {line}\n")

    try:
        options.run(options, say)
    except FairwayError as error:
        sys.stderr.write(f"export: {error}\n")
        return 2
    return 0


def _build(options: argparse.Namespace, say: Say) -> None:
    from export.measuring.rotations import read_results  # noqa: PLC0415
    from export.recipe import LITE, build, encoder  # noqa: PLC0415 - measuring a bundle takes no torch

    weights = train_by(options, options.work, say) if options.recipe else options.weights
    recipe = encoder(weights) if weights else LITE
    out = options.out or Path("models") / recipe.name
    rotations = read_results(options.rotations) if options.rotations else ()
    bundle = build(options.data, out, recipe=recipe, created_at=options.created_at, say=say, rotations=rotations)
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    say(f"to be signed after a look at {bundle.path / 'CARD.md'}: fairway bundle sign {bundle.path} --key FILE")
    say(f"wrote {bundle.path}, {size / 1e6:.2f} MB, {bundle.digest}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairway export", description=sys.modules[__name__].__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="make the bundle of the lite model, or of an encoder")
    command.set_defaults(run=_build)
    command.add_argument("--data", type=Path, required=True, help="folder with *.jsonl.gz of labelled texts")
    model = command.add_mutually_exclusive_group()
    model.add_argument("recipe", type=Path, nargs="?", help="a training recipe: train by it first, or go on with that")
    model.add_argument("--weights", type=Path, help="what `train` wrote; without either, the lite model is trained")
    command.add_argument("--work", type=Path, help="folder of that training; build/train/NAME by default")
    add_precision(command)
    command.add_argument("--rotations", type=Path, help="what `rotate` printed for the same recipe, for the card")
    command.add_argument("--out", type=Path, help="folder of the bundle, replaced; models/NAME by default")
    command.add_argument(
        "--created-at",
        type=datetime.fromisoformat,
        default=datetime.now(UTC).replace(microsecond=0),
        help="time written into the bundle, with its offset; set it to get the same bytes again",
    )
    add_training(commands)
    add_importing(commands)
    add_measuring(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
