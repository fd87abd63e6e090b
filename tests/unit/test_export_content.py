"""Labelled images as lines of a file: what is read of them, what is refused by line, what is never opened."""

from __future__ import annotations

import base64
import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.data import labelled
from export.data.content import Picture, Text, event_of, read_picture, why_unscored
from export.data.items import PIXELS, pixel_bucket
from export.data.labelled import Asking, Numbered, Unusable, chunks, read_rows
from export.data.splits import SPLIT_NAMES, split, split_of, text_digest
from export.errors import ExportError
from stream.events import FailCondition
from stream.scoring.bare import PictureError
from tests.hostile.images import BROKEN, SOUND, png, png_chunk
from tests.pictures import drawn, encoded

LIMIT = 100_000
IMAGES = Asking("a model", "image", max_event_bytes=LIMIT)
GOOD = {"image": "1.png", "labels": {"gore": 1}}
PNG = png(30, 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image, beside one with another; the names of both are in no message."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "1.png").write_bytes(PNG)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(PNG)
    return inside


def read(folder: Path, *rows: object) -> tuple[list[Numbered], Unusable]:
    """What is read of a file of these rows in `folder`."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unusable = Unusable()
    return list(read_rows([path], unusable, asking=IMAGES)), unusable


def test_an_image_is_read_from_beside_its_line(folder: Path) -> None:
    """The event has the file's bytes in base64 and the row's role, and none of its labels or groups."""
    row = {**GOOD, "role": "output", "prompt": "Draw it.", "groups": ["gender:women"], "split": "test", "lang": "en"}
    (numbered,), unusable = read(folder, row)
    assert unusable.count == 0
    assert json.loads(numbered.event()) == {
        "id": "1",
        "created_at": "2026-01-01T00:00:00Z",
        "role": "output",
        "image": {"media_type": "image/png", "data": base64.b64encode(PNG).decode()},
        "prompt": "Draw it.",
        "locale": "en",
    }
    assert numbered.content.kinds == {"size": "0-49999 pixels", "format": "png"}


def test_a_file_of_lines_may_be_compressed(folder: Path) -> None:
    """Paths in a compressed file are from its folder as well."""
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    unusable = Unusable()
    assert len(list(read_rows([folder], unusable, asking=IMAGES))) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing.png", "image: is a path to nothing"),
        ("1.png/further", "image: is a path to nothing"),
        ("1\0.png", "image: is a path to nothing"),
        ("../outside/secret.png", "image: is not a path below the folder"),
        ("below/../1.png", "image: is not a path below the folder"),
        ("{outside}/secret.png", "image: is not a path below the folder"),
        ("link.png", "image: is a link out of the folder"),
        ("linked/secret.png", "image: is a link out of the folder"),
        ("round.png", "image: is a path to nothing"),
        ("below", "image: is no file"),
        ("pipe", "image: is no file"),
        (".", "image: is no file"),
        ("empty.png", "image: is no PNG, JPEG, WebP or GIF"),
        ("a.jsonl", "image: is no PNG, JPEG, WebP or GIF"),
        ("large.png", f"image: has more than {LIMIT} bytes (max_event_bytes)"),
        ("", "image: String should have at least 1 character"),
        ("x" * 1025, "image: String should have at most 1024 characters"),
        ("x" * 1024, "image: is a path to nothing"),
        (7, "image: Input should be a valid string"),
    ],
)
def test_what_is_no_image_below_the_folder_is_named_by_line(folder: Path, name: object, why: str) -> None:
    """A path that leads elsewhere, to nothing or to no image is named, without the path; the rest is read."""
    outside = folder.parent / "outside"
    (folder / "below").mkdir()
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "linked").symlink_to(outside)
    (folder / "round.png").symlink_to("round.png")
    os.mkfifo(folder / "pipe")
    (folder / "empty.png").touch()
    (folder / "large.png").write_bytes(png(before=png_chunk(b"tEXt", bytes(LIMIT))))
    path = name.replace("{outside}", str(outside)) if isinstance(name, str) else name
    rows, unusable = read(folder, GOOD, {**GOOD, "image": path}, GOOD)
    assert [row.line for row in rows] == [1, 3]
    (line,) = unusable.named
    assert (line.file, line.line) == ("a.jsonl", 2)
    assert line.why.startswith(why)
    assert "secret" not in line.why


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    """Links that stay below the folder are how data sets share files; the folder itself may be one."""
    (folder / "2.png").symlink_to("1.png")
    linked = folder.parent / "linked"
    linked.symlink_to(folder)
    rows, unusable = read(linked, {**GOOD, "image": "2.png"})
    assert (len(rows), unusable.count) == (1, 0)


def test_a_file_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says of a file is said of its line, without the path."""

    def forbidden(path: Path, _: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(PictureError, match=r"^cannot be read: Permission denied$"):
        read_picture(folder.resolve(), "1.png", max_bytes=LIMIT)


_STEP = st.sampled_from(["..", ".", "", "1.png", "down", "up", "out", "secret.png", "outside", "inside", "/", "~"])


@given(steps=st.lists(_STEP, max_size=6), rooted=st.booleans())
def test_no_path_leads_out_of_the_folder(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], rooted: bool
) -> None:
    """Whatever steps a path is made of, what is read of it is the image inside, never the one outside."""
    base = tmp_path_factory.getbasetemp() / "escapes"
    inside = base / "inside"
    if not base.exists():
        (inside / "down").mkdir(parents=True)
        (base / "outside").mkdir()
        (base / "outside" / "secret.png").write_bytes(png(7, 7))
        (base / "secret.png").write_bytes(png(7, 7))
        (inside / "1.png").write_bytes(PNG)
        (inside / "down" / "up").symlink_to("..")
        (inside / "out").symlink_to(base / "outside")
    name = "/".join(steps)
    try:
        found = read_picture(inside.resolve(), f"{base}/{name}" if rooted else name, max_bytes=LIMIT)
    except PictureError:
        return
    assert found.data == PNG


def test_no_more_is_read_than_a_worker_takes(folder: Path) -> None:
    """A file of 256 MB is refused without being in memory."""
    with (folder / "huge.png").open("wb") as file:
        file.truncate(2**28)
    tracemalloc.start()
    with pytest.raises(PictureError, match="more than"):
        read_picture(folder.resolve(), "huge.png", max_bytes=LIMIT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * LIMIT


@pytest.mark.parametrize("name", SOUND)
def test_sound_images_of_every_kind_are_read(folder: Path, name: str) -> None:
    """Their format is what their bytes say, whatever the file is called."""
    media_type, data = SOUND[name]
    (folder / "1.png").write_bytes(data)
    (numbered,), _ = read(folder, GOOD)
    assert numbered.content.kinds["format"] == media_type.removeprefix("image/")


@pytest.mark.parametrize("name", BROKEN)
def test_no_broken_image_raises(folder: Path, name: str) -> None:
    """A broken image is a row for the decoder to refuse, or one bad line, and never an end."""
    (folder / "1.png").write_bytes(BROKEN[name][1])
    rows, unusable = read(folder, GOOD)
    assert len(rows) + unusable.count == 1
    assert all(line.why.startswith("image: ") for line in unusable.named)


def test_copies_that_differ_in_metadata_share_a_digest(folder: Path) -> None:
    """A comment or EXIF makes no other image, and so no other split; one other pixel does."""
    picture = drawn(20, 10)
    exif = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}
    files = [
        encoded(picture, "image/jpeg"),
        encoded(picture, "image/jpeg", **exif),
        encoded(drawn(20, 11), "image/jpeg"),
    ]
    digests = []
    for number, data in enumerate(files):
        (folder / f"{number}.jpg").write_bytes(data)
        digests.append(read_picture(folder.resolve(), f"{number}.jpg", max_bytes=LIMIT).digest)
    assert files[0] != files[1]
    assert digests[0] == digests[1] != digests[2]


def test_a_text_for_a_model_of_images_is_refused(folder: Path) -> None:
    """It is said which line labels a text, which model reads images, and what to give it."""
    text = {"text": "words", "labels": {"gore": 1}}
    with pytest.raises(ExportError, match=r"line 2 of a\.jsonl labels a text, but a model reads images: .* `image`"):
        read(folder, GOOD, text)


def test_an_image_for_a_model_of_texts_is_refused_unread(folder: Path) -> None:
    """The other way round too, and the image's file is not looked for."""
    path = folder / "a.jsonl"
    path.write_text(json.dumps({**GOOD, "image": "missing.png"}))
    texts = Asking("a model", "text", max_event_bytes=LIMIT)
    with pytest.raises(ExportError, match=r"labels an image, but a model reads texts: give it lines that have `text`"):
        list(read_rows([path], Unusable(), asking=texts))


def test_images_are_read_when_they_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices end when their images have too many bytes, and no image is read before its slice."""
    read_so_far = 0

    def counted(where: Path, name: str, *, max_bytes: int) -> Picture:
        nonlocal read_so_far
        read_so_far += 1
        return read_picture(where, name, max_bytes=max_bytes)

    monkeypatch.setattr(labelled, "read_picture", counted)
    monkeypatch.setattr(labelled, "MAX_CHUNK_BYTES", 3 * len(PNG) - 1)
    path = folder / "a.jsonl"
    path.write_text((json.dumps(GOOD) + "\n") * 8)
    slices: Iterator[list[Numbered]] = chunks(read_rows([path], Unusable(), asking=IMAGES))
    assert [(len(one), read_so_far) for one in slices] == [(3, 3), (3, 6), (2, 8)]


def test_slices_of_small_rows_end_at_a_number(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """However small they are, no more rows are scored together than in a worker; none is lost or repeated."""
    monkeypatch.setattr(labelled, "MAX_CHUNK_ROWS", 5)
    rows, _ = read(folder, *[GOOD] * 12)
    found = list(chunks(rows))
    assert [len(one) for one in found] == [5, 5, 2]
    assert [row.line for one in found for row in one] == list(range(1, 13))


def test_buckets_of_pixels() -> None:
    """Each bucket begins with the number in its name."""
    assert [pixel_bucket(n) for n in (0, 49_999, 50_000, 499_999, 500_000, 1_999_999, 2_000_000, 10**9)] == [
        PIXELS[at] for at in (0, 0, 1, 1, 2, 2, 3, 3)
    ]


@given(texts=st.lists(st.text(min_size=1), max_size=20))
def test_one_digest_is_in_the_split_that_many_are_divided_into(texts: list[str]) -> None:
    """Rows that come one by one are divided as columns are."""
    divided = split(texts)
    for number, text in enumerate(texts):
        assert number in getattr(divided, split_of(text_digest(text)))


def test_digests_of_images_are_divided_by_the_same_shares() -> None:
    """Any digest will do: shares of evenly spread ones are those of the splits."""
    parts = [split_of(f"{n:05x}" + "0" * 59) for n in range(0, 2**20, 97)]
    shares = [np.mean([part == name for part in parts]) for name in SPLIT_NAMES]
    np.testing.assert_allclose(shares, [0.63, 0.07, 0.15, 0.15], atol=1e-3)


def test_fields_that_are_not_known_are_left_out() -> None:
    """None is no value of an event."""
    assert json.loads(event_of(Text("words"), id="1", role="post", prompt=None, locale="en")) == {
        "id": "1",
        "created_at": "2026-01-01T00:00:00Z",
        "role": "post",
        "text": "words",
        "locale": "en",
    }


def test_why_there_is_no_score() -> None:
    """What cannot be looked at is told from what the model failed on."""
    assert why_unscored(1 << FailCondition.UNSUPPORTED).startswith("unsupported: ")
    assert why_unscored(1 << FailCondition.SCORER_ERROR) == "the model gave no score"
