"""A scorer that runs a bundle's classifier of text with ONNX Runtime: events in, logits per harm out."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from stream.bundle import Bundle
from stream.bundle.manifest import TextForm
from stream.errors import BundleError
from stream.events import EventBatch, FailCondition, Scores
from stream.scoring.calls import bit, open_compared
from stream.scoring.form import PLAIN
from stream.scoring.modality import find_text
from stream.scoring.rows import PROBE_TEXTS, RowScorer
from stream.scoring.session import OnnxSession, Provider, open_session, reads_tokens
from stream.scoring.tokenize import WindowTokenizer

__all__ = ["OnnxScorer"]


class OnnxScorer(RowScorer):
    """Scores text with one loaded classifier, which reads it in overlapping windows. Threads may share it."""

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
        """Warm up; see `RowScorer`. Raises `BundleError` where the model does not fit its tokenizer or its manifest."""
        self._tokenizer = tokenizer
        self._form = form
        super().__init__(
            session,
            harms=harms,
            probes=tokenizer.read(PROBE_TEXTS),
            shape=(len(harms),),
            longest=window,
            largest_id=tokenizer.largest_id,
            max_batch_tokens=max_batch_tokens,
            clock=clock,
        )

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

        def make(model: bytes, place: Provider) -> OnnxScorer:
            return cls(
                open_session(model, place, signature=reads_tokens(len(manifest.harms))),
                tokenizer,
                harms=manifest.harms,
                window=given.max_tokens,
                max_batch_tokens=max_batch_tokens,
                form=given.form,
            )

        return open_compared(bundle, provider, make)

    def score(self, events: EventBatch) -> Scores:
        """Score m events; see `Scores`. Raises `ScoringError` where the runtime fails on texts that are known to work.

        A text that tokenizer or model fails on, or that has no finite logit, has NaN logits and `SCORER_ERROR`.
        """
        readable = find_text(events, self._form)
        logits = np.full((len(events), len(self.harms)), np.nan, dtype=np.float32)
        conditions = readable.conditions
        counts = np.zeros(len(events), dtype=np.int16)
        if readable.texts:
            tokens = self._tokenizer.read(readable.texts)
            windows = tokens.windows
            scored = np.maximum.reduceat(self._score_rows(tokens), windows.firsts, axis=0)
            scored[list(tokens.failures)] = np.nan
            logits[readable.rows] = scored
            conditions[readable.rows] |= bit(FailCondition.SCORER_ERROR, np.isnan(scored[:, 0]))
            conditions[readable.rows] |= bit(FailCondition.TRUNCATED, windows.cut)
            counts[readable.rows] = windows.counts
        return Scores(logits, conditions, counts)
