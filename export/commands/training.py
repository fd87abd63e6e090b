"""`train` and `rotate` on the command line; each imports torch when it is run, as other commands take none."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from export.data.splits import read_split
from export.measuring.rotations import ROTATIONS, rotate
from export.progress import Say

__all__ = ["add_commands", "add_precision", "train_by"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `train` and `rotate`; what they run is in `run` of the parsed options."""
    command = commands.add_parser("train", help="train an encoder by a recipe; the same call again goes on")
    command.set_defaults(run=_train)
    command.add_argument("recipe", type=Path, help="a training recipe, such as export/recipes/moderator.yaml")
    _add_data(command)
    command.add_argument("--out", type=Path, help="folder of weights and checkpoints; build/train/NAME by default")
    add_precision(command)
    command = commands.add_parser("rotate", help="leave sources out in turn, train, and measure on them")
    command.set_defaults(run=_rotate)
    command.add_argument("recipe", type=Path, nargs="?", help="a training recipe; without one, the lite model")
    _add_data(command)
    command.add_argument("--out", type=Path, help="folder of one folder per rotation; build/rotations/NAME by default")
    add_precision(command)
    names = [rotation.name for rotation in ROTATIONS]
    command.add_argument("--only", nargs="+", choices=names, help="these rotations instead of all")


def _train(options: argparse.Namespace, say: Say) -> None:
    train_by(options, options.out, say)


def train_by(options: argparse.Namespace, out: Path | None, say: Say) -> Path:
    """Train by the options' recipe file, or go on, in the folder `out`, by default the recipe's own; its weights."""
    from export.train import MODEL, train  # noqa: PLC0415
    from export.training.place import find_place  # noqa: PLC0415
    from export.training.recipe import read_recipe  # noqa: PLC0415

    recipe = read_recipe(options.recipe)
    out = out or Path("build/train") / recipe.name
    train(options.data, out, recipe, place=find_place(options.precision), say=say)
    return Path(out / MODEL)


def _rotate(options: argparse.Namespace, say: Say) -> None:
    """Write one line of JSON per rotation to stdout, as each is done."""
    from export.learners import encoder_learner, lite_learner  # noqa: PLC0415
    from export.models import lite  # noqa: PLC0415
    from export.recipe import LITE  # noqa: PLC0415
    from export.training.place import find_place  # noqa: PLC0415
    from export.training.recipe import read_recipe  # noqa: PLC0415

    data, splits = read_split(options.data, say)
    if options.recipe is None:
        learner = lite_learner(data, lite.Training(), model_input=LITE.input, say=say)
    else:
        recipe = read_recipe(options.recipe)
        learner = encoder_learner(
            data,
            recipe,
            model_input=LITE.input,
            place=find_place(options.precision),
            folder=options.out or Path("build/rotations") / recipe.name,
            say=say,
        )
    rotations = [rotation for rotation in ROTATIONS if not options.only or rotation.name in options.only]
    for result in rotate(data, splits, learner, rotations=rotations):
        say(f"{result.rotation}: macro {result.macro:.4f}")
        sys.stdout.write(json.dumps({**asdict(result), "macro": result.macro}) + "\n")
        sys.stdout.flush()


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, help="folder with *.jsonl.gz of labelled texts")


def add_precision(command: argparse.ArgumentParser) -> None:
    """Add the choice of precision to train in."""
    command.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of matrix products; auto is bf16 on a GPU and fp32 on a CPU, where bf16 is faster only with AVX512-BF16",
    )
