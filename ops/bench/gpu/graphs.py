"""What CUDA graphs add: a bucket of one shape with inputs bound to the GPU's memory, replayed against launched anew.

The service uses none; its calls on CUDA have one shape per padded length already, so it could.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ops.bench.gpu.forms import Form
from ops.bench.gpu.rows import Reason, Row, attempt
from ops.bench.gpu.sessions import Bound, open_bare, run_bare
from ops.bench.gpu.workload import random_inputs
from ops.bench.turns import best_in_turns
from stream.errors import ScoringError
from stream.scoring.session import Provider
from stream.scoring.tokenize import ModelInputs

from onnxruntime import InferenceSession  # isort: skip - after stream.scoring, which switches its telemetry off

__all__ = ["BUCKETS", "Bucket", "compare_graphs", "largest_difference", "measure_bucket"]

_GRAPHS: Final = "CUDA graph ÷ without"
_BATCHES = 4
"""Taken in turns, none equal to another: a replay that read stale inputs would give stale logits."""

MOST_APART: Final = 0.05
"""Between a logit of a replay and of a plain call, where nothing but the choice of kernels differs: half precision as a
whole moves logits by a tenth at most. Stale inputs move them by whole units."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One shape of calls, with the number of its graph, from 1 on: 0 is the runtime's own."""

    graph: int
    length: int
    rows: int


@dataclass(frozen=True, slots=True)
class BucketSpeed:
    """Texts per second of a bucket both ways, and the largest difference of a logit from that of a plain call."""

    replayed: float
    launched: float
    apart: float


BUCKETS: Final = tuple(
    Bucket(number, length, rows)
    for number, (length, rows) in enumerate(
        ((length, rows) for length in (16, 32, 64, 128, 256) for rows in (8, 64, 256)), start=1
    )
)


def compare_graphs(form: Form, provider: Provider, *, harms: int, rounds: int) -> Iterator[Row]:
    """Each bucket of one form, all in one session."""
    if provider != "cuda":
        yield Row(_GRAPHS, form.precision, note="not run: CUDA graphs are CUDA's")
        return
    sessions = attempt(lambda: (open_bare(form.model(), "cuda"), open_bare(form.model(), "cuda", graphs=True)))
    if isinstance(sessions, Reason):
        yield Row(_GRAPHS, form.precision, note=sessions.text)
        return
    for bucket in BUCKETS:
        speed = attempt(measure_bucket, *sessions, "cuda", bucket, harms=harms, rounds=rounds)
        shape = f"{bucket.length} x {bucket.rows}"
        if isinstance(speed, Reason):
            yield Row(_GRAPHS, form.precision, shape, note=speed.text)
        else:
            note = f"logits as of a plain call, to {speed.apart:.2g}"
            yield Row(_GRAPHS, form.precision, shape, speed.replayed, speed.launched, "texts/s", note)


def measure_bucket(
    plain: InferenceSession,
    replaying: InferenceSession,
    provider: Provider,
    bucket: Bucket,
    *,
    harms: int,
    rounds: int,
) -> BucketSpeed:
    """Time both, once they agree. Raises `ScoringError` where they do not."""
    shape = {"rows": bucket.rows, "length": bucket.length}
    off = Bound(plain, provider, **shape, harms=harms)
    on = Bound(replaying, provider, **shape, harms=harms, graph=bucket.graph)
    batches = [random_inputs(**shape, seed=seed) for seed in range(_BATCHES)]
    expected = [run_bare(plain, batch)() for batch in batches]
    apart = max(largest_difference(bound, batches, expected) for bound in (off, on))
    turns = [cycle(batches), cycle(batches)]
    on_s, off_s = best_in_turns([lambda: on.run(next(turns[0])), lambda: off.run(next(turns[1]))], rounds=rounds)
    return BucketSpeed(bucket.rows / on_s, bucket.rows / off_s, apart)


def largest_difference(bound: Bound, batches: Sequence[ModelInputs], expected: Sequence[NDArray[np.float32]]) -> float:
    """From the expected logits, over two passes, so that each batch is also run after another one.

    Raises `ScoringError` where it is more than the choice of kernels explains: such a speed would be worth nothing.
    """
    apart = max(
        float(np.abs(bound.run(batch) - logits).max())
        for _ in range(2)
        for batch, logits in zip(batches, expected, strict=True)
    )
    if not apart <= MOST_APART:
        raise ScoringError(f"bound logits differ by {apart:.3g} from those of a plain call: inputs are not read anew")
    return apart
