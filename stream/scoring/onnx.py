"""A scorer that runs a bundle's model with ONNX Runtime: events in, logits per harm out, whatever single rows do."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.bundle import Bundle
from stream.bundle.manifest import TextForm
from stream.errors import BundleError, ScoringError
from stream.events import EventBatch, FailCondition, Scores
from stream.scoring.batching import MicroBatch, length_classes, micro_batches, most_rows
from stream.scoring.calls import bit, refuse_difference, run_or_split
from stream.scoring.form import PLAIN
from stream.scoring.modality import find_text
from stream.scoring.session import OnnxSession, Provider, RunError, open_session, reads_tokens
from stream.scoring.tokenize import ModelInputs, TokenWindows, WindowTokenizer

__all__ = ["OnnxScorer"]

PROBE_TEXTS = ("a", "The quick brown fox jumps over the lazy dog.", "12 + 34 = 46?", "WHY WOULD ANYBODY SHOUT !!!")
"""Scored at load, to compare providers and batch sizes, and again when nothing else can be scored, to tell a broken
runtime from a bad text."""

FEWEST_ROWS = 2
"""Where a lone row would have other bits than in company, it goes with an idle one. Matrix kernels add up in another
order for one row than for several; encoders that are exported here have no such product, others do (measured)."""

PROBE_LENGTHS = 3
"""At so many padded lengths, the longest among them, it is found out whether a row has the same bits in any company.
The order of adding up depends on the length too; a few calls more at load are tens of milliseconds."""

SMALLEST_CALL = 512
"""Tokens of the first call that is timed at load on the CPU. Fewer leave the cost of a call itself in the figure."""

NO_FASTER = 1.1
"""Once a call takes this much longer per token than the best smaller one, still larger ones are not tried: they have
left the cache for good. An encoder is fastest at 512 to 1024 tokens and half as fast at 16,384, where it also needs
half a gigabyte; a linear model gains up to the largest (measured)."""


class OnnxScorer:
    """Scores text with one loaded model. Threads may share it.

    Same content, same bundle, same provider: same bits, whatever the batch-mates. A row is padded to a length that
    depends on the row alone, and runs alone, or with others, only if at load that left the probes' logits as they were.
    Models that the runtime quantised dynamically do not pass: their step is that of the largest number in the call.
    On CUDA, where kernels are also chosen by the number of rows, all calls of a length have the same number, idle ones
    included. The exception is a call that failed and was split.
    """

    def __init__(
        self,
        session: OnnxSession,
        tokenizer: WindowTokenizer,
        *,
        harms: tuple[str, ...],
        window: int,
        max_batch_tokens: int,
        form: TextForm = PLAIN,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Warm `session` up and find out how large its calls are best, at most `max_batch_tokens`.

        Raises `BundleError` where the model does not fit its tokenizer or its manifest.
        """
        self.harms = harms
        self.provider: str = session.provider
        self._session = session
        self._tokenizer = tokenizer
        self._form = form
        self._classes = length_classes(window)
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

    @classmethod
    def from_bundle(
        cls, bundle: Bundle, *, provider: Provider, max_batch_tokens: int, max_windows: int | None
    ) -> OnnxScorer:
        """Load a verified bundle for `provider`.

        Without an artefact for CUDA the one for the CPU runs there, provided that every operator does. Raises
        `BundleError` where the bundle cannot be served, `ProviderError` where `provider` is not what would run it.
        """
        manifest, given = bundle.manifest, bundle.manifest.input
        if given.kind != "text" or manifest.tokenizer is None:
            raise BundleError(f"{bundle.path} does not read text as it is: it has an input of kind {given.kind}")
        tokenizer = WindowTokenizer.of(bundle.read(manifest.tokenizer), given, max_windows=max_windows)

        def open_on(place: Provider) -> OnnxScorer:
            model = bundle.read(manifest.artefacts.get(place, manifest.artefacts["cpu"]))
            return cls(
                open_session(model, place, signature=reads_tokens(len(manifest.harms))),
                tokenizer,
                harms=manifest.harms,
                window=given.max_tokens,
                max_batch_tokens=max_batch_tokens,
                form=given.form,
            )

        scorer = open_on(provider)
        if provider != "cpu":
            scorer.refuse_difference(open_on("cpu"))
        return scorer

    def score(self, events: EventBatch) -> Scores:
        """Score m events; see `Scores`. Raises `ScoringError` where the runtime fails on texts that are known to work.

        A text that the model fails on, or gives no finite logit for, has NaN logits and `SCORER_ERROR`.
        """
        readable = find_text(events, self._form)
        logits = np.full((len(events), len(self.harms)), np.nan, dtype=np.float32)
        conditions = readable.conditions
        counts = np.zeros(len(events), dtype=np.int16)
        if readable.texts:
            tokens = self._tokenizer.read(readable.texts)
            windows = tokens.windows
            scored = np.maximum.reduceat(self._score_windows(tokens), windows.firsts, axis=0)
            failed = np.isnan(scored[:, 0])
            if failed.all():
                self._score_probes()
            logits[readable.rows] = scored
            conditions[readable.rows] |= bit(FailCondition.SCORER_ERROR, failed)
            conditions[readable.rows] |= bit(FailCondition.TRUNCATED, windows.cut)
            counts[readable.rows] = windows.counts
        return Scores(logits, conditions, counts)

    def refuse_difference(self, reference: OnnxScorer) -> None:
        """Raise `ProviderError` unless the probes' logits agree with those of `reference`."""
        refuse_difference(self._score_probes(), reference._score_probes(), provider=self.provider)

    def _score_windows(self, tokens: TokenWindows) -> NDArray[np.float32]:
        """The logits of r windows, (r, h) float32, NaN where the model failed."""
        logits = np.full((len(tokens.lengths), len(self.harms)), np.nan, dtype=np.float32)
        for batch in self._batches(tokens):
            run_or_split(batch, lambda part: self._run(tokens, part, logits), fewest=self._fewest_rows)
        # NaN in all of the row, so that no maximum over a text's windows can hide it.
        logits[~np.isfinite(logits).all(axis=1)] = np.nan
        return logits

    def _run(self, tokens: TokenWindows, batch: MicroBatch, logits: NDArray[np.float32]) -> None:
        """Fill `logits` for the rows of `batch`. Raises `RunError`."""
        logits[batch.rows] = self._session.run(tokens.inputs(batch))[: len(batch.rows)]

    def _batches(self, tokens: TokenWindows) -> list[MicroBatch]:
        batches = micro_batches(tokens.lengths, self._classes, max_tokens=self._max_batch_tokens)
        return [batch.at_least(self._least_rows(batch.length)) for batch in batches]

    def _least_rows(self, length: int) -> int:
        return most_rows(length, max_tokens=self._max_batch_tokens) if self.provider == "cuda" else self._fewest_rows

    def _score_probes(self) -> NDArray[np.float32]:
        """The logits of the probes' windows, finite; otherwise raise `ScoringError`, for nothing can be scored."""
        tokens = self._tokenizer.read(PROBE_TEXTS)
        logits = self._run_all(tokens, self._batches(tokens))
        if not np.isfinite(logits).all():
            raise ScoringError(
                f"on {self.provider} the model gives no finite logits for a plain sentence; export it again"
            )
        return logits

    def _is_swayed_by_mates(self) -> bool:
        """Whether a probe's logits depend on the other probes being in its call, at any of a few lengths."""
        tokens = self._tokenizer.read(PROBE_TEXTS)
        shortest = int(np.searchsorted(self._classes, tokens.lengths.max()))
        chosen = np.linspace(shortest, len(self._classes) - 1, PROBE_LENGTHS).astype(np.int64)
        return any(self._is_swayed_at(tokens, int(length)) for length in np.unique(self._classes[chosen]))

    def _is_swayed_at(self, tokens: TokenWindows, length: int) -> bool:
        least = self._least_rows(length)
        rows = np.arange(len(tokens.lengths))
        together = self._run_all(tokens, [MicroBatch(rows, length).at_least(least)])
        alone = self._run_all(tokens, [MicroBatch(row, length).at_least(least) for row in np.split(rows, len(rows))])
        return not np.array_equal(together, alone)

    def _run_all(self, tokens: TokenWindows, batches: list[MicroBatch]) -> NDArray[np.float32]:
        """The logits of r windows, (r, h) float32. Raises `RunError`."""
        logits = np.empty((len(tokens.lengths), len(self.harms)), dtype=np.float32)
        for batch in batches:
            self._run(tokens, batch, logits)
        return logits

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
        while tokens < self._max_batch_tokens:
            tokens = min(2 * tokens, self._max_batch_tokens)
            taken = self._time_full(length, tokens)
            if taken > NO_FASTER * best:
                break
            if taken < best:
                best, fastest = taken, tokens
        return fastest

    def _time_full(self, length: int, tokens: int) -> float:
        """Seconds per token of a full call of `tokens` tokens, the better of two."""
        taken = []
        for _ in range(2):
            started = self._clock()
            rows = self._run_full(length, tokens)
            taken.append((self._clock() - started) / (rows * length))
        return min(taken)

    def _run_full(self, length: int, tokens: int) -> int:
        """Run a call of `tokens` tokens, and return its rows.

        They are the tokenizer's largest id, which a model with another vocabulary does not have.
        """
        rows = max(most_rows(length, max_tokens=tokens), self._fewest_rows)
        ids = np.full((rows, length), self._tokenizer.largest_id, dtype=np.int64)
        try:
            logits = self._session.run(ModelInputs(ids, np.ones_like(ids)))
        except RunError as error:
            raise BundleError(
                f"the model cannot take a full call of its tokenizer's tokens: {error}; lower max_batch_tokens "
                "if memory is short, or export the bundle again"
            ) from None
        if logits.shape != (rows, len(self.harms)):
            raise BundleError(f"the model gives logits of shape {logits.shape}, not {(rows, len(self.harms))}")
        return rows
