"""A folder in, a verified `Bundle` out: nothing in it is parsed before its size and digest are what the manifest says.

The order is the point:

1. the manifest, bounded in size (later: its signature, over the same bytes, before they are parsed);
2. the folder: no links, no devices, nothing unlisted, nothing missing, every size as listed;
3. every digest;
4. only then the calibration is parsed, and other files are handed out, each read checked against its digest again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stream.bundle.calibration import Calibration, parse_calibration
from stream.bundle.manifest import (
    MANIFEST_NAME,
    MAX_FILES,
    MAX_JSON_BYTES,
    FileEntry,
    Manifest,
    parse_manifest,
)
from stream.errors import BundleError

__all__ = ["Bundle", "load"]

_CHUNK_BYTES = 1024 * 1024  # hashing speed is flat from here on

# A link, a pipe or a device put in a file's place is refused when it is opened, not only when it is listed. Systems
# without these flags still have the check of the listing.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every file was verified when it was loaded, and is again when it is read."""

    path: Path
    manifest: Manifest
    digest: str
    """`sha256:` and the hex digest of the manifest, which pins every other file."""
    calibration: Calibration
    calibration_digest: str

    def read(self, name: str) -> bytes:
        """Return the bytes of the listed file `name`; raise `BundleError` if it is not listed or has changed."""
        return _read_listed(self.path, self.manifest.files, name)


def load(path: Path | str) -> Bundle:
    """Verify the bundle in the folder `path` and return it; or raise `BundleError`: what is wrong, with which file."""
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(f"there is no bundle folder {folder}; `fairway bundle show` takes the folder, not a file")
    manifest_bytes = _read_bounded(folder, MANIFEST_NAME, limit=MAX_JSON_BYTES)
    # Signatures: verify one over `manifest_bytes` here, before the next line parses them.
    manifest = parse_manifest(manifest_bytes)
    _check_listing(folder, manifest.files)
    _check_digests(folder, manifest.files)
    calibration_bytes = _read_listed(folder, manifest.files, manifest.calibration, limit=MAX_JSON_BYTES)
    return Bundle(
        path=folder,
        manifest=manifest,
        digest=_digest(manifest_bytes),
        calibration=parse_calibration(calibration_bytes, manifest.harms, name=manifest.calibration),
        calibration_digest=_digest(calibration_bytes),
    )


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _check_listing(folder: Path, files: Mapping[str, FileEntry]) -> None:
    """Raise `BundleError` unless the folder holds the listed files with the listed sizes, and nothing else."""
    try:
        found = _walk(folder)
    except OSError as error:
        raise BundleError(f"cannot list {folder}: {error.strerror}; a worker must be able to read all of it") from None
    unlisted = sorted(set(found) - set(files) - {MANIFEST_NAME})
    if unlisted:
        raise BundleError(f"{folder} holds {unlisted[0]!r}, which its manifest does not list: remove it")
    missing = sorted(set(files) - set(found))
    if missing:
        raise BundleError(f"{folder} lacks {missing[0]!r}, which its manifest lists: fetch the bundle again")
    for name, entry in files.items():
        if found[name] != entry.bytes:
            raise BundleError(
                f"{name} in {folder} has {found[name]} bytes, its manifest says {entry.bytes}: fetch the bundle again"
            )


def _walk(root: Path) -> dict[str, int]:
    """The path below `root` and the size of every file; raise `BundleError` for what is neither a file nor a folder."""
    found: dict[str, int] = {}
    folders = [root]
    seen = 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > MAX_FILES + 1:  # the manifest is not in its own list
                    raise BundleError(f"{root} holds more than {MAX_FILES} entries, which no bundle does")
                name = Path(entry.path).relative_to(root).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    raise BundleError(f"{name!r} in {root} is a link or a device: a bundle holds plain files only")
    return found


def _check_digests(folder: Path, files: Mapping[str, FileEntry]) -> None:
    for name, entry in files.items():
        sha256 = hashlib.sha256()
        with _open_plain(folder, name) as descriptor:
            for chunk in _chunks(descriptor, entry.bytes, f"{name} in {folder}"):
                sha256.update(chunk)
        _check_digest(folder, name, sha256.hexdigest(), entry)


def _check_digest(folder: Path, name: str, sha256: str, entry: FileEntry) -> None:
    if sha256 != entry.sha256:
        raise BundleError(
            f"{name} in {folder} has digest sha256:{sha256}, its manifest says sha256:{entry.sha256}: "
            "the file was damaged or changed; fetch the bundle again"
        )


def _read_listed(folder: Path, files: Mapping[str, FileEntry], name: str, *, limit: int | None = None) -> bytes:
    """Read a listed file whole and check what was read, so that what is parsed is what was verified."""
    entry = files.get(name)
    if entry is None:
        raise BundleError(f"the manifest of {folder} does not list {name!r}")
    content = _read_bounded(folder, name, limit=entry.bytes if limit is None else limit)
    _check_digest(folder, name, hashlib.sha256(content).hexdigest(), entry)
    return content


@contextmanager
def _open_plain(folder: Path, name: str) -> Iterator[int]:
    """Open the regular file `name`, without following a link at its end, and give its file descriptor."""
    try:
        descriptor = os.open(folder / name, _OPEN_FLAGS)
    except OSError as error:
        raise BundleError(
            f"cannot read {name} in {folder}: {error.strerror}; a bundle holds plain files only"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleError(f"{name!r} in {folder} is a link or a device: a bundle holds plain files only")
        yield descriptor
    finally:
        os.close(descriptor)


def _read_bounded(folder: Path, name: str, *, limit: int) -> bytes:
    with _open_plain(folder, name) as descriptor:
        return b"".join(_chunks(descriptor, limit, f"{name} in {folder}"))


def _chunks(descriptor: int, limit: int, what: str) -> Iterator[bytes]:
    """Yield the file's bytes; raise `BundleError` as soon as there are more than `limit`, whatever its size claims."""
    total = 0
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        total += len(chunk)
        if total > limit:
            raise BundleError(f"{what} is longer than {limit} bytes, the most it may have")
        yield chunk
