from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.data.dataset import HARMS, read_dataset
from export.errors import ExportError


def row(**changes: Any) -> dict[str, Any]:  # Any: rows are wrong on purpose
    """A row as the data folder has it."""
    labels = dict.fromkeys(HARMS) | {"hate": 1, "sexual": 0}
    return {"text": "a b c", "source": "davidson", "role": "post", "labels": labels, "split": "train"} | changes


def write(folder: Path, lines: list[str], name: str = "a.jsonl.gz") -> Path:
    """Write a data file of these lines."""
    with gzip.open(folder / name, "wt") as file:
        file.write("\n".join(lines))
    return folder


def test_labels_are_columns_with_nan_for_unknown(tmp_path: Path) -> None:
    """Labels come in the order of the harms, and null is unknown, never harmless."""
    labels = read_dataset(write(tmp_path, [json.dumps(row())])).labels
    assert labels.dtype == np.float32
    assert labels[0].tolist() == pytest.approx([0.0, 1.0, np.nan, np.nan, np.nan, np.nan], nan_ok=True)


@pytest.mark.parametrize(("value", "silver"), [(True, True), (1, True), (False, False), (None, False)])
def test_silver_in_every_form_that_sources_write(tmp_path: Path, value: object, silver: bool) -> None:
    """`silver` may be true, 1, false, null or absent."""
    lines = [json.dumps(row(silver=value)), json.dumps(row())]
    assert read_dataset(write(tmp_path, lines)).silver.tolist() == [silver, False]


def test_human_labels_are_unknown_where_silver(tmp_path: Path) -> None:
    """Labels given by a rule are unknown to whoever asks for those given by people."""
    data = read_dataset(write(tmp_path, [json.dumps(row(silver=True)), json.dumps(row())]))
    assert np.isnan(data.human_labels[0]).all()
    np.testing.assert_array_equal(data.human_labels[1], data.labels[1])


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    """The order of rows depends on names alone, so that the same data give the same model."""
    write(tmp_path, [json.dumps(row(text="second"))], "b.jsonl.gz")
    write(tmp_path, [json.dumps(row(text="first"))], "a.jsonl.gz")
    (tmp_path / "c.jsonl").write_text(json.dumps(row(text="third")))
    assert read_dataset(tmp_path).texts == ("first", "second", "third")


def test_other_splits_are_left_for_others(tmp_path: Path) -> None:
    """A row that the data set aside for testing is never learnt from."""
    data = read_dataset(write(tmp_path, [json.dumps(row()), json.dumps(row(text="secret", split="test"))]))
    assert (data.texts, data.held_out) == (("a b c",), 1)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Invalid JSON"),
        ("[]", "line: Input should be an object"),
        (json.dumps(row(text="")), "text"),
        (json.dumps(row(role="comment")), "role"),
        (json.dumps(row(labels={"hate": 1})), "labels.sexual"),
        (json.dumps(row(labels=dict.fromkeys(HARMS, 2))), "labels.sexual"),
        (json.dumps(row(labels=dict.fromkeys([*HARMS, "spam"], 0))), "labels.spam"),
    ],
)
def test_a_bad_line_is_left_out_and_named(tmp_path: Path, line: str, why: str) -> None:
    """A line that cannot be used is counted with its file, its number and the field that is wrong."""
    data = read_dataset(write(tmp_path, [json.dumps(row())] * 200 + [line]))
    assert len(data) == 200
    (bad,) = data.bad
    assert (bad.file, bad.line) == ("a.jsonl.gz", 201)
    assert why in bad.why


def test_many_bad_lines_stop_the_export(tmp_path: Path) -> None:
    """With more than one bad line in a hundred the folder is not what it is taken for."""
    with pytest.raises(ExportError, match=r"2 of 102 lines .* line 101 of a\.jsonl\.gz"):
        read_dataset(write(tmp_path, [json.dumps(row())] * 100 + ["{", "{"]))


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    """A folder without data files is refused with the option to mend."""
    with pytest.raises(ExportError, match="--data"):
        read_dataset(tmp_path)


def test_empty_files_are_an_error(tmp_path: Path) -> None:
    """Files without a single row are no data."""
    with pytest.raises(ExportError, match="0 of 0 lines"):
        read_dataset(write(tmp_path, []))


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """A file that was cut short stops the export: half the data would make another model."""
    path = write(tmp_path, [json.dumps(row())] * 100) / "a.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ExportError, match=r"cannot read .*a\.jsonl\.gz"):
        read_dataset(tmp_path)


def test_take_keeps_rows_together(tmp_path: Path) -> None:
    """Rows taken from a data set keep their columns aligned."""
    lines = [
        json.dumps(row(text=str(i), source=f"s{i}", role=role, groups=[f"axis:{i}"]))
        for i, role in enumerate(["post", "prompt", "output"])
    ]
    data = read_dataset(write(tmp_path, lines)).take(np.array([2, 0]))
    assert (data.texts, data.sources.tolist(), data.roles.tolist()) == (("2", "0"), ["s2", "s0"], ["output", "post"])
    assert data.groups == (("axis:2",), ("axis:0",))
    assert data.labels.shape == (2, 6)
