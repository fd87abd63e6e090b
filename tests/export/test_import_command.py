"""The command line from a checkpoint's folder to a bundle, for every kind of model that can be imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from stream.bundle import load
from stream.bundle.sign import sign
from stream.commands import bundle as bundle_command
from tests import image_checkpoints, tiny_models
from tests.bundles import own_trust, signer, trust_own_key
from tests.causal import HARMS, questions_yaml
from tests.checkpoints import MEANINGS, label_map, save_checkpoint

pytestmark = pytest.mark.export

REAL_OR_FAKE = {"real": "harmless", "fake": "synthetic"}

Saved = tuple[str, tuple[str, ...], str]
"""What a bundle's name, its harms and `fairway bundle show` of it have to be."""


def classifier(folder: Path, labels: Path) -> Saved:
    save_checkpoint(folder, "bert")
    label_map(labels, MEANINGS)
    return "imported", ("harassment", "violence"), "text, 70 tokens"


def language_model(folder: Path, questions: Path) -> Saved:
    tiny_models.checkpoint(folder)
    questions.write_text(yaml.safe_dump(questions_yaml(), sort_keys=False))
    return "tiny", HARMS, "text, 160 tokens, in a question per harm"


def image_classifier(folder: Path, labels: Path) -> Saved:
    image_checkpoints.save_image_checkpoint(image_checkpoints.vit(), folder)
    label_map(labels, image_checkpoints.MEANINGS, roles=None, scores="softmax")
    return "imported", ("violence", "sexual"), "images, 32 x 32 pixels"


def detector(folder: Path, labels: Path) -> Saved:
    image_checkpoints.save_detector(folder)
    label_map(labels, REAL_OR_FAKE, roles=None)
    return "imported", ("synthetic",), "images, 256 x 256 pixels"


KINDS: Mapping[str, Callable[[Path, Path], Saved]] = {
    made.__name__: made for made in (classifier, language_model, image_classifier, detector)
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_makes_a_bundle_of_each_kind(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without data, a checkpoint becomes a bundle that `fairway bundle` tries and shows once it is signed."""
    name, harms, reads = KINDS[kind](tmp_path / "checkpoint", tmp_path / "map.yaml")
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "export", "import", "checkpoint", "--labels", "map.yaml", "--out", "bundle"]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=here)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [line for line in done.stderr.splitlines() if not re.match(r" *\d+\.\d s  ", line)] == []
    sign(out, signer())
    keys = trust_own_key(tmp_path / "keys")
    bundle_command.verify(out, trusted_keys=keys)
    bundle_command.show(out, trusted_keys=keys)
    said = capsys.readouterr().out
    assert "golden batch scores here on cpu as it did" in said
    assert reads in said
    bundle = load(out, own_trust())
    assert (bundle.manifest.name, bundle.manifest.harms) == (name, harms)
    card = bundle.read(bundle.manifest.card).decode()
    assert "`model.safetensors`: sha256" in card
    assert f"**Not measured.** No labelled {reads.partition(' ')[0].strip(',').removesuffix('s')}s" in card
