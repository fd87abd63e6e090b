"""A scorer as the worker opens it, and labelled texts or images: their logits, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.counterfactual import Sentence
from export.data.content import NOW, Text, event_of, why_unscored
from export.data.dataset import BadLine
from export.data.label_columns import LabelColumns, LabelTable
from export.data.labelled import (
    MAX_CHUNK_ROWS,
    Asking,
    Numbered,
    Unusable,
    bounded,
    chunks,
    named_first,
    read_rows,
    tell_unusable,
)
from export.data.splits import split_of
from export.errors import ExportError
from export.progress import Say
from stream.bundle.manifest import Modality, Role
from stream.decode import Decoder
from stream.events import LineRecord
from stream.scoring import Scorer
from stream.settings import load_settings
from stream.wiring import decode_limits

__all__ = ["ScoredRows", "score_rows", "score_sentences"]

_SAY_EVERY = 5  # slices: a large model takes minutes for one


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """n labelled texts, or images, that the model could score."""

    logits: NDArray[np.float32]
    """(n, h), one column per harm of the scorer."""
    labels: LabelTable
    is_test: NDArray[np.bool_]
    """(n,) whether its digest puts it into the test split."""
    other_roles: int
    """Rows left out since the model is not for their role."""
    unusable: Unusable


def score_rows(
    scorer: Scorer, paths: Sequence[Path], *, name: str, modality: Modality, roles: Sequence[Role], say: Say
) -> ScoredRows:
    """Score the labelled rows in `paths` that are of one of these roles; their number is bounded by `MAX_ROWS`.

    What a worker would not decode, by the settings in force, is not scored either. Raises `ExportError` where nothing
    could be used, or rows are not of the kind that the model `name` reads.
    """
    unusable, decoder = Unusable(), _decoder()
    asking = Asking(name, modality, decoder.limits.max_event_bytes)
    columns, logits, is_test = LabelColumns(scorer.harms), [], []
    others = 0
    for number, chunk in enumerate(chunks(bounded(read_rows(paths, unusable, asking=asking)))):
        rows = [numbered for numbered in chunk if numbered.row.role in roles]
        others += len(chunk) - len(rows)
        found, failed = _score(scorer, decoder, [numbered.event() for numbered in rows])
        _add_failed(unusable, rows, failed)
        kept = [row for row in range(len(rows)) if row not in failed]
        logits.append(found[kept])
        for row in kept:
            columns.add(rows[row])
            is_test.append(split_of(rows[row].content.digest) == "test")
        if number % _SAY_EVERY == _SAY_EVERY - 1:
            say(f"scored {len(columns):,} {modality}s")
    if not len(columns):
        raise ExportError(
            f"none of the labelled {modality}s could be used: {unusable.count} lines were bad, {others} {modality}s of "
            f"roles that the model is not for{named_first(unusable)}"
        )
    _tell(unusable, others, columns, modality, say)
    return ScoredRows(np.concatenate(logits), columns.table(), np.array(is_test), others, unusable)


def score_sentences(scorer: Scorer, sentences: Sequence[Sentence]) -> NDArray[np.float32]:
    """The logits of n plain sentences, (n, h). Raises `ExportError` where the model cannot score one of them."""
    events = [event_of(Text(one.text), id=str(number), role=one.role) for number, one in enumerate(sentences)]
    logits, failed = _score(scorer, _decoder(), events)
    if failed:
        raise ExportError(f"the model cannot score a plain sentence: {next(iter(failed.values()))}")
    return logits


def _decoder() -> Decoder:
    """A decoder with a worker's limits."""
    settings, _ = load_settings({})
    return Decoder(decode_limits(settings))


def _score(scorer: Scorer, decoder: Decoder, events: Sequence[bytes]) -> tuple[NDArray[np.float32], dict[int, str]]:
    """The logits of n events, NaN where there are none, and why not, by row."""
    logits = np.full((len(events), len(scorer.harms)), np.nan, dtype=np.float32)
    failed: dict[int, str] = {}
    for start in range(0, len(events), MAX_CHUNK_ROWS):
        records = [LineRecord(number, event) for number, event in enumerate(events[start : start + MAX_CHUNK_ROWS])]
        batch, rejected = decoder.decode(records, now=NOW)
        failed |= {start + bad.position: f"{bad.reason.value}: {bad.error}" for bad in rejected}
        if not len(batch):
            continue
        scores, rows = scorer.score(batch), start + batch.positions
        logits[rows] = scores.logits
        unscored = np.flatnonzero(np.isnan(scores.logits).any(axis=1)).tolist()
        failed |= {int(rows[row]): why_unscored(int(scores.conditions[row])) for row in unscored}
    return logits, failed


def _add_failed(unusable: Unusable, rows: Sequence[Numbered], failed: dict[int, str]) -> None:
    for row, why in sorted(failed.items()):
        unusable.add(BadLine(rows[row].file, rows[row].line, why))


def _tell(unusable: Unusable, others: int, columns: LabelColumns, modality: Modality, say: Say) -> None:
    say(f"scored {len(columns):,} labelled {modality}s")
    if others:
        say(f"left out {others:,} {modality}s of roles that the model is not for")
    if columns.unknown:
        say(f"left aside labels that are no harm of this model: {', '.join(columns.unknown)}")
    tell_unusable(unusable, say)
