"""Nothing that we run reports to anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODEL = Path(__file__).parents[1] / "assets" / "scoring" / "tiny.onnx"
OPEN_OURS = (
    "from stream.scoring.session import open_session, reads_tokens; "
    "open_session(MODEL.read_bytes(), 'cpu', signature=reads_tokens(2))"
)


def left_behind(code: str, folder: Path) -> list[str]:
    """Files that opening a session leaves in the temporary folder: what ONNX Runtime keeps to report."""
    script = f"from pathlib import Path; MODEL = Path({str(MODEL)!r}); {code}"
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"TMPDIR": str(folder)}, check=True)
    return [path.name for path in folder.iterdir()]


def test_onnxruntime_keeps_no_file_to_report(tmp_path: Path) -> None:
    """A session of ours leaves nothing behind; by itself, ONNX Runtime 1.31 keeps `.ses` for its telemetry."""
    assert left_behind(OPEN_OURS, tmp_path) == []
