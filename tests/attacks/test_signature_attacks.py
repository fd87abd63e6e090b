"""Bundles that nobody trusted has signed, or that are not what was signed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stream.bundle import TrustedKeys, load, trusted_keys
from stream.bundle.sign import sign
from stream.bundle.signature import MAX_KEYS, Signer, make_key_pair
from stream.errors import BundleError, ConfigError
from tests.bundles import KEYS, LITE, TRUST, UNSIGNED, copy_of_lite, edit_manifest, own_trust, signer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle signed with the tests' own key."""
    return copy_of_lite(tmp_path / "bundle")


def test_the_signed_copy_loads(folder: Path) -> None:
    """The bundle that the attacks below start from is trusted, and says by whose key."""
    assert load(folder, own_trust()).signer == f"its own key ({signer().fingerprint})"


def test_no_signature(folder: Path) -> None:
    """A bundle without signature is refused with the three ways out."""
    (folder / "manifest.sig").unlink()
    with pytest.raises(BundleError, match=r"has no signature .*bundle sign.* fetch .* unsigned_bundles to allow"):
        load(folder, own_trust())


def test_wrong_key(folder: Path) -> None:
    """A signature by somebody else's key is refused with the keys that are trusted and where they are from."""
    with pytest.raises(
        BundleError, match=r"made by no key trusted here.*models/keys: fairway-2026 \(sha256:[0-9a-f]{32}\)"
    ):
        load(folder, TRUST)


@pytest.mark.parametrize("at", [0, 31, 32, 63])
def test_one_bit_of_the_signature(folder: Path, at: int) -> None:
    """One flipped bit anywhere in the signature makes it nobody's."""
    content = bytearray((folder / "manifest.sig").read_bytes())
    content[at] ^= 1
    (folder / "manifest.sig").write_bytes(content)
    with pytest.raises(BundleError, match="made by no key trusted here, or for another manifest"):
        load(folder, own_trust())


def test_signature_of_another_bundle(folder: Path, tmp_path: Path) -> None:
    """A good signature over another manifest, here one with another name, says nothing about this one."""
    other = copy_of_lite(tmp_path / "other", signed=False)
    edit_manifest(other, lambda manifest: manifest.__setitem__("name", "other"))
    sign(other, signer())
    (folder / "manifest.sig").write_bytes((other / "manifest.sig").read_bytes())
    with pytest.raises(BundleError, match="or for another manifest"):
        load(folder, own_trust())


@pytest.mark.parametrize("size", [0, 63])
def test_short_signature(folder: Path, size: int) -> None:
    """A signature that is too short is named as damaged, not as a wrong key."""
    os.truncate(folder / "manifest.sig", size)
    with pytest.raises(BundleError, match=rf"manifest\.sig in .* has {size} bytes, a signature has 64"):
        load(folder, own_trust())


def test_endless_signature(folder: Path) -> None:
    """A signature of a terabyte, here a sparse one, is refused by its size and not read."""
    os.truncate(folder / "manifest.sig", 2**40)
    with pytest.raises(BundleError, match=r"manifest\.sig in .* has 1099511627776 bytes, it may have 64"):
        load(folder, own_trust())


def test_linked_signature(folder: Path) -> None:
    """A link in the place of the signature is refused, even to the very bytes."""
    (folder / "manifest.sig").rename(folder.parent / "elsewhere")
    (folder / "manifest.sig").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(BundleError, match=r"'manifest\.sig' in .* is a link"):
        load(folder, own_trust())


@pytest.mark.parametrize("manifest", [b"", b"{", b"[" * 100_000, b'{"schema_version": 2}'])
def test_nothing_is_parsed_before_the_signature(folder: Path, manifest: bytes) -> None:
    """A manifest that no parser would take is refused for its signature, as nobody has looked into it by then."""
    (folder / "manifest.json").write_bytes(manifest)
    with pytest.raises(BundleError, match="made by no key trusted here"):
        load(folder, own_trust())


