"""Labelled images through `import --data`, `evaluate` and `compare`, on a tiny model of random weights."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from sklearn.metrics import average_precision_score, roc_auc_score

from export.__main__ import main
from export.data.content import read_picture
from export.data.splits import split_of
from export.errors import ExportError
from export.measuring.calibrate import fit_platt
from export.measuring.scored import Judge, open_judge, score
from stream.bundle import Bundle, load
from stream.bundle.evaluation import parse_evaluation
from stream.events import Image
from stream.scoring.image import ImageScorer
from tests.bundles import UNSIGNED
from tests.checkpoints import label_map
from tests.hostile.images import BROKEN, png
from tests.image_checkpoints import MEANINGS, save_image_checkpoint, vit
from tests.pictures import KINDS, drawn, encoded, events_with, image_of

pytestmark = pytest.mark.export

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = 800
SIZES = ((30, 24), (40, 44), (260, 230))
POLICY = """\
schema_version: 1
name: images
version: "1"
severity: [allow, label, review, restrict, block]
harms:
  violence: {action: restrict, act_at: 0.7, allow_below: 0.3}
  sexual: {action: block, act_at: 0.9, allow_below: 0.1}
"""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images whose labels of violence were drawn by the model's own logits, and where they lie."""

    images: tuple[Image, ...]
    files: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: NDArray[np.float32]
    path: Path

    @property
    def is_test(self) -> NDArray[np.bool_]:
        """(n,) whether the file's digest puts it into the test split."""
        folder = self.path.parent.resolve()
        digests = [read_picture(folder, name, max_bytes=10**6).digest for name in self.files]
        return np.array([split_of(digest) == "test" for digest in digests])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier and, beside it, a label map."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    label_map(folder.with_name("map.yaml"), MEANINGS, roles=None, scores="softmax")
    torch.manual_seed(0)  # whatever ran before, the same weights
    return save_image_checkpoint(vit(), folder)


def run_import(checkpoint: Path, out: Path, *data: Path) -> int:
    options = ["--labels", checkpoint.with_name("map.yaml"), "--out", out, "--created-at", NOW.isoformat()]
    return main(["import", *map(str, [checkpoint, *options, *(["--data", *data] if data else [])])])


