"""`export evaluate` and `export compare`, as they are run, on texts made up here and the stub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from export.__main__ import main
from export.measuring.scored import open_judge
from export.reporting.report import evaluate_bundle, write_report

pytestmark = pytest.mark.export

ROOT = Path(__file__).parents[2]
MARK = "unmistakable"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 made-up texts, every one with a word that must be in no report; sources have names that are not plain."""
    draw = np.random.default_rng(4)
    path = tmp_path_factory.mktemp("data") / "made_up.jsonl"
    rows = [
        {
            "id": f"id-{number}",
            "text": f"{MARK} " + "".join(chr(97 + int(digit)) for digit in str(number)) * (1 + 40 * (number % 2)),
            "source": [HOSTILE, "_$a$", "tiny"][2 if number < 5 else number % 2],
            "role": ["post", "prompt"][number % 2],
            "lang": ["en", "de"][number % 2],
            "groups": ["gender:women"] if number % 3 else [],
            "labels": {"hate": int(draw.random() < 0.3), "violence": int(draw.random() < 0.3)},
        }
        for number in range(700)
    ]
    path.write_text("{\n" + "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def report(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `export evaluate` wrote; leave it as it is."""
    folder = tmp_path_factory.mktemp("report") / "of" / "stub"
    assert main(["evaluate", "stub", "--data", str(data), "--report", str(folder)]) == 0
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_report_is_a_page_with_pictures_and_tables(report: Path) -> None:
    """One page, tables as JSON, and a picture of each kind for every kind of part of which there are two."""
    files = set(files_of(report))
    assert {"index.html", "evaluation.json", "curves.json", "unusable.json", "figures/identity_terms.svg"} <= files
    for kind in ("", "_by_role", "_by_source", "_by_locale", "_by_length"):
        assert {f"figures/precision_recall{kind}.svg", f"figures/reliability{kind}.svg"} <= files


def test_the_page_needs_nothing_else(report: Path) -> None:
    """The page refers to no other file and no address, runs no script, and shows every picture from within."""
    page = (report / "index.html").read_text()
    assert set(re.findall(r"""(?:src|href)=["']?([^"'>]{0,19})""", page)) == {"data:image/svg+xml;"}
    assert "<script" not in page
    shown = [base64.b64decode(content) for content in re.findall(r"base64,([^\"]+)", page)]
    assert sorted(shown) == sorted(content for name, content in files_of(report).items() if name.endswith(".svg"))


def test_names_from_the_data_are_text(report: Path) -> None:
    """A source that is named like markup is shown as its name, in the page and in the pictures."""
    page = (report / "index.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for name, content in files_of(report).items():
        if name.endswith(".svg"):
            tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(content).iter()}  # noqa: S314 - our own
            assert not tags & {"script", "a", "image", "foreignObject"}


def test_no_text_is_in_the_report(report: Path, data: Path) -> None:
    """Neither a text nor an id, a path or a time is in any file of the report."""
    for content in files_of(report).values():
        assert MARK.encode() not in content
        assert b"id-1" not in content
        assert str(data.parent).encode() not in content


def test_n_and_prevalence_stand_beside_every_figure(report: Path) -> None:
    """Every measured row has n, harmful items and prevalence; figures of too few texts are null, with their n."""
    tables = json.loads((report / "evaluation.json").read_text())
    assert all(row["n"] >= row["positives"] >= 0 and row["prevalence"] for row in tables["measurements"])
    (tiny,) = (row for row in tables["measurements"] if (row["harm"], row["part"]) == ("hate", "source=tiny"))
    assert (tiny["n"], tiny["average_precision"], tiny["ece"]) == (5, None, None)
    assert "not enough data" in (report / "index.html").read_text()
    for row in tables["measurements"]:
        if row["average_precision"] is not None:
            assert row["average_precision_low"] <= row["average_precision"] <= row["average_precision_high"]


def test_unusable_lines_are_counted_and_named(report: Path) -> None:
    """The line that is no row is in the table by file and number."""
    unusable = json.loads((report / "unusable.json").read_text())
    assert unusable["count"] == 1
    assert (unusable["named"][0]["file"], unusable["named"][0]["line"]) == ("made_up.jsonl", 1)


def test_drawn_curves_are_points_of_the_exact_ones(report: Path) -> None:
    """Recall rises from a first point to 1, and the last precision is the prevalence."""
    drawn = json.loads((report / "curves.json").read_text())
    assert drawn
    for one in drawn:
        if one["line"]:
            assert one["line"]["recall"] == sorted(one["line"]["recall"])
            assert one["line"]["recall"][-1] == 1
            assert one["line"]["precision"][-1] >= round(one["positives"] / one["n"], 4)


def test_the_same_texts_give_the_same_bytes(report: Path, data: Path, tmp_path: Path) -> None:
    """Another process, with another hash seed and at another time, writes the same report to the last byte."""
    command = [sys.executable, "-m", "export", "evaluate", "stub", "--data", str(data)]
    command += ["--report", str(tmp_path / "again")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    first, second = (
        {name: hashlib.sha256(content).hexdigest() for name, content in files_of(folder).items()}
        for folder in (report, tmp_path / "again")
    )
    assert first == second


def test_measuring_takes_no_torch(data: Path) -> None:
    """A bundle can be evaluated where PyTorch is not installed."""
    code = (
        "import sys; sys.modules['torch'] = None; from export.__main__ import main; "
        f"sys.exit(main(['compare', 'stub', 'stub', '--data', {str(data)!r}]))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_a_comparison_names_ids_and_no_texts(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lite bundle against the stub: changed texts are in the file by id, and no text is anywhere."""
    folder = tmp_path / "report"
    assert main(["compare", "stub", "models/lite", "--data", str(data), "--report", str(folder)]) == 0
    printed = capsys.readouterr()
    changes = [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]
    assert changes
    assert all(re.fullmatch(r"id-\d+", change["id"]) for change in changes)
    assert MARK.encode() not in b"".join(files_of(folder).values())
    assert MARK not in printed.out + printed.err
    assert "line 1 of made_up.jsonl" in printed.err
    tables = json.loads((folder / "comparison.json").read_text())
    assert sum(count for _, _, count in tables["actions"]) == tables["items"] == 700
    assert sum(count for one, other, count in tables["actions"] if one != other) == len(changes)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["evaluate", "nowhere", "--data", "{data}", "--report", "{out}"], "there is no bundle folder nowhere"),
        (["evaluate", "stub", "--data", "nowhere.jsonl", "--report", "{out}"], "cannot read nowhere.jsonl"),
        (["evaluate", "stub", "--data", "{data}", "--report", "{data}/x"], "cannot write"),
        (["compare", "stub", "stub", "--data", "{data}", "--policy", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], why: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle, file, folder or policy that is wrong is one line on stderr and exit status 2."""
    filled = [argument.format(data=data, out=tmp_path / "out") for argument in arguments]
    assert main(filled) == 2
    assert f"export: {why}" in capsys.readouterr().err


def test_silver_texts_alone_are_drawn(tmp_path: Path) -> None:
    """Data that no person labelled are measured and drawn as silver, and the page says so."""
    rows = [
        {"text": "w" + "abcdefghij"[n % 10] * (n // 10 + 1), "labels": {"hate": n % 2}, "silver": True}
        for n in range(300)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = evaluate_bundle(open_judge(Path("stub")), [path], part=None, say=lambda _: None)
    assert {one.labels for one in measured.curves} == {"silver"}
    write_report(tmp_path / "report", measured)
    assert "Labelled by rules" in (tmp_path / "report" / "index.html").read_text()
