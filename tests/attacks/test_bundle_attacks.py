"""Folders that look like a bundle and must not be trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.bundle import Bundle
from stream.bundle import load as load_from
from stream.bundle.manifest import MAX_FILE_BYTES, MAX_FILES, MAX_JSON_BYTES
from stream.errors import BundleError
from tests.bundles import LITE, UNSIGNED, copy_of_lite, edit_manifest, replace_listed

Edit = Callable[[dict[str, Any]], None]  # Any: a manifest as json gives it


def load(folder: Path) -> Bundle:
    """Load what somebody with a trusted key might have signed, by mistake or not: only the signature is not asked."""
    return load_from(folder, UNSIGNED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound bundle, to be tampered with."""
    return copy_of_lite(tmp_path / "bundle", signed=False)


def _set_field(field: str, value: Any) -> Edit:  # Any: whatever an attacker writes there
    def edit(manifest: dict[str, Any]) -> None:
        manifest[field] = value

    return edit


def test_the_untouched_copy_loads(folder: Path) -> None:
    """The bundle that the attacks below start from is itself sound."""
    assert load(folder).digest == load(LITE).digest


def test_truncated_file(folder: Path) -> None:
    """A file shorter than listed is refused by its size."""
    os.truncate(folder / "model.onnx", 1000)
    with pytest.raises(BundleError, match=r"model\.onnx .* has 1000 bytes, its manifest says"):
        load(folder)


def test_wrong_digest(folder: Path) -> None:
    """One flipped bit in a file of the right size is refused by its digest."""
    path = folder / "tokenizer.json"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json .* damaged or changed"):
        load(folder)


def test_what_was_verified_is_what_is_used(folder: Path) -> None:
    """A file that is swapped for a link after the bundle was loaded changes nothing: it is not read again."""
    bundle = load(folder)
    for name in bundle.manifest.files:
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
    assert {name: bundle.read(name) for name in bundle.manifest.files} == {
        name: (LITE / name).read_bytes() for name in bundle.manifest.files
    }


def test_every_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of a bundle is opened twice, so that none can be another one between its check and its use."""
    opened: list[str] = []
    real = os.open

    def watch(path: Any, *arguments: Any, **keywords: Any) -> int:  # Any: whatever os.open takes
        opened.append(Path(path).relative_to(folder).as_posix())
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", watch)
    bundle = load(folder)
    bundle.read("model.onnx")
    assert sorted(opened) == sorted(["manifest.json", *bundle.manifest.files])


def test_file_growing_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows between the listing and the reading is read no further than its listed size."""
    real = os.open

    def grow(path: Any, *arguments: Any, **keywords: Any) -> int:  # Any: whatever os.open takes
        if Path(path).name == "model.onnx":
            with Path(path).open("ab") as file:
                file.write(b"more")
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", grow)
    with pytest.raises(BundleError, match=r"model\.onnx in .* is longer than \d+ bytes"):
        load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json"])
def test_newer_schema(folder: Path, name: str) -> None:
    """A schema version from the future is refused with the advice to upgrade, whatever else the file holds."""
    content = json.dumps({"schema_version": 2, "unheard_of": True}).encode()
    if name == "manifest.json":
        (folder / name).write_bytes(content)
    else:
        replace_listed(folder, {name: content})
    with pytest.raises(BundleError, match=r"schema version 2, this service reads up to 1: upgrade"):
        load(folder)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.json",
        "/etc/passwd",
        "a/../../outside.json",
        "C:\\outside.json",
        "..",
        "",
        "a//b",
        "./model.onnx",
        "nul\x00byte",
        "manifest.json",
        ".hidden",
        "a/b/c/d/e",
        "x" * 200,
    ],
)
def test_path_escape(folder: Path, path: str) -> None:
    """A listed path that is not a plain one below the folder is refused before anything at it is touched."""

    def list_it(manifest: dict[str, Any]) -> None:
        manifest["files"][path] = {"sha256": "0" * 64, "bytes": 1}

    edit_manifest(folder, list_it)
    with pytest.raises(BundleError, match=r"manifest\.json is not valid: files"):
        load(folder)


