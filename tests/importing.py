"""A converted model as a bundle that a worker takes, with a calibration that changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from export.importing.imported import Imported
from export.pack import CALIBRATION, CARD, EVALUATION, TOKENIZER, entries, pack
from stream.bundle import Bundle, Manifest, load
from stream.bundle.calibration import CalibrationFile
from stream.bundle.sign import sign
from tests.bundles import own_trust, signer

__all__ = ["packed"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def packed(imported: Imported, folder: Path) -> Bundle:
    """Pack and sign with the tests' own key."""
    counts = (1,) * 1024
    harm = {
        **dict(a=1.0, b=0.0, n_harmful=1024, n_harmless=1024, ece=0.0, ece_null=0.0),  # noqa: C408
        "histogram": {"bins": 1024, "harmful": counts, "harmless": counts},
    }
    fields = {"schema_version": 1, "created_at": NOW, "split": "none", "harms": dict.fromkeys(imported.harms, harm)}
    files = {
        CALIBRATION: CalibrationFile.model_validate(fields).model_dump_json().encode(),
        EVALUATION: b'{"schema_version": 1}',
        CARD: b"A model for tests.\n",
        **dict(imported.artefacts.values()),
        **imported.files,
        **({} if imported.tokenizer is None else {TOKENIZER: imported.tokenizer}),
    }
    manifest = Manifest(
        schema_version=1,
        name="imported",
        version="1",
        created_at=NOW,
        harms=imported.harms,
        roles=imported.roles,
        input=imported.input,
        artefacts={place: name for place, (name, _) in imported.artefacts.items()},
        tokenizer=TOKENIZER if imported.tokenizer is not None else None,
        calibration=CALIBRATION,
        evaluation=EVALUATION,
        card=CARD,
        training_data=(),
        code_version="test",
        files=entries(files),
    )
    pack(folder, manifest, files=files)
    sign(folder, signer())
    return load(folder, own_trust())
