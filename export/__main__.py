"""`fairway export build | train | rotate | evaluate | compare`, which is also `python -m export`.

Bundles and the weights they are made of, how a way of training does on sources never seen, and what bundles are worth.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from export.commands import add_commands
from export.dataset import read_dataset
from export.progress import Say
from export.rotations import ROTATIONS, rotate
from export.splits import split
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


# Each imports what it needs: measuring a bundle takes no torch.


def _build(options: argparse.Namespace, say: Say) -> None:
    from export.recipe import LITE, build  # noqa: PLC0415

    # The exporter logs that optional packages, which no text model uses, are not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    bundle = build(options.data, options.out, recipe=LITE, created_at=options.created_at, say=say)
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    say(f"wrote {bundle.path}, {size / 1e6:.2f} MB, {bundle.digest}")


def _train(options: argparse.Namespace, say: Say) -> None:
    from export.train import train  # noqa: PLC0415
    from export.training import read_recipe  # noqa: PLC0415
    from export.training.place import find_place  # noqa: PLC0415

    train(options.data, options.out, read_recipe(options.recipe), place=find_place(options.precision), say=say)


def _rotate(options: argparse.Namespace, say: Say) -> None:
    """Write one line of JSON per rotation to stdout, as each is done."""
    from export.learners import encoder_learner, lite_learner  # noqa: PLC0415
    from export.recipe import LITE  # noqa: PLC0415
    from export.training import read_recipe  # noqa: PLC0415
    from export.training.place import find_place  # noqa: PLC0415

    data = read_dataset(options.data)
    if options.recipe is None:
        learner = lite_learner(data, LITE.training, model_input=LITE.input, say=say)
    else:
        learner = encoder_learner(
            data,
            read_recipe(options.recipe),
            model_input=LITE.input,
            place=find_place(options.precision),
            folder=options.out,
            say=say,
        )
    rotations = [rotation for rotation in ROTATIONS if not options.only or rotation.name in options.only]
    for result in rotate(data, split(data.texts), learner, rotations=rotations):
        say(f"{result.rotation}: macro {result.macro:.4f}")
        sys.stdout.write(json.dumps({**asdict(result), "macro": result.macro}) + "\n")
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairway export", description=sys.modules[__name__].__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="train the lite model and write its bundle")
    command.set_defaults(run=_build)
    _add_data(command)
    command.add_argument("--out", type=Path, default=Path("models/lite"), help="folder of the bundle, replaced")
    command.add_argument(
        "--created-at",
        type=datetime.fromisoformat,
        default=datetime.now(UTC).replace(microsecond=0),
        help="time written into the bundle, with its offset; set it to get the same bytes again",
    )
    command = commands.add_parser("train", help="train an encoder by a recipe; the same call again goes on")
    command.set_defaults(run=_train)
    command.add_argument("recipe", type=Path, help="a training recipe, such as export/recipes/moderator.yaml")
    _add_data(command)
    _add_place(command, out="folder of weights, figures and checkpoints")
    command = commands.add_parser("rotate", help="leave sources out in turn, train, and measure on them")
    command.set_defaults(run=_rotate)
    command.add_argument("recipe", type=Path, nargs="?", help="a training recipe; without one, the lite model")
    _add_data(command)
    _add_place(command, out="folder of checkpoints, one below it per rotation")
    names = [rotation.name for rotation in ROTATIONS]
    command.add_argument("--only", nargs="+", choices=names, help="these rotations instead of all")
    add_commands(commands)
    return parser


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, help="folder with *.jsonl.gz of labelled texts")


def _add_place(command: argparse.ArgumentParser, *, out: str) -> None:
    command.add_argument("--out", type=Path, default=Path("build/train"), help=out)
    command.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of matrix products; auto is bf16 on a GPU and fp32 on a CPU, where bf16 is faster only with AVX512-BF16",
    )


if __name__ == "__main__":
    sys.exit(main())
