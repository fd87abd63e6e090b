"""The comparison of a quantised model with its reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ops.bench.quantised import Comparison, compare, total_ratio
from stream.scoring.session import OnnxSession, open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs
from tests.bundles import lite


class Recorded(OnnxSession):
    """A session that remembers its calls."""

    def __init__(self, session: OnnxSession, name: str, calls: list[tuple[str, bytes]]) -> None:
        super().__init__(session._session, "cpu")
        self.name, self.calls = name, calls

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """Remember, and run."""
        self.calls.append((self.name, inputs.input_ids.tobytes()))
        return super().run(inputs)


def test_both_sides_run_the_same_batches_in_turns() -> None:
    """Both models get the same batches, alternately, as many rows as make the tokens asked for."""
    bundle = lite()
    session = open_session(bundle.read("model.onnx"), "cpu", signature=reads_tokens(len(bundle.manifest.harms)))
    calls: list[tuple[str, bytes]] = []
    sides = [Recorded(session, name, calls) for name in ("quantised", "reference")]
    found = compare(sides[0], sides[1], lengths=(4, 100), tokens=40, rounds=2)
    assert [(each.length, each.rows) for each in found] == [(4, 10), (100, 1)]
    assert all(each.quantised_s > 0 and each.reference_s > 0 for each in found)
    assert [name for name, _ in calls] == ["quantised", "reference"] * 4
    assert all(one == other for (_, one), (_, other) in zip(calls[::2], calls[1::2], strict=True))


def test_ratios_are_in_texts_per_second() -> None:
    """A model that takes half the time has the ratio 2, and the total is over the time of all lengths."""
    comparisons = [Comparison(16, 64, quantised_s=1.0, reference_s=2.0), Comparison(128, 8, 1.0, 4.0)]
    assert [each.ratio for each in comparisons] == [2.0, 4.0]
    assert total_ratio(comparisons) == pytest.approx(3.0)