def test_named_path_escape(folder: Path) -> None:
    """A role in the manifest cannot point at a file outside the folder either."""
    edit_manifest(folder, _set_field("tokenizer", "../tokenizer.json"))
    with pytest.raises(BundleError, match=r"manifest\.json is not valid: tokenizer"):
        load(folder)


def test_symlink_to_a_file(folder: Path) -> None:
    """A link in the place of a file is refused, even to the very bytes that the manifest lists."""
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(LITE / "model.onnx")
    with pytest.raises(BundleError, match=r"'model\.onnx' .* is a link or a device"):
        load(folder)


def test_symlinked_manifest(folder: Path) -> None:
    """A link in the place of the manifest is refused before it is read."""
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to(LITE / "manifest.json")
    with pytest.raises(BundleError, match=r"'manifest\.json' in .* is a link or a device"):
        load(folder)


def test_symlink_to_a_folder(folder: Path) -> None:
    """A linked folder is refused, not walked into."""
    (folder / "more").symlink_to(LITE)
    with pytest.raises(BundleError, match=r"'more' .* is a link or a device"):
        load(folder)


def test_pipe(folder: Path) -> None:
    """A named pipe is refused and does not make the service wait for a writer."""
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(BundleError, match="is a link or a device"):
        load(folder)


def test_pipe_as_manifest(folder: Path) -> None:
    """A named pipe in the manifest's place does not make the service wait for a writer."""
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(BundleError, match="is a link or a device"):
        load(folder)


@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "sub/extra.bin"])
def test_unlisted_file(folder: Path, name: str) -> None:
    """A file that the manifest does not list is refused, in subfolders and hidden ones too."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(BundleError, match="which its manifest does not list"):
        load(folder)


def test_missing_file(folder: Path) -> None:
    """A listed file that is not there is named."""
    (folder / "CARD.md").unlink()
    with pytest.raises(BundleError, match=r"lacks 'CARD\.md'"):
        load(folder)


def test_endless_folder(folder: Path) -> None:
    """A folder with more entries than a bundle may have is not walked to its end."""
    for number in range(MAX_FILES + 1):
        (folder / f"{number}.bin").touch()
    with pytest.raises(BundleError, match="more than 64 entries"):
        load(folder)


def test_deep_folders(folder: Path) -> None:
    """Folders nested without end are not walked to their end, however few files they hold."""
    deep = folder.joinpath(*["d"] * (MAX_FILES + 2))
    deep.mkdir(parents=True)
    with pytest.raises(BundleError, match="more than 64 entries"):
        load(folder)


def test_folders_in_folders_in_folders(folder: Path) -> None:
    """Entries are counted over the whole tree: ten folders in each of ten folders are too many as well."""
    for number in range(100):
        (folder / str(number // 10) / str(number % 10)).mkdir(parents=True)
    with pytest.raises(BundleError, match="more than 64 entries"):
        load(folder)


def test_path_longer_than_the_system_allows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the system refuses to list is an error of ours, not a crash."""
    monkeypatch.chdir(folder)
    for _ in range(20):  # 20 names of 250 characters are beyond the 4,096 that a path may have
        Path("d" * 250).mkdir()
        os.chdir("d" * 250)
    with pytest.raises(BundleError, match=r"cannot list .*: File name too long"):
        load(folder)


def test_absurd_listed_size(folder: Path) -> None:
    """A listed size beyond what a model file can have is refused before a byte of it is read."""

    def claim(manifest: dict[str, Any]) -> None:
        manifest["files"]["model.onnx"]["bytes"] = 2**40

    edit_manifest(folder, claim)
    with pytest.raises(BundleError, match=r"files\.model\.onnx\.bytes: Input should be less than"):
        load(folder)


def test_absurd_real_size(folder: Path) -> None:
    """A file blown up to gigabytes, here a sparse one, is refused by its size and not read."""
    os.truncate(folder / "model.onnx", 2**40)
    with pytest.raises(BundleError, match="has 1099511627776 bytes"):
        load(folder)


def test_absurd_sum_of_sizes(folder: Path) -> None:
    """Files that are each as large as one may be, here sparse ones, are refused by their sum before one is read."""
    for name in ("a", "b", "c"):
        (folder / name).touch()
        os.truncate(folder / name, MAX_FILE_BYTES)
    with pytest.raises(BundleError, match=r"have 64\d{8} bytes together, a bundle may have 4294967296"):
        load(folder)