def test_a_file_beside_is_covered_by_the_signature(folder: Path) -> None:
    """A model swapped in a signed bundle is refused by its digest, and one swapped with its digest by the signature."""
    model = bytearray((folder / "model.onnx").read_bytes())
    model[-1] ^= 1
    (folder / "model.onnx").write_bytes(model)
    with pytest.raises(BundleError, match=r"model\.onnx in .* damaged or changed"):
        load(folder, own_trust())


def test_listed_signature(folder: Path) -> None:
    """A manifest cannot list its own signature, which is made after it."""
    edit_manifest(
        folder, lambda manifest: manifest["files"].update({"manifest.sig": {"sha256": "0" * 64, "bytes": 64}})
    )
    with pytest.raises(BundleError, match="cannot list itself or its signature"):
        load(folder, UNSIGNED)


def test_allowing_unsigned_bundles_allows_no_bad_signature(folder: Path) -> None:
    """Where unsigned bundles are fine, one without signature loads as nobody's; a bad signature is refused still."""
    lenient = trusted_keys(KEYS, unsigned_too=True)
    with pytest.raises(BundleError, match="made by no key trusted here"):
        load(folder, lenient)
    (folder / "manifest.sig").unlink()
    assert load(folder, lenient).signer is None


def test_shipped_bundle_is_trusted_by_the_shipped_key() -> None:
    """What ships verifies against the key that ships, by name."""
    assert (load(LITE, TRUST).signer or "").startswith("fairway-2026 (sha256:")


def test_no_private_key_is_in_the_repository() -> None:
    """No file that ships beside the models is a private key."""
    files = [path for path in KEYS.parent.rglob("*") if path.is_file()]
    assert files
    assert [path.name for path in files if b"PRIVATE KEY" in path.read_bytes()] == []


def test_private_key_among_the_trusted(tmp_path: Path) -> None:
    """A private key in the folder of public ones stops the service: whoever reads the folder could sign."""
    make_key_pair(tmp_path / "oops.pem", tmp_path / "good.pem")
    with pytest.raises(ConfigError, match=r"oops\.pem is a private key .* Make a new pair"):
        trusted_keys(tmp_path)


def _pem_of_another_kind() -> bytes:
    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a public key in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not a public key in PEM"),
        (b"x" * 5000, "has more than 4096 bytes"),
        (_pem_of_another_kind(), "is not an Ed25519 key"),
    ],
)
def test_key_that_is_none(tmp_path: Path, content: bytes, complaint: str) -> None:
    """A trusted key that cannot be used is an error that names the file, and is not left out in silence."""
    (tmp_path / "bad.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"bad\.pem {complaint}"):
        trusted_keys(tmp_path)


def test_too_many_keys(tmp_path: Path) -> None:
    """A folder full of keys is refused before any is read."""
    for number in range(MAX_KEYS + 1):
        (tmp_path / f"{number}.pem").touch()
    with pytest.raises(ConfigError, match="holds 65 keys, 64 at most"):
        trusted_keys(tmp_path)


def test_no_keys(tmp_path: Path) -> None:
    """An empty or absent folder of keys is an error, unless unsigned bundles are fine and no key is needed."""
    with pytest.raises(ConfigError, match="holds no public key"):
        trusted_keys(tmp_path)
    with pytest.raises(ConfigError, match="cannot read the trusted keys"):
        trusted_keys(tmp_path / "absent")
    assert trusted_keys(tmp_path / "absent", unsigned_too=True).keys == {}


def test_any_of_the_keys_will_do(folder: Path) -> None:
    """While keys are changed, bundles signed with the old one and the new one are trusted alike."""
    other = Signer(Ed25519PrivateKey.generate())
    both = TrustedKeys({"old": own_trust().keys["its own key"], "new": other.trust.keys["its own key"]}, "here")
    assert (load(folder, both).signer or "").startswith("old ")
    sign(folder, other)
    assert (load(folder, both).signer or "").startswith("new ")
