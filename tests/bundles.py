"""The shipped bundle, copies of it to tamper with, and a key of the tests' own."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stream.bundle import Bundle, TrustedKeys, UnsafeSkipSignature, load, trusted_keys
from stream.bundle.manifest import MANIFEST_NAME
from stream.bundle.sign import sign
from stream.bundle.signature import Signer

__all__ = [
    "KEYS",
    "LITE",
    "TRUST",
    "UNSIGNED",
    "copy_of_lite",
    "edit_manifest",
    "lite",
    "replace_listed",
    "signer",
    "trust_own_key",
]

ROOT = Path(__file__).parents[1]
LITE = ROOT / "models" / "lite"
KEYS = ROOT / "models" / "keys"

TRUST = trusted_keys(KEYS)
"""In the keys that ship."""
UNSIGNED = UnsafeSkipSignature()

Edit = Callable[[dict[str, Any]], None]  # Any: a manifest as json gives it


@cache
def lite() -> Bundle:
    """The bundle that ships with the source."""
    return load(LITE, TRUST)


@cache
def signer() -> Signer:
    """A key made for this run of the tests."""
    return Signer(Ed25519PrivateKey.generate())


def own_trust() -> TrustedKeys:
    """Trust in that key."""
    return signer().trust


def trust_own_key(folder: Path) -> Path:
    """A folder of trusted keys with the tests' own."""
    folder.mkdir()
    key = own_trust().keys["its own key"]
    (folder / "own.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder


def copy_of_lite(folder: Path, *, signed: bool = True) -> Path:
    """A copy of the shipped bundle, signed with the tests' own key or not at all."""
    shutil.copytree(LITE, folder)
    (folder / "manifest.sig").unlink()
    if signed:
        sign(folder, signer())
    return folder


def edit_manifest(folder: Path, edit: Edit) -> None:
    """Change the manifest as its author could, without touching another file."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def replace_listed(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Put `contents` in the place of listed files, and their true sizes and digests in the manifest."""

    def list_them(manifest: dict[str, Any]) -> None:
        for name, content in contents.items():
            manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    for name, content in contents.items():
        (folder / name).write_bytes(content)
    edit_manifest(folder, list_them)
