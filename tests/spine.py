"""The spine for tests without a broker: events, a scorer that does as the text says, a pipeline with its encoder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from stream import wiring
from stream.bundle import HarmCalibration
from stream.encode import DecisionEncoder
from stream.events import Decision, EventBatch, FailCondition, Scores
from stream.pipeline import Moderated, Pipeline
from stream.policy import compile_policy
from stream.scoring import Scorer
from stream.settings import Settings
from tests.records import NOW, Record

__all__ = ["HARMS", "TOPIC", "ScriptedScorer", "Spine", "event", "policy", "records", "spine"]

TOPIC = "content.events"
HARMS = ("hate", "violence")
EVENT = {"id": "e", "created_at": "2026-09-21T12:00:00Z", "role": "output", "text": "-9,-9", "surface": "chat"}


def event(**fields: Any) -> bytes:
    """An event, harmless to the scripted scorer unless its text says otherwise; keyword arguments are its fields."""
    return json.dumps(EVENT | fields).encode()


def records(values: Iterable[bytes | None], *, start: int = 0) -> list[Record]:
    """Values as records with offsets from `start` on."""
    return [Record(value, offset) for offset, value in enumerate(values, start)]


def policy(**fields: Any) -> bytes:
    """A policy that acts at a half and allows below a tenth; keyword arguments are its fields."""
    rule = {"action": "block", "act_at": 0.5, "allow_below": 0.1}
    document = {"schema_version": 1, "name": "test", "version": "1", "harms": dict.fromkeys(HARMS, rule)}
    return json.dumps(document | fields, ensure_ascii=False).encode()  # JSON is YAML, but for surrogate pairs


@dataclass(frozen=True)
class ScriptedScorer:
    """Reads the logits off the text, `1.5,-3`, one per harm; a text without numbers is one it fails on."""

    harms: tuple[str, ...] = HARMS
    provider: str = "stub"

    def score(self, events: EventBatch) -> Scores:
        logits = np.full((len(events), len(self.harms)), np.nan, np.float32)
        conditions, windows = np.zeros(len(events), np.uint8), np.zeros(len(events), np.int16)
        for row, text in enumerate(events.texts):
            if text is None:
                conditions[row] = 1 << FailCondition.UNSUPPORTED
                continue
            try:
                logits[row], windows[row] = [float(number) for number in text.split(",")], 1
            except ValueError:
                conditions[row] = 1 << FailCondition.SCORER_ERROR
        return Scores(logits, conditions, windows)


@dataclass(frozen=True)
class Spine:
    """A pipeline and the encoder of its decisions."""

    pipeline: Pipeline
    encoder: DecisionEncoder

    def run(self, slice_: Sequence[Record], *, partition: int = 0, now: float = NOW) -> Moderated:
        return self.pipeline.run(slice_, topic=TOPIC, partition=partition, now=now)

    def decisions(self, slice_: Sequence[Record], *, partition: int = 0, now: float = NOW) -> list[bytes]:
        moderated = self.run(slice_, partition=partition, now=now)
        return self.encoder.decisions(moderated, topic=TOPIC, partition=partition, now=now)

    def reviews(self, slice_: Sequence[Record]) -> list[bytes]:
        moderated = self.run(slice_)
        decisions = self.encoder.decisions(moderated, topic=TOPIC, partition=0, now=NOW)
        return self.encoder.reviews(moderated, decisions, slice_)[1]

    def decide(self, *values: bytes | None) -> list[Decision]:
        """The decisions about these values, read back."""
        return [msgspec.json.decode(value, type=Decision) for value in self.decisions(records(values))]


def spine(document: bytes | None = None, *, scorer: Scorer | None = None, **settings: Any) -> Spine:
    """Put a spine together under a policy; keyword arguments are settings."""
    scorer = scorer or ScriptedScorer()
    flat = HarmCalibration(1.0, 0.0, 1e5, 1e5, 0.0, 0.0, (100.0,) * 1024, (100.0,) * 1024)
    model = wiring.Model(scorer, dict.fromkeys(scorer.harms, flat), "sha256:bundle", "sha256:calibration")
    values = Settings.model_validate({"bundle": "stub"} | settings)
    pipeline = wiring.build_pipeline(
        values, model, compile_policy(document or policy(), model.calibration, name="test")
    )
    return Spine(pipeline, wiring.build_encoder(values, model, pipeline))
