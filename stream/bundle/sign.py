"""A bundle that verifies and a private key in, its signature beside the manifest out."""

from __future__ import annotations

import os
from pathlib import Path

from stream.bundle.load import Bundle, load
from stream.bundle.signature import SIGNATURE_NAME, Signer, UnsafeSkipSignature
from stream.errors import BundleError

__all__ = ["sign"]


def sign(folder: Path, signer: Signer) -> Bundle:
    """Sign the bundle in `folder`, in place of whoever signed it before, and return it as it then verifies.

    Raises `BundleError` where it is no whole bundle: nobody should sign what no worker would load.
    """
    signature = signer.sign(load(folder, UnsafeSkipSignature()).manifest_bytes)
    # Beside the folder first: a worker that looks in between finds the old signature or the new one, and no third file.
    beside = folder.resolve().with_name(f".{folder.resolve().name}.{SIGNATURE_NAME}")
    try:
        beside.write_bytes(signature)
        os.replace(beside, folder / SIGNATURE_NAME)  # noqa: PTH105 - its name says that it replaces
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BundleError(f"cannot write {SIGNATURE_NAME} into {folder}: {error.strerror}") from None
    return load(folder, signer.trust)
