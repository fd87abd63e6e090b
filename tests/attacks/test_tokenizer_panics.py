"""Tokenizers that fail on texts of an attacker's choice, and on none that a trial has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, normalizers

from stream import wiring
from stream.bundle import Bundle, load
from stream.events import EventBatch, FailCondition
from stream.policy import compile_policy
from stream.scoring.opening import open_scorer
from stream.scoring.rehearsal import rehearse
from stream.scoring.tokenize import TokenizeError, WindowTokenizer
from stream.settings import Settings
from tests.bundles import KEYS, LITE, UNSIGNED, copy_of_lite, replace_listed
from tests.records import NOW, Record, batch_of
from tests.spine import event

PANIC = "щ" * 40 + "!"
"""`(щ+)+$` tries 2**40 ways to read this, and the library gives up with a panic after ten million."""


def _backtrack_unseen(tokenizer: Tokenizer) -> None:
    """A rule whose pattern does not show the letter that it fails on, so that no text of the trial has it."""
    rule = normalizers.Replace(Regex(r"(\x{449}+)+$"), "")
    tokenizer.normalizer = normalizers.Sequence([rule, tokenizer.normalizer])


@pytest.fixture
def unlucky(tmp_path: Path) -> Bundle:
    """A bundle that passes its rehearsal, and whose tokenizer panics on a text."""
    folder = copy_of_lite(tmp_path / "bundle", signed=False)
    tokenizer = Tokenizer.from_buffer((LITE / "tokenizer.json").read_bytes())
    _backtrack_unseen(tokenizer)
    replace_listed(folder, {"tokenizer.json": tokenizer.to_str().encode()})
    bundle = load(folder, UNSIGNED)
    rehearse(bundle)
    return bundle


def test_a_panic_is_the_failure_of_its_text_alone(unlucky: Bundle) -> None:
    """The text that the library panics on has no score and the condition for it; its neighbours have their own bits."""
    scorer = open_scorer(unlucky, provider="cpu", max_batch_tokens=4096)
    calm = ["I will kill you", "have a nice day", "щ"]

    def scores(*texts: str) -> tuple[Any, Any]:
        batch: EventBatch = batch_of(*texts)
        found = scorer.score(batch)
        return found.logits, found.conditions

    expected, _ = scores(*calm)
    logits, conditions = scores(calm[0], PANIC, calm[1], PANIC, calm[2])
    np.testing.assert_array_equal(logits[[0, 2, 4]], expected)
    assert np.isnan(logits[[1, 3]]).all()
    assert conditions.tolist() == [0, 1 << FailCondition.SCORER_ERROR, 0, 1 << FailCondition.SCORER_ERROR, 0]
    alone, conditions = scores(PANIC)
    assert np.isnan(alone).all()
    assert conditions.tolist() == [1 << FailCondition.SCORER_ERROR]
    np.testing.assert_array_equal(scores(*calm)[0], expected)


def test_a_worker_decides_on_a_panic_by_its_fail_rule(unlucky: Bundle) -> None:
    """The worker's own pipeline goes on: every event has its decision, the one at fault that of the policy's rule."""
    settings = Settings(bundle=unlucky.path, trusted_keys=KEYS, unsigned_bundles="allow")
    model = wiring.load_model(settings)
    pipeline = wiring.build_pipeline(settings, model, compile_policy(settings.policy, model.calibration))
    values = [event(id="a", text="have a nice day"), event(id="b", text=PANIC), event(id="c", text="hello")]
    records = [Record(value, offset) for offset, value in enumerate(values)]
    moderated = pipeline.run(records, topic="content.events", partition=0, now=NOW)
    assert not moderated.rejected
    assert moderated.verdicts.moderated.tolist() == [True, False, True]
    assert moderated.conditions[1] == 1 << FailCondition.SCORER_ERROR


def test_a_panic_at_load_is_an_error_of_the_bundle() -> None:
    """A tokenizer that fails on what it is asked at load is refused, in the process that asks as well."""
    document = json.loads((LITE / "tokenizer.json").read_bytes())
    document["model"] = {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "gone"}
    with pytest.raises(TokenizeError, match="fails on a text"):
        WindowTokenizer(json.dumps(document).encode(), window=16, overlap=0, max_windows=1)
