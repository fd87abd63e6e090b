"""How much faster a bundle's quantised model is than its float32 reference: both sides in one run, on the same batches.

Usage: python -m ops.bench.quantised BUNDLE REFERENCE, the latter an ONNX file of the same model in float32. Both run
in the service's own session, on one core, in turns; the best of the rounds is what the machine can do when nothing
else runs on it. The last line is the ratio over all lengths: the sum of the times of one batch of each length.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ops.bench.turns import best_in_turns
from stream.bundle import UnsafeSkipSignature, load
from stream.scoring.session import OnnxSession, open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs

__all__ = ["Comparison", "compare"]

LENGTHS = (16, 32, 64, 128)
"""Tokens per text; half of what people write on a platform is shorter than 32."""

TOKENS = 1024
"""Tokens per call: more do not make a call on one core faster per token, they leave its cache."""

ROUNDS = 15
FIRST_WORD, WORDS = 1000, 29_000  # ids of whole words in the vocabulary of BERT


@dataclass(frozen=True, slots=True)
class Comparison:
    """Best time of one call of each model, in seconds, on `rows` texts of `length` tokens."""

    length: int
    rows: int
    quantised_s: float
    reference_s: float

    @property
    def ratio(self) -> float:
        """Quantised ÷ reference, in texts per second."""
        return self.reference_s / self.quantised_s


def compare(
    quantised: OnnxSession,
    reference: OnnxSession,
    *,
    lengths: Sequence[int] = LENGTHS,
    tokens: int = TOKENS,
    rounds: int = ROUNDS,
) -> list[Comparison]:
    """Time both models on the same batches, one of about `tokens` tokens for each length."""
    return [_compare(quantised, reference, length, max(1, tokens // length), rounds) for length in lengths]


def total_ratio(comparisons: Sequence[Comparison]) -> float:
    """Quantised ÷ reference in texts per second, over one batch of each length."""
    return sum(each.reference_s for each in comparisons) / sum(each.quantised_s for each in comparisons)


def _compare(quantised: OnnxSession, reference: OnnxSession, length: int, rows: int, rounds: int) -> Comparison:
    ids = np.random.default_rng(length).integers(FIRST_WORD, WORDS, (rows, length))
    inputs = ModelInputs(ids, np.ones_like(ids))
    quantised_s, reference_s = best_in_turns(
        [lambda: quantised.run(inputs), lambda: reference.run(inputs)], rounds=rounds
    )
    return Comparison(length, rows, quantised_s, reference_s)


def main() -> None:
    """Print texts per second of both models, and their ratio."""
    bundle_path, reference_path = sys.argv[1:]
    bundle = load(bundle_path, UnsafeSkipSignature())  # to be measured, not served
    harms = len(bundle.manifest.harms)
    quantised = open_session(bundle.read(bundle.manifest.artefacts["cpu"]), "cpu", signature=reads_tokens(harms))
    reference = open_session(Path(reference_path).read_bytes(), "cpu", signature=reads_tokens(harms))
    comparisons = compare(quantised, reference)
    sys.stdout.write("tokens   rows   quantised/s   reference/s   ratio\n")
    for each in comparisons:
        rates = (each.rows / each.quantised_s, each.rows / each.reference_s)
        sys.stdout.write(f"{each.length:>6} {each.rows:>6} {rates[0]:>13,.0f} {rates[1]:>13,.0f} {each.ratio:>7.2f}\n")
    sys.stdout.write(f"quantised_vs_reference {total_ratio(comparisons):.2f}\n")


if __name__ == "__main__":
    main()
