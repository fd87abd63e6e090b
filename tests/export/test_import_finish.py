"""A converted checkpoint becomes a bundle: as it is without data, calibrated and measured with labelled texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from export.__main__ import main
from export.data.splits import split
from export.measuring.calibrate import fit_platt
from stream.bundle import Bundle, load
from stream.bundle.evaluation import parse_evaluation
from stream.bundle.sign import sign
from stream.commands import bundle as bundle_command
from stream.commands import policy as policy_command
from stream.errors import PolicyError
from stream.policy import compile_policy
from stream.scoring.opening import open_scorer
from stream.scoring.rehearsal import rehearse
from tests.bundles import UNSIGNED, own_trust, signer
from tests.checkpoints import label_map, save_checkpoint
from tests.policies import HEAD
from tests.records import batch_of

pytestmark = pytest.mark.export

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEANINGS = {"calm": "harmless", "rude": "rudeness", "insult": "rudeness", "threat": "threats"}
HARMS = ("rudeness", "threats")
WORDS = ("river", "you", "music", "clown", "the", "garden", "knife", "letter", "stone", "and", "morning", "coffee")
ROWS = 1400


def run(*arguments: object) -> int:
    return main(["import", *map(str, arguments), "--created-at", NOW.isoformat()])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier and, beside it, a label map."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_checkpoint(folder, "distilbert")
    label_map(folder.with_name("map.yaml"), MEANINGS, roles=["post", "output"])
    return folder


@pytest.fixture(scope="module")
def plain(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that is made without data."""
    out = tmp_path_factory.mktemp("models") / "plain"
    assert run(checkpoint, "--labels", checkpoint.with_name("map.yaml"), "--out", out) == 0
    return load(out, UNSIGNED)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts whose labels of `rudeness` were drawn by the model's own logits, and where they lie."""

    texts: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    path: Path


