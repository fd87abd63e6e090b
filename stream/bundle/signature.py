"""Who made a bundle: Ed25519 signatures over the bytes of a manifest; the only use of `cryptography`.

The signature is the 64 bytes of RFC 8032, over the manifest as it lies there, so any other tool can check it as well:

    openssl pkeyutl -verify -rawin -pubin -inkey KEY.pem -in manifest.json -sigfile manifest.sig

The manifest has the size and SHA-256 of every other file, so one signature covers them all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from stream.errors import BundleError, ConfigError

__all__ = [
    "SIGNATURE_BYTES",
    "SIGNATURE_NAME",
    "Signer",
    "Trust",
    "TrustedKeys",
    "UnsafeSkipSignature",
    "make_key_pair",
    "read_private_key",
    "trusted_keys",
]

SIGNATURE_NAME: Final = "manifest.sig"

SIGNATURE_BYTES: Final = 64
"""Length of every Ed25519 signature."""

MAX_KEYS = 64
"""Keys tried on one signature: one per team or pipeline, so that a folder full of files costs no time."""

MAX_KEY_BYTES = 4096
"""A public key is 113 bytes of PEM, a private one with a passphrase 300."""


class Trust(Protocol):
    """Who may have made a bundle."""

    def signer(self, manifest: bytes, signature: bytes | None, *, where: str) -> str | None:
        """Say who signed these bytes, or None where nobody need have; `signature` is None where there is none.

        `where` is what errors call the bundle. Raises `BundleError` where the bundle may not be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Trusts what one of `keys`, by name, has signed, and with `unsigned_too` what nobody claims to have signed."""

    keys: Mapping[str, Ed25519PublicKey]
    place: str
    """Where the keys are from, for errors."""
    unsigned_too: bool = False

    def signer(self, manifest: bytes, signature: bytes | None, *, where: str) -> str | None:
        """Find the key that made the signature. A signature by none of them is refused, whatever `unsigned_too` says.

        Raises:
            BundleError: there is no signature, it is no signature at all, or none of the keys made it.
        """
        if signature is None:
            if self.unsigned_too:
                return None
            raise BundleError(
                f"{where} has no signature ({SIGNATURE_NAME}): sign it with `fairway bundle sign`, fetch a signed one, "
                "or, where whoever can write that folder may decide about content, set unsigned_bundles to allow"
            )
        if len(signature) != SIGNATURE_BYTES:
            raise BundleError(
                f"{SIGNATURE_NAME} in {where} has {len(signature)} bytes, a signature has {SIGNATURE_BYTES}: "
                "fetch the bundle again"
            )
        for name, key in self.keys.items():
            try:
                key.verify(signature, manifest)
            except InvalidSignature:
                continue
            return f"{name} ({fingerprint(key)})"
        known = ", ".join(f"{name} ({fingerprint(key)})" for name, key in self.keys.items()) or "none"
        raise BundleError(
            f"{SIGNATURE_NAME} in {where} was made by no key trusted here, or for another manifest. Trusted are, from "
            f"{self.place}: {known}. Fetch the bundle again; only if you know whose it is, add its public key there"
        )


@dataclass(frozen=True, slots=True)
class UnsafeSkipSignature:
    """Trusts everybody: for bundles that this very process has written, or is about to sign."""

    def signer(self, manifest: bytes, signature: bytes | None, *, where: str) -> None:  # noqa: ARG002 - that is the point
        """Ask nothing."""
        return


def trusted_keys(folder: Path, *, unsigned_too: bool = False) -> TrustedKeys:
    """Read the public keys `*.pem` in `folder`; raise `ConfigError` where one cannot be used, or there is none."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        if unsigned_too and isinstance(error, FileNotFoundError):
            return TrustedKeys({}, str(folder), unsigned_too=True)
        raise ConfigError(
            f"cannot read the trusted keys in {folder}: {error.strerror}; set trusted_keys to a folder of public keys"
        ) from None
    if not paths and not unsigned_too:
        raise ConfigError(f"{folder} holds no public key (*.pem), so no bundle could be used; set trusted_keys")
    if len(paths) > MAX_KEYS:
        raise ConfigError(f"{folder} holds {len(paths)} keys, {MAX_KEYS} at most: remove those that sign no more")
    return TrustedKeys({path.stem: _read_public_key(path) for path in paths}, str(folder), unsigned_too=unsigned_too)


def fingerprint(key: Ed25519PublicKey) -> str:
    """The SHA-256 of the 32 bytes of a public key, first half in hex: enough to tell keys apart by eye."""
    return f"sha256:{hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key."""

    _key: Ed25519PrivateKey

    def sign(self, manifest: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._key.sign(manifest)

    @property
    def trust(self) -> TrustedKeys:
        """Trust in this key alone."""
        return TrustedKeys({"its own key": self._key.public_key()}, "the key file")

    @property
    def fingerprint(self) -> str:
        """That of the public half."""
        return fingerprint(self._key.public_key())


def read_private_key(path: Path, *, passphrase: str | None = None) -> Signer:
    """Read a private key (PKCS #8, PEM). Raises `ConfigError`, and `TypeError` where it needs a passphrase."""
    content = _read_key_file(path)
    try:
        key = load_pem_private_key(content, passphrase.encode() if passphrase else None)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{path} is not a private key in PEM, or its passphrase is another one; "
            "`fairway bundle keygen` makes a pair"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key; `fairway bundle keygen` makes a pair")
    return Signer(key)


def make_key_pair(private: Path, public: Path, *, passphrase: str | None = None) -> str:
    """Write a new pair of keys, the private one readable for its owner alone; give the public one's fingerprint.

    Raises `ConfigError` where a file is there already, and writes neither then.
    """
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    pair = (
        (private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600),
        (public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644),
    )
    for path, _, _ in pair:
        if path.exists():
            raise ConfigError(f"{path} exists: give another name, since what it signed could be checked no more")
    for path, content, mode in pair:
        try:
            # Created with its mode: changing it later would leave a moment in which others can read it.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise ConfigError(f"cannot write the key {path}: {error.strerror}") from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return fingerprint(key.public_key())


def _read_public_key(path: Path) -> Ed25519PublicKey:
    content = _read_key_file(path)
    if b"PRIVATE" in content:
        raise ConfigError(
            f"{path} is a private key among the trusted public ones: whoever can read it can sign. Make a new pair, "
            "sign again, and remove this one"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a public key in PEM: mend or remove it") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} is not an Ed25519 key, the only kind in use here: mend or remove it")
    return key


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the key {path}: {error.strerror}") from None
    if len(content) > MAX_KEY_BYTES:
        raise ConfigError(f"{path} has more than {MAX_KEY_BYTES} bytes, which no key has")
    return content
