"""A folder in, a verified `Bundle` out: nothing in it is parsed before it is known whose it is, and that it is whole.

The order is the point:

1. the folder: few entries, plain files only, no file and no sum of files larger than a bundle may have;
2. the signature, over the bytes of the manifest as they lie there;
3. only then the manifest is parsed: no file missing, none unlisted, every size as listed;
4. every file is read once, and what was read has the digest listed;
5. only then the calibration and the models' graphs are looked at, and the bytes that were verified are handed out.

No file is opened twice, so there is no moment between check and use at which another could be put in its place.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stream.bundle.calibration import Calibration, parse_calibration
from stream.bundle.graph import check_graph
from stream.bundle.manifest import (
    MANIFEST_NAME,
    MAX_BUNDLE_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_JSON_BYTES,
    FileEntry,
    Manifest,
    parse_manifest,
)
from stream.bundle.signature import SIGNATURE_BYTES, SIGNATURE_NAME, Trust
from stream.errors import BundleError

__all__ = ["Bundle", "load", "look"]

_CHUNK_BYTES = 1024 * 1024  # hashing speed is flat from here on

_UNLISTED = frozenset({MANIFEST_NAME, SIGNATURE_NAME})
"""What no manifest lists: itself, and what is made from it."""

# A link, a pipe or a device put in a file's place is refused when it is opened, not only when it is listed. Systems
# without these flags still have the check of the listing.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every file was verified, and is held as it was then."""

    path: Path
    manifest: Manifest
    digest: str
    """`sha256:` and the hex digest of the manifest, which pins every other file."""
    signer: str | None
    """The name and fingerprint of the key that signed it; None where nobody need have."""
    calibration: Calibration
    calibration_digest: str
    manifest_bytes: bytes = field(repr=False)
    """As signed."""
    contents: Mapping[str, bytes] = field(repr=False)
    """By name, every file that the manifest lists."""

    def read(self, name: str) -> bytes:
        """Return the bytes of the listed file `name`; raise `BundleError` if it is not listed."""
        try:
            return self.contents[name]
        except KeyError:
            raise BundleError(f"the manifest of {self.path} does not list {name!r}") from None


def load(path: Path | str, trust: Trust) -> Bundle:
    """Verify the bundle in the folder `path` and return it; or raise `BundleError`: what is wrong, with which file.

    It is held in memory: a model is a few hundred megabytes at most on its way into the runtime anyway, and what is
    read a second time would have to be verified a second time.
    """
    folder = Path(path)
    found = look(folder)
    manifest_bytes = _read(folder, MANIFEST_NAME, limit=MAX_JSON_BYTES)
    signature = _read(folder, SIGNATURE_NAME, limit=SIGNATURE_BYTES) if SIGNATURE_NAME in found else None
    signer = trust.signer(manifest_bytes, signature, where=str(folder))
    manifest = parse_manifest(manifest_bytes)
    _check_listing(folder, found, manifest.files)
    contents = {name: _read_listed(folder, name, entry) for name, entry in manifest.files.items()}
    return assemble(folder, manifest_bytes, contents, signer=signer)


def assemble(folder: Path, manifest_bytes: bytes, contents: Mapping[str, bytes], *, signer: str | None) -> Bundle:
    """Make a bundle of bytes that are verified; raise `BundleError` where what they say cannot be served."""
    manifest = parse_manifest(manifest_bytes)
    calibration = contents[manifest.calibration]
    for name in dict.fromkeys(manifest.artefacts.values()):
        check_graph(contents[name], name=f"{name} in {folder}")
    return Bundle(
        path=folder,
        manifest=manifest,
        digest=_digest(manifest_bytes),
        signer=signer,
        calibration=parse_calibration(calibration, manifest.harms, name=manifest.calibration),
        calibration_digest=_digest(calibration),
        manifest_bytes=manifest_bytes,
        contents=contents,
    )


def look(folder: Path) -> dict[str, os.stat_result]:
    """Every file below `folder`, with nothing opened; raise `BundleError` where no bundle looks like that."""
    if not folder.is_dir():
        raise BundleError(f"there is no bundle folder {folder}; `fairway bundle show` takes the folder, not a file")
    if not os.path.lexists(folder / MANIFEST_NAME):  # first, as that is what is wrong with a folder of anything else
        raise BundleError(f"{folder} holds no {MANIFEST_NAME}: it is no bundle, or only half of one; fetch it again")
    try:
        found = _walk(folder)
    except OSError as error:
        raise BundleError(f"cannot list {folder}: {error.strerror}; a worker must be able to read all of it") from None
    limits = {MANIFEST_NAME: MAX_JSON_BYTES, SIGNATURE_NAME: SIGNATURE_BYTES}
    for name, status in found.items():
        if status.st_size > (limit := limits.get(name, MAX_FILE_BYTES)):
            raise BundleError(
                f"{name} in {folder} has {status.st_size} bytes, it may have {limit}: fetch the bundle again"
            )
    total = sum(status.st_size for status in found.values())
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"the files in {folder} have {total} bytes together, a bundle may have {MAX_BUNDLE_BYTES}")
    return found


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _walk(root: Path) -> dict[str, os.stat_result]:
    """The path below `root` of every file; raise `BundleError` for what is neither a file nor a folder."""
    found: dict[str, os.stat_result] = {}
    folders = [root]
    seen = 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                seen += 1
                if seen > MAX_FILES + len(_UNLISTED):
                    raise BundleError(f"{root} holds more than {MAX_FILES} entries, which no bundle does")
                name = Path(entry.path).relative_to(root).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    found[name] = entry.stat(follow_symlinks=False)
                else:
                    raise BundleError(
                        f"{name!r} in {root} is a link or a device, a bundle holds plain files only: copy the file"
                    )
    return found


def _check_listing(folder: Path, found: Mapping[str, os.stat_result], files: Mapping[str, FileEntry]) -> None:
    """Raise `BundleError` unless the folder holds the listed files with the listed sizes, and nothing else."""
    unlisted = sorted(found.keys() - files.keys() - _UNLISTED)
    if unlisted:
        raise BundleError(f"{folder} holds {unlisted[0]!r}, which its manifest does not list: remove it")
    missing = sorted(files.keys() - found.keys())
    if missing:
        raise BundleError(f"{folder} lacks {missing[0]!r}, which its manifest lists: fetch the bundle again")
    for name, entry in files.items():
        if (size := found[name].st_size) != entry.bytes:
            raise BundleError(
                f"{name} in {folder} has {size} bytes, its manifest says {entry.bytes}: fetch the bundle again"
            )


def _read_listed(folder: Path, name: str, entry: FileEntry) -> bytes:
    """Read a listed file whole and check what was read."""
    content = _read(folder, name, limit=entry.bytes)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry.sha256:
        raise BundleError(
            f"{name} in {folder} has digest sha256:{sha256}, its manifest says sha256:{entry.sha256}: "
            "the file was damaged or changed; fetch the bundle again"
        )
    return content


def _read(folder: Path, name: str, *, limit: int) -> bytes:
    """Read a plain file; raise `BundleError` as soon as there are more than `limit` bytes, whatever its size claims."""
    chunks: list[bytes] = []
    total = 0
    with _open_plain(folder, name) as descriptor:
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            total += len(chunk)
            if total > limit:
                raise BundleError(f"{name} in {folder} is longer than {limit} bytes, the most it may have")
            chunks.append(chunk)
    return b"".join(chunks)


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
