"""What every user of the shipped bundle relies on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream.bundle import Bundle, describe, load
from stream.scoring.session import open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs
from tests.bundles import TRUST

LITE = Path(__file__).parents[2] / "models" / "lite"


@pytest.fixture(scope="module")
def lite() -> Bundle:
    """The bundle that ships with the source."""
    return load(LITE, TRUST)


def test_it_is_small(lite: Bundle) -> None:
    """The shipped bundle is at most 3 MB, manifest included, since every clone carries it."""
    assert sum(path.stat().st_size for path in lite.path.iterdir()) <= 3_000_000


def test_harms_are_those_of_the_policies(lite: Bundle) -> None:
    """Harms and their order are what policies and records are written for."""
    assert lite.manifest.harms == ("sexual", "hate", "harassment", "dangerous", "violence", "self_harm")


def test_every_harm_is_well_above_chance(lite: Bundle) -> None:
    """On the test split's human labels every harm ranks far better than chance, by AUROC and average precision."""
    for harm in describe(lite).harms:
        assert harm.auroc is not None
        assert harm.auroc > 0.8
        assert harm.average_precision is not None
        assert harm.average_precision > 3 * harm.positives / harm.n


def test_every_harm_can_promise_a_miss_rate_of_one_in_twenty(lite: Bundle) -> None:
    """Each harm has the 19 harmful calibration items that a threshold for a 5 % miss rate needs [S17]."""
    assert all(harm.n_harmful >= 19 for harm in lite.calibration.harms.values())


def test_same_bits_whatever_the_batch(lite: Bundle) -> None:
    """A text has the same logits to the last bit, whatever it is padded to and batched with."""
    session = open_session(lite.read("model.onnx"), "cpu", signature=reads_tokens(len(lite.manifest.harms)))
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 120, 200)
    mask = (np.arange(160) < lengths[:, None]).astype(np.int64)
    ids = generator.integers(0, 30_522, mask.shape)
    together = session.run(ModelInputs(ids, mask))
    for row, length in enumerate(lengths):
        alone = session.run(ModelInputs(ids[row : row + 1, :length].copy(), mask[row : row + 1, :length].copy()))
        np.testing.assert_array_equal(alone[0].view(np.int32), together[row].view(np.int32))