@pytest.fixture(scope="module")
def plain(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that is made without data."""
    out = tmp_path_factory.mktemp("models") / "plain"
    assert run_import(checkpoint, out) == 0
    return load(out, UNSIGNED)


@pytest.fixture(scope="module")
def labelled(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """Images in a folder below that of the lines, of all formats and three sizes; two lines cannot be used."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "files").mkdir()
    images, files = [], []
    for number in range(COUNT):
        media_type = list(KINDS)[number % 4]
        data = encoded(drawn(*SIZES[number % 7 % 3], seed=number), media_type)
        files.append(f"files/secret-{number}")
        (folder / files[-1]).write_bytes(data)
        images.append(image_of(data, media_type))
    scorer = ImageScorer.from_bundle(plain, provider="cpu")
    logits = scorer.score(events_with(*images)).logits
    scaled = (logits[:, 0] - logits[:, 0].mean()) / logits[:, 0].std()
    labels = (np.random.default_rng(0).random(COUNT) < 1 / (1 + np.exp(-2 * scaled))).astype(np.float32)
    lines = [
        {
            "id": f"id-{number}",
            "image": name,
            "labels": {"violence": int(labels[number]), "spam": 1},
            "source": "made_up",
            "role": ["post", "output"][number % 2],
            "groups": ["gender:women"] if number % 9 else [],
            "split": "test",
        }
        for number, name in enumerate(files)
    ]
    (folder / "broken").write_bytes(png(50, 40, pixels=b"no pixels"))
    lines += [{**lines[0], "image": "files/missing"}, {**lines[0], "image": "broken"}]
    path = folder / "made_up.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Labelled(tuple(images), tuple(files), logits, labels, path)


@pytest.fixture(scope="module")
def calibrated(checkpoint: Path, labelled: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that is made with data."""
    out = tmp_path_factory.mktemp("models") / "calibrated"
    assert run_import(checkpoint, out, labelled.path) == 0
    return load(out, UNSIGNED)


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy for the two harms; unsigned bundles are taken."""
    monkeypatch.setenv("FAIRWAY_UNSIGNED_BUNDLES", "allow")
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_calibration_is_fitted_on_what_is_not_for_testing(calibrated: Bundle, labelled: Labelled) -> None:
    """Slope, intercept and counts are those of the model's logits on the images outside of the test split."""
    fitting = ~labelled.is_test
    logits, labels = labelled.logits[fitting, 0].astype(float), labelled.labels[fitting].astype(float)
    violence = calibrated.calibration.harms["violence"]
    assert (violence.a, violence.b) == pytest.approx(fit_platt(logits, labels), rel=1e-6)
    assert (violence.n_harmful, violence.n_harmless) == (labels.sum(), (1 - labels).sum())
    assert calibrated.calibration.split == "calibration: 85 % of the labelled images, by digest; human labels only"
    assert not calibrated.calibration.harms["sexual"].is_fitted


def test_figures_are_of_the_test_split(calibrated: Bundle, labelled: Labelled) -> None:
    """Figures are scikit-learn's on the images that were not calibrated on, by size and format too, not by length."""
    test = labelled.is_test
    evaluation = parse_evaluation(calibrated.read("evaluation.json"), name="evaluation.json")
    assert evaluation.split_rows == {"train": 0, "validation": 0, "calibration": int((~test).sum()), "test": test.sum()}
    found = {row.part: row for row in evaluation.measurements if (row.harm, row.labels) == ("violence", "human")}
    whole = found["all"]
    labels, logits = labelled.labels[test], labelled.logits[test, 0]
    assert (whole.n, whole.positives) == (test.sum(), labels.sum())
    assert whole.average_precision == pytest.approx(average_precision_score(labels, logits), abs=1e-3)
    assert whole.auroc == pytest.approx(roc_auc_score(labels, logits), abs=1e-3)
    assert {part.partition("=")[0] for part in found} <= {
        "all",
        "role",
        "source",
        "locale",
        "group",
        "size",
        "format",
    }
    assert {"size=0-49999 pixels", "group=gender:women"} <= set(found)
    assert evaluation.counterfactual is None


def test_the_card_speaks_of_images(calibrated: Bundle, labelled: Labelled) -> None:
    """The card says on how many images it was measured and that fairness is by their groups, and no text is in it."""
    card = calibrated.read("CARD.md").decode()
    said = " ".join(card.split())
    assert f"On {labelled.is_test.sum()} labelled images that were not calibrated on" in said
    assert f"on the human labels of {(~labelled.is_test).sum():,} images, for `violence`" in said
    assert "content like those images" in said
    assert "**Not calibrated: `sexual`.**" in card
    assert "### By role, source, group that the image is about, size and format" in card
    assert "| violence, gender:women |" in card
    assert "is measured for the `groups` that labelled images name" in card
    assert "identity" not in card
    assert " texts" not in card
    assert {name for name in calibrated.manifest.files if name.startswith("figures/")} == {
        f"figures/{name}.svg" for name in ("precision_recall", "reliability")
    }


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def evaluated(
    calibrated: Bundle, labelled: Labelled, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[Path, str]:
    """The folder that `export evaluate` writes, and what it says meanwhile."""
    folder = tmp_path / "report"
    options = ["--data", labelled.path, "--report", folder, "--policy", policy]
    assert main(["evaluate", *map(str, [calibrated.path, *options])]) == 0
    return folder, capsys.readouterr().err


def test_an_evaluation_is_of_images(evaluated: tuple[Path, str], labelled: Labelled) -> None:
    """Page, tables and pictures are of images, figures scikit-learn's, and no path or id of one is in any file."""
    report, said = evaluated
    tables = json.loads((report / "evaluation.json").read_text())
    assert (tables["modality"], tables["items"], tables["counterfactual"]) == ("image", COUNT, None)
    found = {row["part"]: row for row in tables["measurements"] if row["harm"] == "violence"}
    expected = average_precision_score(labelled.labels, labelled.logits[:, 0])
    assert found["all"]["average_precision"] == pytest.approx(expected, abs=1e-3)
    for part, rows in (("format=gif", slice(3, None, 4)), ("role=output", slice(1, None, 2))):
        ours = average_precision_score(labelled.labels[rows], labelled.logits[rows, 0])
        assert found[part]["average_precision"] == pytest.approx(ours, abs=1e-3)
    assert sum(found[f"size={name} pixels"]["n"] for name in ("0-49999", "50000-499999")) == COUNT
    page = (report / "index.html").read_text()
    assert f"<td>images</td><td>{COUNT:,}</td>" in page
    assert "copies of an image count as one" in page
    assert {"By size", "By format of the file", "By group that the image is about"} <= set(
        page.replace("<", ">").split(">")
    )
    assert "By length" not in page
    assert "texts" not in page
    files = files_of(report)
    assert {"figures/precision_recall_by_format.svg", "figures/reliability_by_size.svg"} <= set(files)
    assert "figures/identity_terms.svg" not in files
    assert not any(b"secret" in content or b"id-1" in content for content in files.values())
    assert f"measuring {COUNT:,} images; 2 lines could not be used" in said
    assert "identity terms" not in said


def test_images_that_cannot_be_looked_at_are_named(evaluated: tuple[Path, str]) -> None:
    """One that is missing and one that no decoder reads are counted, each with its line and why."""
    unusable = json.loads((evaluated[0] / "unusable.json").read_text())
    assert unusable["count"] == 2
    assert [(bad["line"], bad["why"]) for bad in unusable["named"]] == [
        (COUNT + 1, "image: is a path to nothing"),
        (COUNT + 2, "unsupported: it is nothing that the model reads, or cannot be decoded"),
    ]


def test_scores_are_the_scorers_on_the_same_bytes(calibrated: Bundle, labelled: Labelled, policy: Path) -> None:
    """What is measured is, to the last bit, what the scorer and the calibration make of the files' bytes."""
    judge = open_judge(calibrated.path, policy=policy)
    scored = score([judge], [labelled.path], part=None, say=lambda _: None)
    scores = ImageScorer.from_bundle(calibrated, provider="cpu").score(events_with(*labelled.images))
    assert np.array_equal(scored.decided[0].probabilities, judge.pipeline.calibrator.apply(scores.logits))
    assert np.array_equal(scored.items[0].labels[:, 0], labelled.labels)
    assert scored.labels_unknown == ("spam",)


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_one_split_can_be_asked_for(part: str, calibrated: Bundle, labelled: Labelled, policy: Path) -> None:
    """`--split` keeps the images whose digest is in it, so that a test of what was imported is on the same images."""
    judge = open_judge(calibrated.path, policy=policy)
    ids = score([judge], [labelled.path], part=part, say=lambda _: None).ids
    folder = labelled.path.parent.resolve()
    digests = [read_picture(folder, name, max_bytes=10**6).digest for name in labelled.files]
    assert ids == tuple(f"id-{number}" for number, digest in enumerate(digests) if split_of(digest) == part)


def test_two_bundles_of_images_are_compared(
    plain: Bundle,
    calibrated: Bundle,
    labelled: Labelled,
    policy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before calibration and after it ranks are the same and decisions are not; images are named by id."""
    options = ["--data", labelled.path, "--policy", policy, "--report", tmp_path / "report"]
    assert main(["compare", *map(str, [plain.path, calibrated.path, *options])]) == 0
    printed = capsys.readouterr()
    assert f"of {COUNT:,} images change" in (tmp_path / "report" / "index.html").read_text()
    assert "texts" not in printed.out + printed.err
    tables = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert (tables["modality"], tables["items"]) == ("image", COUNT)
    ranked = {row["figure"]: row for row in tables["differences"] if row["harm"] == "violence"}
    assert ranked["AUROC"]["difference"] == pytest.approx(0, abs=1e-3)  # ties of millionths aside
    changes = [json.loads(line) for line in (tmp_path / "report" / "changes.jsonl").read_text().splitlines()]
    assert changes
    assert all(change["id"].startswith("id-") for change in changes)


@pytest.mark.parametrize("name", ["png cut in its header", "gif of 5000 frames", "png that claims 60000 x 60000"])
def test_the_limits_are_a_workers(
    name: str, calibrated: Bundle, labelled: Labelled, policy: Path, tmp_path: Path
) -> None:
    """An image that a worker would not take, by its bytes, pixels or frames, is one bad line of an evaluation."""
    (tmp_path / "sound").write_bytes((labelled.path.parent / labelled.files[0]).read_bytes())
    (tmp_path / "bad").write_bytes(BROKEN[name][1])
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"image": one, "labels": {"violence": 1}}) + "\n" for one in ("bad", "sound")))
    scored = score([open_judge(calibrated.path, policy=policy)], [path], part=None, say=lambda _: None)
    assert scored.ids == ("a.jsonl:2",)
    (bad,) = scored.unusable.named
    assert (bad.line, bad.why.startswith(("image: ", "image: image.data: "))) == (1, True)


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("MAX_EVENT_BYTES", "1024", r"image: has more than 1024 bytes \(max_event_bytes\)"),
        ("MAX_EVENT_BYTES", "1900", r"too_large: \d+ bytes; 1900 are read \(max_event_bytes\)"),
        ("MAX_IMAGE_PIXELS", "100", r"image: image\.data: 30 x 24 pixels; .* \(max_image_pixels\)"),
    ],
)
def test_the_limits_are_those_of_the_settings(
    setting: str,
    value: str,
    why: str,
    checkpoint: Path,
    labelled: Labelled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever has a worker take smaller images imports with those limits, and is told of the first line beyond."""
    monkeypatch.setenv(f"FAIRWAY_{setting}", value)
    (tmp_path / "one").write_bytes((labelled.path.parent / labelled.files[0]).read_bytes())
    path = tmp_path / "a.jsonl"
    path.write_text('{"image": "one", "labels": {"violence": 1}}')
    assert run_import(checkpoint, tmp_path / "out", path) == 2
    why = rf"none of the labelled images could be used: 1 lines were bad.*; the first is line 1 of a\.jsonl: {why}"
    assert re.search(why, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def refused(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_texts_and_images_are_not_mistaken(
    checkpoint: Path,
    calibrated: Bundle,
    labelled: Labelled,
    policy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Texts for a model of images, images for one of texts, and two models that read neither alike are refused."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "words", "labels": {"violence": 1}}\n')
    report = ["--report", tmp_path / "report"]
    said = refused(["evaluate", calibrated.path, "--data", texts, "--policy", policy, *report], capsys)
    assert "line 1 of texts.jsonl labels a text, but calibrated reads images: give it lines that have `image`" in said
    said = refused(["evaluate", "stub", "--data", labelled.path, *report], capsys)
    assert "line 1 of made_up.jsonl labels an image, but stub reads texts: give it lines that have `text`" in said
    said = refused(["compare", calibrated.path, calibrated.path, "--data", texts, "--policy", policy], capsys)
    assert "labels a text, but calibrated reads images" in said
    options = ["--labels", checkpoint.with_name("map.yaml"), "--out", tmp_path / "out", "--data", texts]
    said = refused(["import", checkpoint, *options], capsys)
    assert "line 1 of texts.jsonl labels a text, but imported reads images" in said
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "report").exists()


def test_a_model_of_texts_and_one_of_images_have_nothing_to_compare(
    calibrated: Bundle, labelled: Labelled, policy: Path
) -> None:
    """What cannot be given to both is refused before a row is read."""
    judges = [open_judge(calibrated.path, policy=policy), open_judge(Path("stub"))]
    with pytest.raises(ExportError, match=r"calibrated reads images and stub texts: .*compare two bundles that read"):
        score(judges, [labelled.path], part=None, say=lambda _: None)


def test_memory_does_not_grow_with_the_number_of_images(calibrated: Bundle, policy: Path, tmp_path: Path) -> None:
    """Four times as many images of half a megabyte take no more memory at once."""
    for number in range(48):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(number), "image/png"))
    judge = open_judge(calibrated.path, policy=policy)
    peaks = [peak_of(judge, tmp_path, count) for count in (12, 48)]
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 40e6


def noise(seed: int) -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (420, 400, 3), dtype=np.uint8))


def peak_of(judge: Judge, folder: Path, count: int) -> int:
    path = folder / "a.jsonl"
    rows = ({"image": f"{number}.png", "labels": {"violence": number % 2}} for number in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracemalloc.start()
    scored = score([judge], [path], part=None, say=lambda _: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(scored.ids) == count
    return peak
