from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from stream.bundle import describe, load
from stream.bundle.evaluation import parse_evaluation
from stream.errors import BundleError
from tests.bundles import TRUST, UNSIGNED

LITE = Path(__file__).parents[2] / "models" / "lite"


def test_digest_is_of_the_manifest() -> None:
    """A bundle's digest is the SHA-256 of its manifest, and its calibration's is of that file."""
    bundle = load(LITE, TRUST)
    assert bundle.digest == f"sha256:{hashlib.sha256((LITE / 'manifest.json').read_bytes()).hexdigest()}"
    assert bundle.calibration_digest == f"sha256:{hashlib.sha256((LITE / 'calibration.json').read_bytes()).hexdigest()}"


def test_read_returns_the_bytes() -> None:
    """Reading a listed file returns exactly its bytes."""
    assert load(LITE, TRUST).read("CARD.md") == (LITE / "CARD.md").read_bytes()


@pytest.mark.parametrize("name", ["manifest.json", "../lite/CARD.md", "nothing"])
def test_read_refuses_what_is_not_listed(name: str) -> None:
    """Only listed files can be read through a bundle."""
    with pytest.raises(BundleError, match="does not list"):
        load(LITE, TRUST).read(name)


def test_calibration_is_in_the_order_of_the_harms() -> None:
    """Calibration comes in the manifest's order of harms, which is the order of the logits."""
    bundle = load(LITE, TRUST)
    assert tuple(bundle.calibration.harms) == bundle.manifest.harms


def test_histograms_count_what_was_calibrated_on() -> None:
    """Every item of the calibration split is in one bin."""
    for harm in load(LITE, TRUST).calibration.harms.values():
        assert len(harm.harmful) == len(harm.harmless) == 1024
        assert (sum(harm.harmful), sum(harm.harmless)) == (harm.n_harmful, harm.n_harmless)


@pytest.mark.parametrize("name", ["absent", "absent.json"])
def test_no_folder(tmp_path: Path, name: str) -> None:
    """A path where there is no folder is an error that names it."""
    with pytest.raises(BundleError, match=f"no bundle folder .*{name}"):
        load(tmp_path / name, TRUST)


def test_empty_folder(tmp_path: Path) -> None:
    """A folder without a manifest is no bundle."""
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        load(tmp_path, UNSIGNED)


def test_a_link_to_the_folder_is_followed(tmp_path: Path) -> None:
    """The folder itself may be reached by a link, which is how deployments switch versions."""
    (tmp_path / "current").symlink_to(LITE)
    assert load(tmp_path / "current", TRUST).digest == load(LITE, TRUST).digest


def test_description_has_every_harm() -> None:
    """A description has one row per harm with the figures of the whole test split by human labels."""
    bundle = load(LITE, TRUST)
    description = describe(bundle)
    assert tuple(harm.harm for harm in description.harms) == bundle.manifest.harms
    evaluation = parse_evaluation(bundle.read("evaluation.json"), name="evaluation.json")
    whole = {row.harm: row for row in evaluation.measurements if (row.part, row.labels) == ("all", "human")}
    for harm in description.harms:
        assert (harm.n, harm.average_precision) == (whole[harm.harm].n, whole[harm.harm].average_precision)


def test_bad_evaluation_is_refused_by_name() -> None:
    """An evaluation that is not one is refused with the file's name and field."""
    with pytest.raises(BundleError, match=r"evaluation\.json is not valid: created_at"):
        parse_evaluation(b'{"schema_version": 1}', name="evaluation.json")
