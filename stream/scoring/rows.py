"""Rows of tokens through one ONNX model: in calls as large as is fast, with the same bits in any company."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from stream.errors import BundleError, ScoringError
from stream.scoring.batching import MicroBatch, length_classes, micro_batches, most_rows
from stream.scoring.calls import refuse_difference, run_or_split
from stream.scoring.session import OnnxSession, RunError
from stream.scoring.tokenize import ModelInputs

__all__ = ["PROBE_TEXTS", "RowScorer", "Rows"]

PROBE_TEXTS = ("a", "The quick brown fox jumps over the lazy dog.", "12 + 34 = 46?", "WHY WOULD ANYBODY SHOUT !!!")
"""Scored at load, to compare providers and batch sizes, and again when nothing else can be scored, to tell a broken
runtime from a bad text."""

FEWEST_ROWS = 2
"""Where a lone row would have other bits than in company, it goes with an idle one. Matrix kernels add up in another
order for one row than for several; encoders that are exported here have no such product, others do (measured)."""

PROBE_LENGTHS = 3
"""At so many padded lengths it is found out whether a row has the same bits in any company. The order of adding up
depends on the length too; a few calls more at load are tens of milliseconds."""

PROBE_TOKENS = 1024
"""The longest of these lengths, or the longest there is. Kernels add up in blocks of a few hundred; a language model
takes seconds for a call of more."""

SMALLEST_CALL = 512
"""Tokens of the first call that is timed at load on the CPU. Fewer leave the cost of a call itself in the figure."""

NO_FASTER = 1.1
"""Once a call takes this much longer per token than the best smaller one, still larger ones are not tried: they have
left the cache for good. An encoder is fastest at 512 to 1024 tokens and half as fast at 16,384, where it also needs
half a gigabyte; a linear model gains up to the largest (measured)."""

LONG_CALL_S = 1.0
"""A call that takes longer than this gains nothing from more rows, and a language model would be timed for minutes."""


class Rows(Protocol):
    """Rows of tokens, ready to be laid out as calls."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(r,) int64, tokens of each row."""
        ...

    def inputs(self, batch: MicroBatch) -> ModelInputs:
        """The rows of `batch` as one padded call, (n + `batch.idle`, `batch.length`)."""
        ...


