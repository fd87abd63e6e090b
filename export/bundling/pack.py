"""Files in, a bundle folder out: written beside its place, verified as the service would, then put there.

Packing does not sign: whoever does has the key, and looks at the evaluation first (`fairway bundle sign`).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal

from export.bundling.golden import make_golden
from export.errors import ExportError
from stream.bundle import Bundle, Manifest, ModelInput, UnsafeSkipSignature, load
from stream.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, FileEntry, Role, TrainingSource

__all__ = ["CALIBRATION", "CARD", "EVALUATION", "GOLDEN", "TOKENIZER", "entries", "manifest_of", "pack"]

TOKENIZER = "tokenizer.json"
CALIBRATION = "calibration.json"
EVALUATION = "evaluation.json"
CARD = "CARD.md"
GOLDEN = "golden.json"


def entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Size and digest of each file, for the manifest."""
    return {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in sorted(files.items())
    }


def manifest_of(
    files: Mapping[str, bytes],
    *,
    name: str,
    version: str,
    created_at: datetime,
    harms: tuple[str, ...],
    roles: tuple[Role, ...],
    model_input: ModelInput,
    artefacts: Mapping[Literal["cpu", "cuda"], str],
    training_data: tuple[TrainingSource, ...] = (),
) -> Manifest:
    """The manifest of `files`, which are named as every export here names them."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        version=version,
        created_at=created_at,
        harms=harms,
        roles=roles,
        input=model_input,
        artefacts=dict(artefacts),
        tokenizer=TOKENIZER if TOKENIZER in files else None,
        calibration=CALIBRATION,
        evaluation=EVALUATION,
        card=CARD,
        training_data=training_data,
        code_version=f"fairway {installed_version('fairway')}",
        files=entries(files),
    )


def pack(out: Path, manifest: Manifest, *, files: Mapping[str, bytes]) -> Bundle:
    """Write the bundle to the folder `out`, unsigned, replacing a bundle that is there.

    Where the manifest names no golden batch, one is made of what each artefact scores on the CPU, and added.

    Raises `ExportError` if `out` is something else than a bundle, which is left alone, and `BundleError` if what was
    written does not verify, in which case what was there stays.
    """
    if out.exists() and not (out / MANIFEST_NAME).is_file():
        raise ExportError(f"{out} exists and is not a bundle: remove it, or give another --out")
    fresh = out.with_name(f"{out.name}.new")
    bundle = _write(fresh, manifest, files)
    if manifest.golden is None:
        golden = make_golden(bundle).model_dump_json(indent=1).encode()
        files = {**files, GOLDEN: golden}
        with_golden = manifest.model_copy(
            update={"golden": GOLDEN, "files": manifest.files | entries({GOLDEN: golden})}
        )
        _write(fresh, with_golden, files)
    shutil.rmtree(out, ignore_errors=True)
    return load(fresh.rename(out), UnsafeSkipSignature())


def _write(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a folder anew and read it back as the service would."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return load(folder, UnsafeSkipSignature())
