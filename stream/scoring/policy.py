"""A causal language model as a scorer: asked for each harm whether a text violates its guideline, yes or no [S01]."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.bundle import Bundle
from stream.bundle.manifest import PolicyInput
from stream.bundle.questions import parse_templates
from stream.errors import BundleError
from stream.events import EventBatch, FailCondition, Scores
from stream.scoring.calls import bit, open_compared
from stream.scoring.modality import find_text
from stream.scoring.questions import QuestionTokenizer
from stream.scoring.rows import PROBE_TEXTS, RowScorer
from stream.scoring.session import OnnxSession, Provider, answers_questions, open_session

__all__ = ["PolicyScorer", "answer_logits", "read_questions"]

PROBES = 2
"""Of the texts that are scored at load, those asked about: a language model takes seconds for what an encoder does in
milliseconds, and two are enough to be each other's company."""


class PolicyScorer(RowScorer):
    """Scores text by asking a language model about it, all harms in one call. Threads may share it."""

    def __init__(
        self,
        session: OnnxSession,
        tokenizer: QuestionTokenizer,
        *,
        harms: tuple[str, ...],
        given: PolicyInput,
        max_batch_tokens: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Warm up; see `RowScorer`. Raises `BundleError` where the model does not fit its tokenizer or its manifest."""
        self._tokenizer = tokenizer
        self._given = given
        role = min(tokenizer.roles)
        super().__init__(
            session,
            harms=harms,
            probes=tokenizer.read(PROBE_TEXTS[:PROBES], roles=[role] * PROBES, prompts=[None] * PROBES),
            shape=(len(harms), 2),
            longest=tokenizer.longest,
            largest_id=tokenizer.largest_id,
            max_batch_tokens=max_batch_tokens,
            clock=clock,
        )

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, provider: Provider, max_batch_tokens: int) -> PolicyScorer:
        """Load a verified bundle for `provider`.

        Without an artefact for CUDA the one for the CPU runs there, provided that every operator does. Raises
        `BundleError` where the bundle cannot be served, `ProviderError` where `provider` is not what would run it.
        """
        manifest, given = bundle.manifest, bundle.manifest.input
        if given.kind != "policy":
            raise BundleError(f"{bundle.path} does not ask about text: it has an input of kind {given.kind}")
        tokenizer = read_questions(bundle)

        def make(model: bytes, place: Provider) -> PolicyScorer:
            signature = answers_questions(len(manifest.harms), likelihoods=given.needs_likelihoods)
            return cls(
                open_session(model, place, signature=signature),
                tokenizer,
                harms=manifest.harms,
                given=given,
                max_batch_tokens=max_batch_tokens,
            )

        return open_compared(bundle, provider, make)

    def score(self, events: EventBatch) -> Scores:
        """Score m events; see `Scores`. Raises `ScoringError` where the runtime fails on texts that are known to work.

        A text that the model fails on for any harm, or answers neither yes nor no to, has NaN logits and
        `SCORER_ERROR`; content of a role that there are no questions for has `UNSUPPORTED`.
        """
        readable = find_text(events)
        logits = np.full((len(events), len(self.harms)), np.nan, dtype=np.float32)
        conditions = readable.conditions
        counts = np.zeros(len(events), dtype=np.int16)
        known = np.fromiter((role in self._tokenizer.roles for role in events.roles), np.bool_, count=len(events))
        conditions |= bit(FailCondition.UNSUPPORTED, ~known)
        asked = [(row, text) for row, text in zip(readable.rows.tolist(), readable.texts, strict=True) if known[row]]
        if asked:
            rows = [row for row, _ in asked]
            questions = self._tokenizer.read(
                [text for _, text in asked],
                roles=[events.roles[row] for row in rows],
                prompts=[events.prompts[row] for row in rows],
            )
            given = self._given
            scored = answer_logits(
                self._score_rows(questions),
                temperature=given.temperature,
                alpha=given.alpha,
                min_answer_mass=given.min_answer_mass,
            )
            scored[questions.lengths == 0] = np.nan
            logits[rows] = scored
            conditions[rows] |= bit(FailCondition.SCORER_ERROR, np.isnan(scored[:, 0]))
            conditions[rows] |= bit(FailCondition.TRUNCATED, questions.cut)
            counts[rows] = 1
        return Scores(logits, conditions, counts)


def read_questions(bundle: Bundle) -> QuestionTokenizer:
    """What reads a text as the questions of a policy bundle. Raises `BundleError` where its files do not fit."""
    manifest, given = bundle.manifest, bundle.manifest.input
    if given.kind != "policy" or manifest.tokenizer is None:
        raise BundleError(f"{bundle.path} does not ask about text: it has an input of kind {given.kind}")
    name = f"{given.templates} in {bundle.path}"
    templates = parse_templates(bundle.read(given.templates), harms=manifest.harms, roles=manifest.roles, name=name)
    return QuestionTokenizer(
        bundle.read(manifest.tokenizer), templates, harms=manifest.harms, max_tokens=given.max_tokens
    )


def answer_logits(
    likelihoods: NDArray[np.float32], *, temperature: float, alpha: float, min_answer_mass: float
) -> NDArray[np.float32]:
    """The logits (t, h) float32 of the log-likelihoods of yes and no, (t, h, 2) float32 [S01].

    p = (exp(yes / T) + alpha) / (exp(yes / T) + exp(no / T) + 2 alpha), and the logit is log(p / (1 - p)), which is the
    difference of the logarithms of the two summands. Rows are NaN as a whole where any harm's answers have less than
    `min_answer_mass` of all probability together, or are no numbers.

    >>> likelihoods = np.array([[[2.0, 1.0]]], np.float32)
    >>> 1 / (1 + np.exp(-answer_logits(likelihoods, temperature=1, alpha=0, min_answer_mass=0).item()))
    0.7310585786300049
    """
    exact = likelihoods.astype(np.float64)
    floor = np.log(alpha) if alpha else -np.inf
    least = np.log(min_answer_mass) if min_answer_mass else -np.inf
    with np.errstate(invalid="ignore"):  # what is no number stays none
        yes, no = np.moveaxis(np.logaddexp(exact / temperature, floor), -1, 0)
        is_answer = np.logaddexp(exact[..., 0], exact[..., 1]) >= least
    logits: NDArray[np.float32] = (yes - no).astype(np.float32)
    logits[~(is_answer & np.isfinite(logits)).all(axis=1)] = np.nan
    return logits
