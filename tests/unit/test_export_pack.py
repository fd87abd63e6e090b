from __future__ import annotations

from pathlib import Path

import pytest

from export.bundling.pack import entries, pack
from export.errors import ExportError
from stream.bundle import Bundle, load
from stream.errors import BundleError
from tests.bundles import TRUST, UNSIGNED

LITE = Path(__file__).parents[2] / "models" / "lite"


@pytest.fixture
def lite() -> Bundle:
    """The bundle that ships with the source."""
    return load(LITE, TRUST)


def files_of(bundle: Bundle) -> dict[str, bytes]:
    """Every listed file of a bundle."""
    return {name: bundle.read(name) for name in bundle.manifest.files}


def test_packing_what_was_read_gives_the_same_bundle(lite: Bundle, tmp_path: Path) -> None:
    """A bundle packed from its own files and manifest has the same digest."""
    assert pack(tmp_path / "copy", lite.manifest, files=files_of(lite)).digest == lite.digest


def test_entries_are_sizes_and_digests(lite: Bundle) -> None:
    """The entries of a manifest follow from the bytes of its files."""
    assert entries(files_of(lite)) == lite.manifest.files


def test_an_older_bundle_is_replaced(lite: Bundle, tmp_path: Path) -> None:
    """A bundle in the place is replaced as a whole, files that it alone had included."""
    files = files_of(lite) | {"extra.bin": b"extra"}
    older = lite.manifest.model_copy(update={"files": entries(files)})
    pack(tmp_path / "lite", older, files=files)
    pack(tmp_path / "lite", lite.manifest, files=files_of(lite))
    assert not (tmp_path / "lite" / "extra.bin").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lite"]


def test_something_else_is_not_replaced(lite: Bundle, tmp_path: Path) -> None:
    """A folder that is not a bundle is left alone, whatever --out says."""
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ExportError, match="is not a bundle"):
        pack(tmp_path, lite.manifest, files=files_of(lite))
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_what_does_not_verify_replaces_nothing(lite: Bundle, tmp_path: Path) -> None:
    """A bundle that the service would refuse does not take the place of one that it accepts."""
    pack(tmp_path / "lite", lite.manifest, files=files_of(lite))
    with pytest.raises(BundleError, match="damaged or changed"):
        pack(
            tmp_path / "lite",
            lite.manifest,
            files=files_of(lite) | {"CARD.md": bytes(lite.manifest.files["CARD.md"].bytes)},
        )
    assert load(tmp_path / "lite", UNSIGNED).digest == lite.digest
