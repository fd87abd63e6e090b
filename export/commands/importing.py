"""`import` on the command line: says which kind of model a checkpoint is, and has it converted and finished."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from export.errors import ExportError
from export.importing.checkpoint import open_checkpoint
from export.importing.imported import Imported
from export.progress import Say

__all__ = ["KINDS", "Kind", "add_commands"]

Importer = Callable[[Path, Path, Say], Imported]
"""Takes the folder of a checkpoint, the label map and whom to tell of progress."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of model that can be imported."""

    said: str
    """What it is called in the help and in errors."""
    ending: str
    """How the names of its architectures end."""
    importer: Importer


def _classifier(checkpoint: Path, labels: Path, say: Say) -> Imported:
    # Each kind imports what it needs when it is asked for: transformers takes seconds.
    from export.importing.classifier import import_classifier  # noqa: PLC0415
    from export.importing.labels import read_labels  # noqa: PLC0415

    return import_classifier(checkpoint, read_labels(labels), say)


def _policy(checkpoint: Path, questions: Path, say: Say) -> Imported:
    from export.importing.policy import import_policy  # noqa: PLC0415

    return import_policy(checkpoint, questions, say)


def _image(checkpoint: Path, labels: Path, say: Say) -> Imported:
    from export.importing.image import ROLES, import_image  # noqa: PLC0415
    from export.importing.labels import read_labels  # noqa: PLC0415

    return import_image(checkpoint, read_labels(labels, roles=ROLES), say)


def _detector(checkpoint: Path, labels: Path, say: Say) -> Imported:
    from export.importing.detector import import_detector  # noqa: PLC0415
    from export.importing.image import ROLES  # noqa: PLC0415
    from export.importing.labels import read_labels  # noqa: PLC0415

    return import_detector(checkpoint, read_labels(labels, roles=ROLES), say)


KINDS = (
    Kind(
        "a classifier of text: BERT, RoBERTa, XLM-RoBERTa, DistilBERT, DeBERTa v1 to v3",
        "ForSequenceClassification",
        _classifier,
    ),
    Kind(
        "a language model that is asked questions: Gemma, Llama, Mistral, Qwen",
        "ForCausalLM",
        _policy,
    ),
    Kind("a classifier of images: ViT, ConvNeXT, ResNet, CLIP and their like", "ForImageClassification", _image),
    Kind(
        "a detector of synthetic images like SAFE, of classes `real` and `fake`; no weights ship",
        "SafeDetector",
        _detector,
    ),
)

_HELP = """\
make a bundle of a checkpoint that was trained elsewhere, in a local folder as `save_pretrained` writes it

Nothing is fetched, no code of the checkpoint is run, and weights are read from safetensors only. The label map says
what each of its classes means: a harm, or `harmless`. For a language model it is the file of questions to ask it, in
the wording of its card; export/importing/policy_templates/example.yaml shows how. Name and version of the bundle are
the map's.

With --data the bundle is calibrated on 85 % of the labelled texts, or images where it reads those, and evaluated on the
others (`evaluate --help` says how they are written); without, its probabilities are the model's own and no policy can
state a risk for it. Sign it when you have looked at its card: fairway bundle sign.

What can be imported, by the end of what config.json calls its architecture:
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `import`; what it runs is in `run` of the parsed options."""
    summary, _, description = _HELP.partition("\n\n")
    kinds = "\n".join(f"  {'...' + kind.ending:<30}{kind.said}" for kind in KINDS)
    command = commands.add_parser(
        "import",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{description}{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_import)
    command.add_argument(
        "checkpoint",
        type=Path,
        help="folder with config.json, *.safetensors and tokenizer.json or preprocessor_config.json",
    )
    command.add_argument("--labels", type=Path, required=True, help="label map, or questions (YAML)")
    command.add_argument("--out", type=Path, required=True, help="folder of the bundle; one that is there is replaced")
    command.add_argument(
        "--data", type=Path, nargs="+", default=[], help="files, or folders of files, of labelled JSON lines"
    )
    command.add_argument(
        "--created-at",
        type=datetime.fromisoformat,
        default=datetime.now(UTC).replace(microsecond=0),
        help="time written into the bundle, with its offset; set it to get the same bytes again",
    )


def _import(options: argparse.Namespace, say: Say) -> None:
    from export.importing.finish import finish  # noqa: PLC0415

    kind = _kind_of(options.checkpoint)
    imported = kind.importer(options.checkpoint, options.labels, say)
    bundle = finish(imported, options.out, data=options.data, created_at=options.created_at, say=say)
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    say(f"wrote {bundle.path}, {size / 1e6:.2f} MB, {bundle.digest}")


def _kind_of(checkpoint: Path) -> Kind:
    architecture = open_checkpoint(checkpoint).architecture
    for kind in KINDS:
        if architecture.endswith(kind.ending):
            return kind
    can = "; ".join(f"...{kind.ending}, {kind.said}" for kind in KINDS)
    raise ExportError(f"{checkpoint} is a {architecture}, which cannot be imported. What can: {can}")
