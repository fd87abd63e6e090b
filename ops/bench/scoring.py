"""How many texts per second a bundle scores without a stream around it: the "alone" side of the comparisons.

Usage: python -m ops.bench.scoring BUNDLE [FILE], a text per line; without a file, made-up texts.

`bare_loop` is what one would write with the libraries: the tokenizer's batch call, sorted padded batches, the session.
`scorer_loop` is the service's own scorer on the same texts. Both use one core.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ops.bench.texts import event, texts
from stream import wiring
from stream.bundle import load, trust_of
from stream.commands.score import batches
from stream.policy import compile_policy
from stream.scoring.session import CPU, SLOW_ON_CPU
from stream.settings import load_settings

import onnxruntime  # isort: skip - after stream.scoring, which switches its telemetry off

__all__ = ["ENCODER_ROWS", "bare_loop", "scorer_loop"]

ROWS = 128
"""Rows of one call of the bare loop; with models/lite, 32 to 512 make no difference."""

ENCODER_ROWS = 16
"""With models/moderator; 32 are a tenth slower, and larger calls slower still."""

SLICE = 1024
Part = TypeVar("Part", bound=Sized)
ROUNDS = 3


def bare_loop(bundle_path: Path | str, texts: Sequence[str], batch: int, *, call_rows: int = ROWS) -> float:
    """Texts per second of tokenising and running `batch` texts at a time with the libraries alone, on one core."""
    # Rayon would take every core there is, and this side is to be compared with one worker's scoring thread.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    settings, _ = load_settings()
    bundle = load(bundle_path, trust_of(settings))
    manifest = bundle.manifest
    if manifest.tokenizer is None or manifest.input.kind == "image":
        raise SystemExit(f"{bundle_path} reads images; this compares ways of reading text")
    tokenizer = Tokenizer.from_buffer(bundle.read(manifest.tokenizer))
    tokenizer.enable_truncation(manifest.input.max_tokens)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = bundle.read(manifest.artefacts["cpu"])
    # Without this the bare side would be a fifth slower with an encoder, for a reason that has nothing to do with us.
    session = onnxruntime.InferenceSession(model, options, providers=[CPU], disabled_optimizers=SLOW_ON_CPU)

    def score(part: Sequence[str]) -> None:
        rows = sorted((encoding.ids for encoding in tokenizer.encode_batch_fast(part)), key=len)
        for at in range(0, len(rows), call_rows):
            ids, mask = _pad(rows[at : at + call_rows])
            session.run(["logits"], {"input_ids": ids, "attention_mask": mask})

    return _texts_per_s(score, [texts[at : at + batch] for at in range(0, len(texts), batch)])


def scorer_loop(bundle_path: Path | str, texts: Sequence[str], batch: int) -> float:
    """Texts per second of the service's scorer on `batch` events at a time."""
    settings, _ = load_settings({"bundle": Path(bundle_path)})
    model = wiring.load_model(settings)
    pipeline = wiring.build_pipeline(settings, model, compile_policy(settings.policy, model.calibration))
    records = batches((event(number, text) for number, text in enumerate(texts)), batch)
    parts = [pipeline.decoder.decode(part, now=time.time())[0] for part in records]
    return _texts_per_s(model.scorer.score, parts)


def _pad(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and mask, both (n, l) int64, of rows sorted by length."""
    ids = np.zeros((len(rows), len(rows[-1])), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


def _texts_per_s(score: Callable[[Part], object], parts: Sequence[Part]) -> float:
    """Over a few rounds and all of their time: a worker's figure is a mean as well, and no best would be its like."""
    score(parts[0])
    started = time.perf_counter()
    for _ in range(ROUNDS):
        for part in parts:
            score(part)
    return ROUNDS * sum(map(len, parts)) / (time.perf_counter() - started)


def main() -> None:
    """Print texts per second of both loops."""
    bundle_path, *file = sys.argv[1:]
    lines = Path(file[0]).read_text(encoding="utf-8").splitlines() if file else list(texts(20_000))
    sys.stdout.write(f"{len(lines):,} texts of {np.mean([len(line) for line in lines]):.0f} characters\n")
    for loop in (bare_loop, scorer_loop):
        sys.stdout.write(f"{loop.__name__:<12} {loop(bundle_path, lines, SLICE):>10,.0f} texts/s\n")


if __name__ == "__main__":
    main()
