"""Texts per second of the service's scorer against the runtime alone, on texts of one length, by rows per call.

Both sides in turns, the best of the rounds each. The runtime alone gets arrays that are ready; the scorer gets decoded
events, and tokenises. It knows the made-up words by memory, which is the tokenizer at its fastest; on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ops.bench.gpu.forms import SHIPPED, Form
from ops.bench.gpu.rows import Reason, Row, attempt
from ops.bench.gpu.sessions import open_bare, run_bare
from ops.bench.gpu.workload import events_of, inputs_of, scorer_of, texts_of, tokenizer_of
from ops.bench.turns import best_in_turns
from stream.bundle import Bundle
from stream.scoring.session import OnnxSession, Provider
from stream.settings import Settings

from onnxruntime import InferenceSession  # isort: skip - after stream.scoring, which switches its telemetry off

__all__ = ["LENGTHS", "ROWS", "Speed", "compare_speed"]

LENGTHS: Final = (32, 128)
"""Tokens per text: half of what people write on a platform is shorter than 32, a paragraph of a chat has 128."""

ROWS: Final = (8, 64, 128, 512)
"""Per call. The default budget of 16,384 tokens makes 512 at 32 tokens, 128 at 128."""

_SPEED: Final = "scorer ÷ session.run"


@dataclass(frozen=True, slots=True)
class Speed:
    """Best times in seconds of three ways over the same texts."""

    texts: int
    scorer_s: float
    bare_s: float
    tokenise_s: float

    @property
    def tokenising(self) -> float:
        """The tokenizer's share of the scorer's time."""
        return self.tokenise_s / self.scorer_s

    def row(self, precision: str, shape: str) -> Row:
        """Texts per second of both sides."""
        rates = self.texts / self.scorer_s, self.texts / self.bare_s
        return Row(_SPEED, precision, shape, *rates, unit="texts/s")

    def tokenising_row(self, precision: str, shape: str) -> Row:
        """The tokenizer's share."""
        note = f"{self.tokenise_s / self.texts * 1e6:.1f} µs a text"
        return Row("tokenising ÷ scorer", precision, shape, self.tokenising, unit="share", note=note)


def compare_speed(
    bundle: Bundle, form: Form, settings: Settings, provider: Provider, *, lengths: Sequence[int], rounds: int
) -> Iterator[Row]:
    """Of one form; the shipped one's tokenising share as well. A unit has as many texts as a slice of a worker."""
    opened = attempt(_open, bundle, form, provider)
    if isinstance(opened, Reason):
        yield Row(_SPEED, form.precision, note=opened.text)
        return
    for length in lengths:
        for rows in (rows for rows in ROWS if rows <= settings.slice_max_records):
            shape = f"{length} x {rows}"
            speed = attempt(_measure, bundle, *opened, settings, length=length, rows=rows, rounds=rounds)
            if isinstance(speed, Reason):
                yield Row(_SPEED, form.precision, shape, note=speed.text)
                continue
            yield speed.row(form.precision, shape)
            if form.precision == SHIPPED:
                yield speed.tokenising_row(form.precision, shape)


def _open(bundle: Bundle, form: Form, provider: Provider) -> tuple[OnnxSession, InferenceSession]:
    """The service's session, which loads CUDA's libraries, and a bare one."""
    return form.session(provider, harms=len(bundle.manifest.harms)), open_bare(form.model(), provider)


def _measure(
    bundle: Bundle,
    session: OnnxSession,
    bare: InferenceSession,
    settings: Settings,
    *,
    length: int,
    rows: int,
    rounds: int,
) -> Speed:
    scorer = scorer_of(bundle, session, max_batch_tokens=rows * length)
    tokenizer = tokenizer_of(bundle)
    texts = texts_of(tokenizer, length=length, count=settings.slice_max_records)
    events = events_of(texts, settings)
    calls = [run_bare(bare, inputs) for inputs in inputs_of(tokenizer, texts, length=length, rows=rows)]
    sides = [lambda: scorer.score(events), lambda: [call() for call in calls], lambda: tokenizer.read(texts)]
    best_in_turns(sides, rounds=1)  # words are met, memory is taken, kernels are chosen
    return Speed(len(texts), *best_in_turns(sides, rounds=rounds))
