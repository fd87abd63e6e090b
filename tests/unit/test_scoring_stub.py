"""The scorer without a model."""

import numpy as np
import pytest

from stream.events import EventBatch
from stream.scoring import STUB_HARMS, StubScorer
from tests.records import batch_of


@pytest.fixture
def batch() -> EventBatch:
    """Twenty thousand different texts."""
    return batch_of(*(f"text number {row}" for row in range(20_000)))


def test_texts_are_mostly_harmless(batch: EventBatch) -> None:
    """Per harm about 1.8 % of texts have a probability above a half, so that every action comes up in a demo."""
    share = (StubScorer().score(batch).logits > 0).mean(axis=0)
    assert ((share > 0.01) & (share < 0.03)).all()


def test_harms_are_unlike_each_other(batch: EventBatch) -> None:
    """The logits of two harms are not correlated, so that texts are harmful in one way rather than in all."""
    correlation = np.corrcoef(StubScorer().score(batch).logits, rowvar=False)
    assert np.abs(correlation - np.eye(len(STUB_HARMS))).max() < 0.1


def test_harms_can_be_named() -> None:
    """The stub has a column for each harm it is given, in that order."""
    assert StubScorer(["spam", "scam"]).harms == ("spam", "scam")


def test_scores_are_known_for_good() -> None:
    """The stub's logits are the same on every machine and in every release: recorded streams rely on it."""
    scores = StubScorer().score(batch_of("hello"))
    assert scores.logits.tolist()[0] == pytest.approx([-4.323, -7.057, -5.701, -3.645, -4.149, -6.246], abs=1e-3)
