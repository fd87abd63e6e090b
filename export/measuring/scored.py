"""Labelled data and bundles in, what a worker with each bundle would decide out: its own pipeline, without Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.counterfactual import Answers, Sentence
from export.data.content import NOW, Text, event_of, why_unscored
from export.data.dataset import BadLine
from export.data.items import Items
from export.data.label_columns import LabelColumns
from export.data.labelled import MAX_CHUNK_ROWS, Asking, Numbered, Unusable, bounded, chunks, named_first, read_rows
from export.data.splits import SPLIT_NAMES, split_of
from export.errors import ExportError
from export.progress import Say
from stream import wiring
from stream.bundle.manifest import Modality
from stream.events import LineRecord, Selection
from stream.pipeline import Pipeline
from stream.policy import CompiledPolicy, compile_policy
from stream.settings import load_settings

__all__ = ["Decided", "Judge", "Scored", "ask", "decide", "open_judge", "score"]

_SAY_EVERY = 20  # slices


@dataclass(frozen=True, slots=True)
class Judge:
    """A bundle with a policy: what decides on a text, or on an image."""

    name: str
    """Name and version of the bundle, or its digest where it has no name."""
    digest: str
    harms: tuple[str, ...]
    pipeline: Pipeline
    modality: Modality = "text"

    @property
    def asking(self) -> Asking:
        """What labelled data it can be measured on."""
        return Asking(self.name, self.modality, self.pipeline.decoder.limits.max_event_bytes)

    @property
    def policy(self) -> CompiledPolicy:
        """The policy in force, thresholds derived from the bundle's calibration; audit sampling is off."""
        return self.pipeline.policy

    @property
    def act_at(self) -> Mapping[str, float]:
        """The threshold of each harm where no overlay applies; one above 1 is never reached."""
        return dict(zip(self.harms, np.minimum(self.policy.act_at[0], 1.0).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Decided:
    """What became of n events."""

    probabilities: NDArray[np.float64]
    """(n, h) calibrated; NaN where the model failed."""
    selections: NDArray[np.int8]
    """(n, h) values of `Selection`."""
    actions: NDArray[np.int8]
    """(n,) index into the policy's actions."""

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(n, h) where the act threshold is reached."""
        return np.equal(self.selections, Selection.HARMFUL)

    @property
    def not_allowed(self) -> NDArray[np.bool_]:
        """(n, h) where the event is acted on or there is no answer, so that somebody has to look."""
        return np.not_equal(self.selections, Selection.HARMLESS)


@dataclass(frozen=True, slots=True)
class Scored:
    """n labelled texts, or images, and what every judge decided on them."""

    modality: Modality
    ids: tuple[str, ...]
    """(n) the rows' own ids, or file and line."""
    items: tuple[Items, ...]
    """By judge, columns in the order of its harms."""
    decided: tuple[Decided, ...]
    """By judge."""
    unusable: Unusable
    labels_unknown: tuple[str, ...]
    """Harms that labels name and no judge scores."""


def open_judge(bundle: Path, *, policy: Path | None = None, provider: str | None = None) -> Judge:
    """Verify and load a bundle as a worker does, with the settings a worker would have, mapping files left aside.

    Raises `ConfigError`, `BundleError` or `ProviderError`.
    """
    settings, _ = load_settings({"bundle": bundle, "policy": policy, "provider": provider})
    settings = settings.model_copy(update={"mapping": None})
    model = wiring.load_model(settings)
    compiled = replace(compile_policy(settings.policy, model.calibration), audit_rate=0.0)
    pipeline = wiring.build_pipeline(settings, model, compiled)
    return Judge(bundle.name, model.bundle_digest, model.scorer.harms, pipeline, model.modality)


def decide(judge: Judge, events: Sequence[bytes]) -> tuple[Decided, dict[int, str]]:
    """Decide on n events; the second result says why, by row, for those the pipeline rejects or cannot score.

    Rejected rows have NaN probabilities and are flagged as nothing.
    """
    n, harms = len(events), len(judge.harms)
    decided = Decided(
        np.full((n, harms), np.nan), np.full((n, harms), Selection.HARMLESS, np.int8), np.zeros(n, np.int8)
    )
    failed: dict[int, str] = {}
    for start in range(0, n, MAX_CHUNK_ROWS):
        part = events[start : start + MAX_CHUNK_ROWS]
        records = [LineRecord(number, event) for number, event in enumerate(part, start)]
        moderated = judge.pipeline.run(records, topic="evaluation", partition=0, now=NOW)
        rows = start + moderated.events.positions
        decided.probabilities[rows] = moderated.probabilities
        decided.selections[rows] = moderated.selections
        decided.actions[rows] = moderated.verdicts.actions
        failed |= {start + bad.position: f"{bad.reason.value}: {bad.error}" for bad in moderated.rejected}
        unscored = np.flatnonzero(np.isnan(moderated.probabilities).any(axis=1)).tolist()
        failed |= {int(rows[row]): why_unscored(int(moderated.scores.conditions[row])) for row in unscored}
    return decided, failed


def ask(judge: Judge, sentences: Sequence[Sentence]) -> Answers:
    """What a judge says of n sentences. Raises `ExportError` where it cannot say anything of one."""
    events = [event_of(Text(one.text), id=str(number), role=one.role) for number, one in enumerate(sentences)]
    decided, failed = decide(judge, events)
    if failed:
        raise ExportError(f"{judge.name} cannot score a plain sentence: {next(iter(failed.values()))}")
    return Answers(
        probability=decided.probabilities.max(axis=1),
        flagged=np.asarray(decided.flagged.any(axis=1)),
        not_allowed=np.asarray(decided.not_allowed.any(axis=1)),
    )


def score(judges: Sequence[Judge], paths: Sequence[Path], *, part: str | None, say: Say) -> Scored:
    """Score the labelled data in `paths` with every judge; rows that one of them cannot score are left out.

    `part` keeps the rows of one split only, as `export.data.splits` divides them: of data that a bundle was trained on,
    `test` is what it has not seen. Raises `ExportError` where nothing is left to measure, there are too many rows, or
    they are not of the kind that all judges read.
    """
    asking = _asking(judges)
    unusable = Unusable()
    rows = bounded(_of_part(read_rows(paths, unusable, asking=asking), part))
    columns = _Columns(judges)
    for number, chunk in enumerate(chunks(rows)):
        columns.add(chunk, unusable)
        if number % _SAY_EVERY == _SAY_EVERY - 1:
            say(f"scored {len(columns.labels):,} {asking.modality}s")
    if not len(columns.labels):
        why = named_first(unusable) or "; is the split right?"
        raise ExportError(f"no labelled {asking.modality} could be used, {unusable.count} lines could not{why}")
    return columns.result(unusable, asking.modality)


def _asking(judges: Sequence[Judge]) -> Asking:
    """For whom rows are read: the first judge, since all of them read the same kind."""
    first, *others = (judge.asking for judge in judges)
    for other in others:
        if other.modality != first.modality:
            raise ExportError(
                f"{first.name} reads {first.modality}s and {other.name} {other.modality}s: nothing can be given to "
                "both; compare two bundles that read the same"
            )
    return first


class _Columns:
    """Grows with every slice; texts and images are let go of."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self._judges = judges
        self._decided: list[list[Decided]] = [[] for _ in judges]
        self.labels = LabelColumns(tuple(dict.fromkeys(harm for judge in judges for harm in judge.harms)))

    def add(self, chunk: Sequence[Numbered], unusable: Unusable) -> None:
        """Score a slice with every judge and keep what all of them could score."""
        rows = [numbered.event() for numbered in chunk]
        outcomes = [decide(judge, rows) for judge in self._judges]
        failed = {row: why for _, reasons in reversed(outcomes) for row, why in reasons.items()}
        for row, why in sorted(failed.items()):
            unusable.add(BadLine(chunk[row].file, chunk[row].line, why))
        kept = np.array([row for row in range(len(rows)) if row not in failed], dtype=np.int64)
        for so_far, (decided, _) in zip(self._decided, outcomes, strict=True):
            so_far.append(Decided(decided.probabilities[kept], decided.selections[kept], decided.actions[kept]))
        for row in kept.tolist():
            self.labels.add(chunk[row])

    def result(self, unusable: Unusable, modality: Modality) -> Scored:
        """The columns of everything that was kept."""
        labels = self.labels.table()
        decided = tuple(
            Decided(*(np.concatenate([getattr(part, name) for part in parts]) for name in Decided.__slots__))
            for parts in self._decided
        )
        return Scored(
            modality=modality,
            ids=labels.ids,
            items=tuple(
                labels.items(of.probabilities, of.flagged, harms=judge.harms)
                for judge, of in zip(self._judges, decided, strict=True)
            ),
            decided=decided,
            unusable=unusable,
            labels_unknown=self.labels.unknown,
        )


def _of_part(rows: Iterable[Numbered], part: str | None) -> Iterator[Numbered]:
    if part is None:
        yield from rows
        return
    if part not in SPLIT_NAMES:
        raise ExportError(f"there is no split {part!r}: give one of {', '.join(SPLIT_NAMES)}")
    for numbered in rows:
        if split_of(numbered.content.digest) == part:
            yield numbered
