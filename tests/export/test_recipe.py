"""The whole way from labelled text to a bundle, on texts made up here."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from export.__main__ import main
from export.data.dataset import HARMS, read_dataset
from export.data.splits import split
from export.errors import ExportError
from export.making.lite import make_lite
from export.models.lite import Training
from export.models.logits import text_logits
from export.recipe import LITE, build
from stream.bundle import Bundle, TextInput, load
from stream.bundle.evaluation import parse_evaluation
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import WindowTokenizer
from stream.uncertainty.calibration import Calibrator
from tests.bundles import UNSIGNED
from tests.labelled import made_up_lines

pytestmark = pytest.mark.export

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = replace(
    LITE,
    input=TextInput(max_tokens=24, stride=4, max_windows=4),  # short, so that some texts have several windows
    make=make_lite(Training(epochs=8, batch_size=32, weight_decays=(1e-6, 1e-5))),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of made-up texts, enough for 30 positives of each harm in the test split."""
    folder = tmp_path_factory.mktemp("data")
    with gzip.open(folder / "made_up.jsonl.gz", "wt") as file:
        file.write("\n".join(made_up_lines(1400)))
    return folder


def build_quietly(data: Path, out: Path) -> Bundle:
    """Build a quick bundle without a word."""
    return build(data, out, recipe=QUICK, created_at=NOW, say=lambda _: None)


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle built from the made-up texts; leave its folder as it is."""
    return build_quietly(data, tmp_path_factory.mktemp("models") / "quick")


def test_the_bundle_verifies(bundle: Bundle) -> None:
    """What the recipe writes, the service accepts, and it says what it was told."""
    again = load(bundle.path, UNSIGNED)
    assert again.digest == bundle.digest
    assert (again.manifest.harms, again.manifest.input, again.manifest.created_at) == (HARMS, QUICK.input, NOW)


def test_the_same_data_give_the_same_bytes(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    """Two builds of the same data, recipe and time are the same bundle, byte for byte."""
    assert build_quietly(data, tmp_path / "again").digest == bundle.digest


def test_figures_are_those_of_the_served_model(bundle: Bundle, data: Path) -> None:
    """Average precision and AUROC are scikit-learn's, of the packed model on the test split's human labels."""
    dataset = read_dataset(data)
    test = dataset.take(split(dataset.texts).test)
    assert isinstance(bundle.manifest.input, TextInput)
    reader = WindowTokenizer.of(bundle.read("tokenizer.json"), bundle.manifest.input)
    session = open_session(bundle.read("model.onnx"), "cpu", signature=reads_tokens(len(HARMS)))
    logits = text_logits(session, reader.read(test.texts), harms=len(HARMS))
    fitted = bundle.calibration.harms.values()
    calibrator = Calibrator(a=np.array([harm.a for harm in fitted]), b=np.array([harm.b for harm in fitted]))
    probabilities = calibrator.apply(logits)
    rows = parse_evaluation(bundle.read("evaluation.json"), name="evaluation.json").measurements
    for i, harm in enumerate(HARMS):
        (row,) = (row for row in rows if (row.harm, row.part, row.labels) == (harm, "all", "human"))
        known = ~np.isnan(test.labels[:, i]) & ~test.silver
        truth, scores = test.labels[known, i], probabilities[known, i]
        assert (row.n, row.positives) == (len(truth), truth.sum())
        assert row.average_precision == pytest.approx(average_precision_score(truth, scores))
        assert row.auroc == pytest.approx(roc_auc_score(truth, scores))


def test_the_model_learns_what_the_words_say(bundle: Bundle) -> None:
    """Words that mark a harm in nine texts of ten are found far above chance."""
    rows = parse_evaluation(bundle.read("evaluation.json"), name="evaluation.json").measurements
    overall = [row for row in rows if (row.part, row.labels) == ("all", "human")]
    assert all(row.auroc is not None and row.auroc > 0.8 for row in overall)


def test_the_calibration_is_by_role_too(bundle: Bundle) -> None:
    """Items are counted by role, as the data note it, and the roles' counts add up to the whole."""
    for harm in bundle.calibration.harms.values():
        assert harm.roles
        assert np.sum([part.harmful for part in harm.roles.values()], axis=0).tolist() == list(harm.harmful)
        assert sum(part.n_harmless for part in harm.roles.values()) == harm.n_harmless


def test_training_data_are_counted_by_source(bundle: Bundle, data: Path) -> None:
    """The manifest counts the rows learnt from by source, with their licences."""
    dataset = read_dataset(data)
    learning = dataset.take(split(dataset.texts).learning)
    expected = [(name, (learning.sources == name).sum()) for name in ("advbench", "edos")]
    assert [(used.source, used.rows) for used in bundle.manifest.training_data] == expected
    assert [used.licence for used in bundle.manifest.training_data] == ["MIT", "CC0-1.0"]


def test_no_text_of_the_data_is_in_the_bundle(bundle: Bundle, data: Path) -> None:
    """No training text, all of which are longer than a phrase, can be found in any file of the bundle."""
    files = [bundle.read(name) for name in bundle.manifest.files]
    texts = [text for text in read_dataset(data).texts if len(text.split()) > 5]
    assert not any(text.encode() in content for text in texts for content in files)


def test_progress_names_bad_lines(data: Path, tmp_path: Path) -> None:
    """A line left out, and lines set aside for testing, are said aloud while the export goes on."""
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    aside = json.dumps({**json.loads(made_up_lines(1)[0]), "split": "test"})
    (folder / "more.jsonl").write_text(f"{{\n{aside}\n")
    said: list[str] = []
    build(folder, tmp_path / "out", recipe=QUICK, created_at=NOW, say=said.append)
    assert any("line 1 of more.jsonl" in line for line in said)
    assert any("left out 1 lines of other splits" in line for line in said)


def test_an_unlicensed_source_stops_before_training(tmp_path: Path) -> None:
    """A source whose licence is not recorded stops the export before anything is written."""
    (tmp_path / "a.jsonl").write_text(made_up_lines(1)[0].replace("advbench", "scraped"))
    with pytest.raises(ExportError, match="'scraped'"):
        build_quietly(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("count", "known"), [(2, True), (200, False)])
def test_too_little_data_is_an_error(tmp_path: Path, count: int, known: bool) -> None:
    """Data too few to fill every split, or without a harmful label to choose a model by, are refused."""
    lines = made_up_lines(count) if known else [line.replace(": 1", ": null") for line in made_up_lines(count)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ExportError, match="too few texts"):
        build_quietly(tmp_path, tmp_path / "out")


def test_command_line_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export that cannot be done says why on stderr and exits with 2."""
    assert main(["build", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "export: there is no *.jsonl.gz below" in capsys.readouterr().err


def test_command_line_builds(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line builds the lite bundle and says its digest last."""
    arguments = ["build", "--data", str(data), "--out", str(tmp_path / "lite"), "--created-at", NOW.isoformat()]
    assert main(arguments) == 0
    assert load(tmp_path / "lite", UNSIGNED).digest in capsys.readouterr().err.splitlines()[-1]
