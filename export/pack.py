"""Files in, a bundle folder out: written beside its place, verified as the service would, then put there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from export.errors import ExportError
from stream.bundle import Bundle, Manifest, load
from stream.bundle.manifest import MANIFEST_NAME, FileEntry

__all__ = ["CALIBRATION", "CARD", "EVALUATION", "MODEL", "TOKENIZER", "entries", "pack"]

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
CALIBRATION = "calibration.json"
EVALUATION = "evaluation.json"
CARD = "CARD.md"


def entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Size and digest of each file, for the manifest."""
    return {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in sorted(files.items())
    }


def pack(out: Path, manifest: Manifest, *, files: Mapping[str, bytes]) -> Bundle:
    """Write the bundle to the folder `out`, replacing a bundle that is there.

    Raises `ExportError` if `out` is something else than a bundle, which is left alone, and `BundleError` if what was
    written does not verify, in which case what was there stays.
    """
    if out.exists() and not (out / MANIFEST_NAME).is_file():
        raise ExportError(f"{out} exists and is not a bundle: remove it, or give another --out")
    fresh = out.with_name(f"{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, content in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (fresh / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    load(fresh)
    shutil.rmtree(out, ignore_errors=True)
    return load(fresh.rename(out))
