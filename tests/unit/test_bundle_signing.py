"""Keys and signatures as people make them."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.bundle import load
from stream.bundle.sign import sign
from stream.bundle.signature import make_key_pair, read_private_key
from stream.cli import _app
from stream.errors import BundleError, ConfigError
from tests.bundles import copy_of_lite, own_trust, signer


def run(*arguments: str | Path, typed: str = "") -> str:
    """What `fairway` says; raises what it would report."""
    result = CliRunner().invoke(_app(), [str(argument) for argument in arguments], input=typed, catch_exceptions=False)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_from_keys_to_a_trusted_bundle(tmp_path: Path) -> None:
    """A pair is made, a bundle signed with one half verifies with the other, and `show` says who signed."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    (tmp_path / "keys").mkdir()
    run("bundle", "keygen", tmp_path / "mine.key", tmp_path / "keys" / "mine.pem")
    run("bundle", "sign", folder, "--key", tmp_path / "mine.key")
    verified = run("bundle", "verify", folder, "--trusted-keys", tmp_path / "keys", "--no-rehearse")
    assert "signed by mine (sha256:" in verified
    shown = run("bundle", "show", folder, "--trusted-keys", tmp_path / "keys")
    assert "signed by\tmine (sha256:" in shown


def test_a_private_key_is_for_its_owner(tmp_path: Path) -> None:
    """A new private key can be read by its owner alone, whatever the umask."""
    make_key_pair(tmp_path / "a.key", tmp_path / "a.pem")
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_no_key_is_overwritten(tmp_path: Path) -> None:
    """Where a key is, no other is written: what it signed could be checked no more."""
    make_key_pair(tmp_path / "a.key", tmp_path / "a.pem")
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(ConfigError, match="exists: give another name"):
        make_key_pair(tmp_path / "b.key", tmp_path / "a.pem")
    with pytest.raises(ConfigError, match="exists: give another name"):
        make_key_pair(tmp_path / "a.key", tmp_path / "b.pem")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.key", "a.pem"]
    assert (tmp_path / "a.key").read_bytes() == before


def test_a_passphrase_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    """An encrypted key signs with its passphrase, and with another one is refused without saying more."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    run("bundle", "keygen", tmp_path / "a.key", tmp_path / "a.pem", "--passphrase", typed="good\ngood\n")
    assert b"ENCRYPTED" in (tmp_path / "a.key").read_bytes()
    run("bundle", "sign", folder, "--key", tmp_path / "a.key", typed="good\n")
    with pytest.raises(ConfigError, match="or its passphrase is another one"):
        run("bundle", "sign", folder, "--key", tmp_path / "a.key", typed="bad\n")


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "cannot read the key"), (b"no key", "is not a private key in PEM")]
)
def test_what_is_no_private_key(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """A file that is absent or no key is an error that names it."""
    if content is not None:
        (tmp_path / "a.key").write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        read_private_key(tmp_path / "a.key")


def test_a_public_key_cannot_sign(tmp_path: Path) -> None:
    """The public half in the private one's place is refused."""
    make_key_pair(tmp_path / "a.key", tmp_path / "a.pem")
    with pytest.raises(ConfigError, match="is not a private key"):
        read_private_key(tmp_path / "a.pem")


def test_what_does_not_verify_is_not_signed(tmp_path: Path) -> None:
    """A damaged bundle gets no signature, so that nobody vouches for what no worker would load."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    (folder / "CARD.md").write_bytes(b"")
    with pytest.raises(BundleError, match=r"CARD\.md"):
        sign(folder, signer())
    assert not (folder / "manifest.sig").exists()


def test_signing_again_leaves_nothing_beside(tmp_path: Path) -> None:
    """A signature replaces the one before it at once, and no file of the making is left."""
    folder = copy_of_lite(tmp_path / "bundle")
    sign(folder, signer())
    assert load(folder, own_trust()).signer is not None
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(tmp_path: Path) -> None:
    """OpenSSL verifies our signature with our public key, and refuses it over other bytes."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    make_key_pair(tmp_path / "a.key", tmp_path / "a.pem")
    sign(folder, read_private_key(tmp_path / "a.key"))
    for name, status in (("manifest.json", 0), ("CARD.md", 1)):
        command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(tmp_path / "a.pem")]
        files = ["-in", str(folder / name), "-sigfile", str(folder / "manifest.sig")]
        assert subprocess.run([*command, *files], check=False, capture_output=True).returncode == status
