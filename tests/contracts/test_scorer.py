"""What every scorer must do, whatever is behind it: the stub, and ONNX Runtime on the CPU and on CUDA."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.bundle import load
from stream.events import FailCondition
from stream.scoring import Scorer, StubScorer
from stream.scoring.onnx import OnnxScorer
from tests.bundles import TRUST
from tests.records import batch_of

BUNDLE = Path(__file__).parents[2] / "models" / "lite"
MAX_WINDOWS = 8
MAX_BATCH_TOKENS = 1024  # small, so that a batch of a few texts is several calls

UNSUPPORTED = 1 << FailCondition.UNSUPPORTED
SCORER_ERROR = 1 << FailCondition.SCORER_ERROR
ANY_TEXT = st.one_of(
    st.text(min_size=1, max_size=60),
    st.lists(
        st.sampled_from(["I", "will", "hurt", "you", "hello", "kind", "world", "!"]), min_size=1, max_size=400
    ).map(" ".join),
)
SAMPLES = (
    "hello",
    "I will find you and kill you",
    "a lovely day, isn't it?",
    "x",
    "word " * 300,
    "漢字 naïve 🙂",
    "  ",
    "é",
)


@pytest.fixture(scope="module", params=["stub", "cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    """Each scorer there is; a scorer for CUDA where there is CUDA."""
    if request.param == "stub":
        return StubScorer()
    if request.param == "cuda" and not Path("/dev/nvidiactl").exists():
        pytest.skip("no CUDA device")
    return OnnxScorer.from_bundle(
        load(BUNDLE, TRUST), provider=request.param, max_batch_tokens=MAX_BATCH_TOKENS, max_windows=MAX_WINDOWS
    )


def test_it_says_what_it_scores_and_where(scorer: Scorer) -> None:
    """A scorer names its harms, all different, and its provider."""
    assert len(set(scorer.harms)) == len(scorer.harms) > 0
    assert scorer.provider in {"stub", "cpu", "cuda"}


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_results_have_a_row_per_event(scorer: Scorer, count: int) -> None:
    """Any m events, none included, give logits (m, h) float32, conditions (m,) uint8 and windows (m,) int16."""
    scores = scorer.score(batch_of(*SAMPLES[:count]))
    assert scores.logits.shape == (count, len(scorer.harms))
    assert (scores.conditions.shape, scores.windows.shape) == ((count,), (count,))
    assert scores.logits.dtype == np.float32
    assert scores.conditions.dtype == np.uint8
    assert scores.windows.dtype == np.int16


def test_text_has_finite_logits_and_a_window(scorer: Scorer) -> None:
    """Ordinary text has a finite logit for every harm, no condition, and was read in at least one window."""
    scores = scorer.score(batch_of(*SAMPLES))
    assert np.isfinite(scores.logits).all()
    assert not scores.conditions.any()
    assert (scores.windows >= 1).all()


def test_different_texts_have_different_logits(scorer: Scorer) -> None:
    """A scorer tells texts apart."""
    scores = scorer.score(batch_of("hello", "I will find you and kill you"))
    assert not np.array_equal(scores.logits[0], scores.logits[1])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_score_does_not_depend_on_batch_mates(scorer: Scorer, data: st.DataObject) -> None:
    """The same text has the same score to the last bit, alone, in any company, and in any place."""
    texts = data.draw(st.lists(ANY_TEXT, min_size=1, max_size=12))
    order = data.draw(st.permutations(range(len(texts))))
    together = scorer.score(batch_of(*texts))
    shuffled = scorer.score(batch_of(*[texts[row] for row in order]))
    assert np.array_equal(together.logits[order], shuffled.logits, equal_nan=True)
    assert np.array_equal(together.windows[order], shuffled.windows)
    for row, text in enumerate(texts):
        alone = scorer.score(batch_of(text))
        assert np.array_equal(alone.logits[0], together.logits[row], equal_nan=True)
        assert alone.conditions[0] == together.conditions[row]


def test_an_image_is_unsupported_and_text_beside_it_is_scored(scorer: Scorer) -> None:
    """Where images are not looked at, an event with one has UNSUPPORTED, and its text the score it would have alone."""
    scores = scorer.score(batch_of("hello", "hello", None, "", images=frozenset({1, 2, 3})))
    assert scores.conditions.tolist() == [0, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED]
    assert np.array_equal(scores.logits[0], scores.logits[1])


def test_what_was_not_scored_is_nan_and_says_why(scorer: Scorer) -> None:
    """Logits are NaN in a whole row or not at all; a row of NaN has a condition and was read in no window."""
    scores = scorer.score(batch_of("hello", None, "", "kill", images=frozenset({1, 2})))
    missing = np.isnan(scores.logits)
    assert missing.all(axis=1).tolist() == missing.any(axis=1).tolist() == [False, True, True, False]
    assert scores.conditions[missing[:, 0]].all()
    assert not scores.windows[missing[:, 0]].any()


def test_hostile_text_is_scored_or_said_not_to_be(scorer: Scorer) -> None:
    """A text of any characters and length has finite logits, or SCORER_ERROR; never an exception, in bounded time."""
    hostile = [
        "\x00" * 100,
        "\ud800",
        "e" + "\u0301" * 100_000,
        "[SEP]" * 1000,
        " " * 500_000,
        "a" * 500_000,
        "\uffff",
        "﷽" * 50_000,
    ]
    scores = scorer.score(batch_of(*hostile))
    unscored = (scores.conditions & SCORER_ERROR).astype(bool)
    assert np.isfinite(scores.logits[~unscored]).all()
    assert np.isnan(scores.logits[unscored]).all()


def test_threads_may_share_a_scorer(scorer: Scorer) -> None:
    """Calls from several threads at once give what they give one after another."""
    batches = [batch_of(*SAMPLES[at:], f"only in batch {at}") for at in range(len(SAMPLES))] * 4
    expected = [scorer.score(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(scorer.score, batches))
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one.logits, other.logits)


def test_events_are_left_as_they_were(scorer: Scorer) -> None:
    """Scoring the same batch again gives the same, and results are the caller's to change."""
    batch = batch_of(*SAMPLES)
    first = scorer.score(batch)
    expected = first.logits.copy()
    first.logits[:] = 0
    assert np.array_equal(scorer.score(batch).logits, expected)