def test_absurd_manifest(folder: Path) -> None:
    """A manifest longer than its limit is read no further."""
    os.truncate(folder / "manifest.json", MAX_JSON_BYTES + 1)
    with pytest.raises(BundleError, match=r"manifest\.json in .* has 4194305 bytes, it may have 4194304"):
        load(folder)


def test_absurd_calibration(folder: Path) -> None:
    """A calibration longer than its limit is refused though its digest is as listed."""
    replace_listed(folder, {"calibration.json": b" " * (MAX_JSON_BYTES + 1)})
    with pytest.raises(BundleError, match=r"calibration\.json is longer than 4194304 bytes"):
        load(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema_version": "1"}',
        b'{"schema_version": NaN}',
    ],
    ids=["empty", "cut", "array", "null", "string", "not-utf8", "deep", "version-as-text", "nan"],
)
@pytest.mark.parametrize("name", ["manifest.json", "calibration.json"])
def test_bad_json(folder: Path, name: str, content: bytes) -> None:
    """Bytes that are not the JSON expected are refused with the file's name."""
    if name == "manifest.json":
        (folder / name).write_bytes(content)
    else:
        replace_listed(folder, {name: content})
    with pytest.raises(BundleError, match=f"{name} is not valid"):
        load(folder)


def test_unknown_field(folder: Path) -> None:
    """A manifest field that this version does not know is refused, since it may promise what is not kept."""
    edit_manifest(folder, _set_field("requires", "something new"))
    with pytest.raises(BundleError, match="requires: Extra inputs are not permitted"):
        load(folder)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (_set_field("harms", ["hate", "hate"]), "harms must be distinct"),
        (_set_field("artefacts", {"cuda": "model.onnx"}), "must have one for cpu"),
        (_set_field("card", "missing.md"), "files does not list missing.md"),
        (_set_field("input", {"max_tokens": 16, "stride": 14}), "stride .14. must be below"),
        (_set_field("created_at", "2026-01-01T00:00:00"), "created_at"),
    ],
)
def test_inconsistent_manifest(folder: Path, edit: Edit, complaint: str) -> None:
    """A manifest that contradicts itself is refused with the field that is wrong."""
    edit_manifest(folder, edit)
    with pytest.raises(BundleError, match=complaint):
        load(folder)


def _set_harm(field: str, value: Any) -> Edit:  # Any: whatever an attacker writes there
    def edit(calibration: dict[str, Any]) -> None:
        calibration["harms"]["hate"][field] = value

    return edit


def _drop_harm(calibration: dict[str, Any]) -> None:
    del calibration["harms"]["hate"]


def _shorten_histogram(calibration: dict[str, Any]) -> None:
    calibration["harms"]["hate"]["histogram"]["harmful"].pop()


def _negative_count(calibration: dict[str, Any]) -> None:
    calibration["harms"]["hate"]["histogram"]["harmful"][0] = -1


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (_set_harm("a", -1.0), r"harms\.hate\.a: Input should be greater than 0"),
        (_set_harm("b", float("nan")), r"harms\.hate\.b"),
        (_set_harm("n_harmful", 1.0), "the harmful histogram of hate counts"),
        (_drop_harm, "the manifest names"),
        (_shorten_histogram, "at least 1024 items"),
        (_negative_count, "greater than or equal to 0"),
    ],
)
def test_calibration_that_would_mislead(folder: Path, edit: Edit, complaint: str) -> None:
    """A calibration that turns the order around, counts wrongly or lacks a harm is refused, digests or not."""
    calibration = json.loads((folder / "calibration.json").read_bytes())
    edit(calibration)
    replace_listed(folder, {"calibration.json": json.dumps(calibration).encode()})
    with pytest.raises(BundleError, match=complaint):
        load(folder)


def test_errors_do_not_quote_the_file(folder: Path) -> None:
    """An error names the field that is wrong, not what an attacker wrote there."""
    edit_manifest(folder, _set_field("name", ["attacker's words"]))
    with pytest.raises(BundleError) as raised:
        load(folder)
    assert "attacker" not in str(raised.value)
