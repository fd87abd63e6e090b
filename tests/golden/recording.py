"""What the stub decides about `events.jsonl` under `policy.yaml`. `python -m tests.golden.recording` records it anew.

Record only what was meant to change: every line of the difference is a decision that some deployment gets to see.
"""

from __future__ import annotations

import json
from pathlib import Path

from stream import wiring
from stream.policy import compile_policy
from stream.settings import Settings
from tests.records import NOW, Record
from tests.spine import TOPIC

__all__ = ["FOLDER", "outputs"]

FOLDER = Path(__file__).parent


def outputs() -> dict[str, list[bytes]]:
    """The lines of each output, by the name of its file: decisions, review records, and why there is neither."""
    settings = Settings.model_validate({"bundle": "stub"})
    model = wiring.load_model(settings)
    pipeline = wiring.build_pipeline(settings, model, compile_policy(FOLDER / "policy.yaml", model.calibration))
    encoder = wiring.build_encoder(settings, model, pipeline)
    values = (FOLDER / "events.jsonl").read_bytes().splitlines()
    records = [Record(value, offset) for offset, value in enumerate(values)]
    moderated = pipeline.run(records, topic=TOPIC, partition=0, now=NOW)
    decisions = encoder.decisions(moderated, topic=TOPIC, partition=0, now=NOW)
    return {
        "decisions.jsonl": decisions,
        "review.jsonl": encoder.reviews(moderated, decisions, records)[1],
        "rejected.jsonl": [
            json.dumps({"offset": r.position, "reason": r.reason, "error": r.error}).encode()
            for r in moderated.rejected
        ],
    }


def _record() -> None:
    for name, lines in outputs().items():
        (FOLDER / name).write_bytes(b"".join(line + b"\n" for line in lines))


if __name__ == "__main__":
    _record()