class RowScorer:
    """What scorers of text share: one loaded model that reads rows of tokens. Threads may share it.

    Same row, same bundle, same provider: same bits, whatever the batch-mates. A row is padded to a length that
    depends on the row alone, and runs alone, or with others, only if at load that left the probes' outputs as they
    were. Models that the runtime quantised dynamically do not pass: their step is that of the largest number in the
    call. On CUDA, where kernels are also chosen by the number of rows, all calls of a length have the same number, idle
    ones included. The exception is a call that failed and was split.
    """

    def __init__(
        self,
        session: OnnxSession,
        *,
        harms: tuple[str, ...],
        probes: Rows,
        shape: tuple[int, ...],
        longest: int,
        largest_id: int,
        max_batch_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Warm `session` up and find out how large its calls are best, at most `max_batch_tokens`.

        It gives an output of `shape` for each row; rows have `longest` tokens at most, of ids up to `largest_id`.
        Raises `BundleError` where the model does not fit that.
        """
        self.harms = harms
        self.provider: str = session.provider
        self._session = session
        self._probes = probes
        self._shape = shape
        self._classes = length_classes(longest)
        self._largest_id = largest_id
        self._max_batch_tokens = max_batch_tokens
        self._clock = clock
        self._fewest_rows = FEWEST_ROWS if session.provider == "cuda" else 1
        self._warm_up()
        if self._is_swayed_by_mates():
            self._fewest_rows = FEWEST_ROWS
        self.one_row_per_call = self._fewest_rows > 1 and self._is_swayed_by_mates()
        """Whether the model cannot score texts together; it is much slower then."""
        if self.one_row_per_call:
            self._max_batch_tokens = self._fewest_rows = 1

    def refuse_difference(self, reference: Self) -> None:
        """Raise `ProviderError` unless the probes' outputs agree with those of `reference`."""
        refuse_difference(self._score_probes(), reference._score_probes(), provider=self.provider)

    def _score_rows(self, rows: Rows) -> NDArray[np.float32]:
        """The outputs of r rows, (r, *shape) float32, NaN in all of a row where the model failed.

        Raises `ScoringError` where every row failed, and known text does too: the rows are not at fault then.
        """
        outputs = np.full((len(rows.lengths), *self._shape), np.nan, dtype=np.float32)
        for batch in self._batches(rows):
            run_or_split(batch, lambda part: self._run(rows, part, outputs), fewest=self._fewest_rows)
        failed = ~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
        # In all of the row, so that no maximum over some of it can hide that.
        outputs[failed] = np.nan
        if failed.all():
            self._score_probes()
        return outputs

    def _run(self, rows: Rows, batch: MicroBatch, outputs: NDArray[np.float32]) -> None:
        """Fill `outputs` for the rows of `batch`. Raises `RunError`."""
        outputs[batch.rows] = self._session.run(rows.inputs(batch))[: len(batch.rows)]

    def _batches(self, rows: Rows) -> list[MicroBatch]:
        batches = micro_batches(rows.lengths, self._classes, max_tokens=self._max_batch_tokens)
        return [batch.at_least(self._least_rows(batch.length)) for batch in batches]

    def _least_rows(self, length: int) -> int:
        return most_rows(length, max_tokens=self._max_batch_tokens) if self.provider == "cuda" else self._fewest_rows

    def _score_probes(self) -> NDArray[np.float32]:
        """The outputs of the probes, finite; otherwise raise `ScoringError`, for nothing can be scored."""
        outputs = self._run_all(self._probes, self._batches(self._probes))
        if not np.isfinite(outputs).all():
            raise ScoringError(
                f"on {self.provider} the model gives no finite logits for a plain sentence; export it again"
            )
        return outputs

    def _is_swayed_by_mates(self) -> bool:
        """Whether a probe's outputs depend on the other probes being in its call, at any of a few lengths."""
        shortest = int(np.searchsorted(self._classes, self._probes.lengths.max()))
        longest = max(shortest, int(np.searchsorted(self._classes, PROBE_TOKENS, side="right")) - 1)
        chosen = np.linspace(shortest, longest, PROBE_LENGTHS).astype(np.int64)
        return any(self._is_swayed_at(int(length)) for length in np.unique(self._classes[chosen]))

    def _is_swayed_at(self, length: int) -> bool:
        least = self._least_rows(length)
        rows = np.arange(len(self._probes.lengths))
        together = self._run_all(self._probes, [MicroBatch(rows, length).at_least(least)])
        lone = [MicroBatch(row, length).at_least(least) for row in np.split(rows, len(rows))]
        return not np.array_equal(together, self._run_all(self._probes, lone))

    def _run_all(self, rows: Rows, batches: list[MicroBatch]) -> NDArray[np.float32]:
        """The outputs of r rows, (r, *shape) float32. Raises `RunError`."""
        outputs = np.empty((len(rows.lengths), *self._shape), dtype=np.float32)
        for batch in batches:
            self._run(rows, batch, outputs)
        return outputs

    def _warm_up(self) -> None:
        """Run the largest calls there will be, so that memory is found short now and not in traffic."""
        if self.provider == "cuda":
            for length in self._classes.tolist():
                self._run_full(length, self._max_batch_tokens)
        else:
            self._max_batch_tokens = self._fastest_call()
        self._score_probes()

    def _fastest_call(self) -> int:
        """How many tokens a call has at most: as many as take least time per token; scores do not depend on it."""
        length = int(self._classes[-1])
        tokens = fastest = min(SMALLEST_CALL, self._max_batch_tokens)
        best = self._time_full(length, tokens)
        while tokens < self._max_batch_tokens and best * tokens < LONG_CALL_S:
            tokens = min(2 * tokens, self._max_batch_tokens)
            taken = self._time_full(length, tokens)
            if taken > NO_FASTER * best:
                break
            if taken < best:
                best, fastest = taken, tokens
        return fastest

    def _time_full(self, length: int, tokens: int) -> float:
        """Seconds per token of a full call of `tokens` tokens, the better of two unless it is long."""
        taken = np.inf
        for _ in range(2):
            started = self._clock()
            rows = self._run_full(length, tokens)
            seconds = self._clock() - started
            taken = min(taken, seconds / (rows * length))
            if seconds > LONG_CALL_S:
                break
        return taken

    def _run_full(self, length: int, tokens: int) -> int:
        """Run a call of `tokens` tokens, and return its rows.

        They are the tokenizer's largest id, which a model with another vocabulary does not have.
        """
        rows = max(most_rows(length, max_tokens=tokens), self._fewest_rows)
        ids = np.full((rows, length), self._largest_id, dtype=np.int64)
        try:
            outputs = self._session.run(ModelInputs(ids, np.ones_like(ids)))
        except RunError as error:
            raise BundleError(
                f"the model cannot take a full call of its tokenizer's tokens: {error}; lower max_batch_tokens "
                "if memory is short, or export the bundle again"
            ) from None
        if outputs.shape != (rows, *self._shape):
            raise BundleError(f"the model gives logits of shape {outputs.shape}, not {(rows, *self._shape)}")
        return rows