@pytest.fixture(scope="module")
def labelled(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """Posts labelled for one of the two harms and for one that the model does not know, and a few prompts."""
    draw = np.random.default_rng(0)
    marks = ("".join(draw.choice(list("abcdefghijk"), 6)) for _ in range(ROWS))
    texts = tuple(f"{' '.join(draw.choice(WORDS, draw.integers(2, 12)))} {mark}" for mark in marks)
    logits = open_scorer(plain, provider="cpu", max_batch_tokens=4096).score(batch_of(*texts)).logits
    centre, spread = logits[:, 0].mean(), logits[:, 0].std()
    labels = (draw.random(ROWS) < 1 / (1 + np.exp(-2 * (logits[:, 0] - centre) / spread))).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "made_up.jsonl"
    lines = [row(text, {"rudeness": int(label), "spam": 1}) for text, label in zip(texts, labels, strict=True)]
    lines += [row(f"a prompt {text}", {"rudeness": 1}, role="prompt") for text in texts[:7]]
    path.write_text("\n".join([*lines, "{", ""]))
    return Labelled(texts, logits, labels, path)


def row(text: str, labels: dict[str, int], role: str = "post") -> str:
    return json.dumps({"text": text, "labels": labels, "role": role, "source": "made_up"})


@pytest.fixture(scope="module")
def calibrated(checkpoint: Path, labelled: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that is made with data."""
    out = tmp_path_factory.mktemp("models") / "calibrated"
    options = ("--labels", checkpoint.with_name("map.yaml"), "--out", out, "--data", labelled.path)
    assert run(checkpoint, *options) == 0
    return load(out, UNSIGNED)


def test_the_bundle_says_what_its_map_says(plain: Bundle) -> None:
    """Name, version, harms and roles are those of the label map, which is in the bundle; no training is claimed."""
    manifest = plain.manifest
    assert (manifest.name, manifest.version, manifest.harms) == ("imported", "3", HARMS)
    assert manifest.roles == ("post", "output")
    assert manifest.training_data == ()
    assert b"rudeness" in plain.read("labels.yaml")


def test_it_is_signed_and_tried_as_any_other(plain: Bundle, tmp_path: Path) -> None:
    """A worker's way in is open to it: signature, rehearsal in a process of its own, golden batch."""
    folder = Path(shutil.copytree(plain.path, tmp_path / "signed"))
    sign(folder, signer())
    assert rehearse(load(folder, own_trust())) < 0.05


def test_without_data_nothing_is_claimed(plain: Bundle) -> None:
    """Without labelled texts the calibration has nothing behind it, nothing is measured, and the card says both."""
    assert plain.calibration.method == "none"
    assert [harm.n_harmful + harm.n_harmless for harm in plain.calibration.harms.values()] == [0, 0]
    assert parse_evaluation(plain.read("evaluation.json"), name="evaluation.json").measurements == ()
    card = plain.read("CARD.md").decode()
    assert "**Not measured.**" in card
    assert "**Not calibrated: `rudeness`, `threats`.**" in card


def test_without_data_no_risk_can_be_stated(plain: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that states a risk is told that there are not enough data; one with thresholds in numbers is taken."""
    rules = "  threats: {action: block, act_at: 0.9, allow_below: 0.5}\n"
    risk = f"{HEAD}harms:\n{rules}  rudeness: {{action: block, act_at: 0.9, miss_rate: 0.2}}\n"
    with pytest.raises(PolicyError, match="not enough data: rudeness has 0 harmful calibration items"):
        compile_policy(risk.encode(), plain.calibration.harms)
    (tmp_path / "policy.yaml").write_text(risk.replace("miss_rate: 0.2", "allow_below: 0.2"))
    monkeypatch.setenv("FAIRWAY_UNSIGNED_BUNDLES", "allow")
    policy_command.check(tmp_path / "policy.yaml", plain.path)
    bundle_command.show(plain.path)


def test_calibration_is_fitted_on_what_is_not_for_testing(calibrated: Bundle, labelled: Labelled) -> None:
    """Slope, intercept and counts are those of the model's logits on the posts outside of the test split."""
    fitting = np.setdiff1d(np.arange(ROWS), split(labelled.texts).test)
    logits, labels = labelled.logits[fitting, 0].astype(float), labelled.labels[fitting].astype(float)
    rudeness = calibrated.calibration.harms["rudeness"]
    assert (rudeness.a, rudeness.b) == pytest.approx(fit_platt(logits, labels), rel=1e-6)
    assert (rudeness.n_harmful, rudeness.n_harmless) == (labels.sum(), (1 - labels).sum())


def test_a_harm_without_labels_says_so(calibrated: Bundle) -> None:
    """Beside a calibrated harm one without labels keeps the model's own word, and the card names it."""
    threats = calibrated.calibration.harms["threats"]
    assert (threats.a, threats.b, threats.is_fitted) == (1.0, 0.0, False)
    assert "**Not calibrated: `threats`.**" in calibrated.read("CARD.md").decode()


def test_figures_are_of_the_test_split(calibrated: Bundle, labelled: Labelled) -> None:
    """Average precision is scikit-learn's on the test split; roles that the map leaves out are not counted."""
    test = split(labelled.texts).test
    evaluation = parse_evaluation(calibrated.read("evaluation.json"), name="evaluation.json")
    assert evaluation.split_rows == {"train": 0, "validation": 0, "calibration": ROWS - len(test), "test": len(test)}
    (found,) = (r for r in evaluation.measurements if (r.harm, r.part, r.labels) == ("rudeness", "all", "human"))
    assert (found.n, found.positives) == (len(test), labelled.labels[test].sum())
    expected = average_precision_score(labelled.labels[test], labelled.logits[test, 0])
    assert found.average_precision == pytest.approx(expected, abs=1e-3)  # ties of millionths aside
    assert evaluation.counterfactual is not None
    assert min(term.not_allowed_rate.value for term in evaluation.counterfactual.terms) < 1  # `threats` would make it 1
    assert {name for name in calibrated.manifest.files if name.startswith("figures/")} == {
        f"figures/{name}.svg" for name in ("precision_recall", "reliability", "identity_terms")
    }


def test_a_risk_can_be_stated_where_there_are_labels(calibrated: Bundle) -> None:
    """A policy derives its thresholds from the calibration as from that of any bundle."""
    policy = compile_policy(
        f"{HEAD}harms:\n  threats: {{action: allow, abstain: allow, act_at: 1, allow_below: 0}}\n"
        "  rudeness: {action: block, false_block_rate: 0.05, miss_rate: 0.1}\n".encode(),
        calibrated.calibration.harms,
    )
    assert 0 < policy.allow_below[0][0] < policy.act_at[0][0] < 1


def test_no_text_of_the_data_is_in_the_bundle(calibrated: Bundle, labelled: Labelled) -> None:
    """No labelled text can be found in any file of the bundle."""
    files = [calibrated.read(name) for name in calibrated.manifest.files]
    assert not any(text.encode() in content for text in labelled.texts for content in files)


def test_what_is_left_out_is_said(
    checkpoint: Path, labelled: Labelled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines that cannot be used, texts of other roles and labels of other harms are named before anything is fitted."""
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(labelled.path.read_text().splitlines()[-20:]))
    assert run(checkpoint, "--labels", checkpoint.with_name("map.yaml"), "--out", tmp_path / "out", "--data", path) == 2
    said = capsys.readouterr().err
    assert "left out 7 texts of roles" in said
    assert "no harm of this model: spam" in said
    assert "line 20 of few.jsonl" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("architectures", "said"),
    [
        (
            ["BertForMaskedLM"],
            "is a BertForMaskedLM, which cannot be imported. What can: ...ForSequenceClassification, a class",
        ),
        ([], "no architect"),
    ],
)
def test_another_kind_of_model_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], architectures: Sequence[str], said: str
) -> None:
    """A checkpoint of no kind that can be imported is refused with those that can be."""
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((checkpoint / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": list(architectures)}))
    assert run(tmp_path, "--labels", checkpoint.with_name("map.yaml"), "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err


def test_the_same_checkpoint_gives_the_same_bytes(plain: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    """Two imports of one checkpoint at one time are one bundle, byte for byte."""
    assert run(checkpoint, "--labels", checkpoint.with_name("map.yaml"), "--out", tmp_path / "again") == 0
    assert load(tmp_path / "again", UNSIGNED).digest == plain.digest
