"""A scorer as the worker opens it, and labelled texts: their logits, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.counterfactual import Sentence
from export.dataset import BadLine
from export.errors import ExportError
from export.label_columns import LabelColumns, LabelTable
from export.labelled import LabelledRow, Numbered, Unusable, bounded, chunks, named_first, read_rows
from export.progress import Say
from export.splits import split
from stream.bundle.manifest import Role
from stream.decode import DecodeLimits, Decoder
from stream.events import LineRecord
from stream.scoring import Scorer

__all__ = ["ScoredRows", "score_rows", "score_sentences"]

_LIMITS = DecodeLimits(
    max_event_bytes=8 * 1024 * 1024, max_json_depth=32, max_future_s=0, max_image_pixels=1, max_image_frames=1
)
"""Of an event that is made of a row: twice the longest line that is read, since JSON may write it longer."""

_CREATED_AT, _NOW = "2026-01-01T00:00:00Z", 1_767_225_600.0  # the same moment: scores do not depend on time

_SLICE = 1024  # texts scored together, as in a worker

_SAY_EVERY = 5  # slices: a large model takes minutes for one

_NAMED = 5  # unusable lines that are said


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """n labelled texts that the model could score."""

    logits: NDArray[np.float32]
    """(n, h), one column per harm of the scorer."""
    labels: LabelTable
    is_test: NDArray[np.bool_]
    """(n,) whether the text's digest puts it into the test split."""
    other_roles: int
    """Texts left out since the model is not for their role."""
    unusable: Unusable


def score_rows(scorer: Scorer, paths: Sequence[Path], *, roles: Sequence[Role], say: Say) -> ScoredRows:
    """Score the labelled texts in `paths` that are of one of these roles; their number is bounded by `MAX_ROWS`.

    Raises `ExportError` where none could be used.
    """
    unusable = Unusable()
    columns, logits, is_test = LabelColumns(scorer.harms), [], []
    others = 0
    for number, chunk in enumerate(chunks(bounded(read_rows(paths, unusable)), _SLICE)):
        rows = [numbered for numbered in chunk if numbered.row.role in roles]
        others += len(chunk) - len(rows)
        found, failed = _score(scorer, [numbered.row for numbered in rows])
        _add_failed(unusable, rows, failed)
        kept = [row for row in range(len(rows)) if row not in failed]
        logits.append(found[kept])
        for row in kept:
            columns.add(rows[row])
            is_test.append(len(split([rows[row].row.text]).test) > 0)
        if number % _SAY_EVERY == _SAY_EVERY - 1:
            say(f"scored {len(columns):,} texts")
    if not len(columns):
        raise ExportError(
            f"none of the labelled texts could be used: {unusable.count} lines were bad, {others} texts of roles that "
            f"the model is not for{named_first(unusable)}"
        )
    _tell(unusable, others, columns, say)
    return ScoredRows(np.concatenate(logits), columns.table(), np.array(is_test), others, unusable)


def score_sentences(scorer: Scorer, sentences: Sequence[Sentence]) -> NDArray[np.float32]:
    """The logits of n plain sentences, (n, h). Raises `ExportError` where the model cannot score one of them."""
    logits, failed = _score(
        scorer, [LabelledRow(text=sentence.text, role=sentence.role, labels={}) for sentence in sentences]
    )
    if failed:
        raise ExportError(f"the model cannot score a plain sentence: {next(iter(failed.values()))}")
    return logits


def _score(scorer: Scorer, rows: Sequence[LabelledRow]) -> tuple[NDArray[np.float32], dict[int, str]]:
    """The logits of n rows, NaN where there are none, and why not, by row."""
    logits = np.full((len(rows), len(scorer.harms)), np.nan, dtype=np.float32)
    failed: dict[int, str] = {}
    for start in range(0, len(rows), _SLICE):
        records = [
            LineRecord(number, row.event(id=str(number), created_at=_CREATED_AT))
            for number, row in enumerate(rows[start : start + _SLICE])
        ]
        events, rejected = Decoder(_LIMITS).decode(records, now=_NOW)
        failed |= {start + bad.position: f"{bad.reason.value}: {bad.error}" for bad in rejected}
        if len(events):
            logits[start + events.positions] = scorer.score(events).logits
    unscored = np.flatnonzero(np.isnan(logits).any(axis=1)).tolist()
    return logits, dict.fromkeys(unscored, "the model gave no score") | failed


def _add_failed(unusable: Unusable, rows: Sequence[Numbered], failed: dict[int, str]) -> None:
    for row, why in sorted(failed.items()):
        unusable.add(BadLine(rows[row].file, rows[row].line, why))


def _tell(unusable: Unusable, others: int, columns: LabelColumns, say: Say) -> None:
    say(f"scored {len(columns):,} labelled texts")
    if others:
        say(f"left out {others:,} texts of roles that the model is not for")
    if columns.unknown:
        say(f"left aside labels that are no harm of this model: {', '.join(columns.unknown)}")
    if unusable.count:
        say(f"{unusable.count:,} lines could not be used:")
        for bad in unusable.named[:_NAMED]:
            say(f"  line {bad.line} of {bad.file}: {bad.why}")
