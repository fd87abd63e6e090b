"""What the figures were measured on: GPU, driver, processor, versions, date."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stream.scoring import session as _telemetry_off  # noqa: F401 - before onnxruntime, whose telemetry it switches off

import onnxruntime  # isort: skip

__all__ = ["about_machine"]

_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_NOT_KNOWN = "not known"


def about_machine() -> dict[str, str | int | bool]:
    """By name, in the order in which they are shown."""
    gpu, driver, memory = _gpu()
    return {
        "gpu": gpu,
        "driver": driver,
        "gpu_memory": memory,
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": str(onnxruntime.__version__),
        "cuda_of_onnxruntime": str(getattr(onnxruntime, "cuda_version", "")) or "built without",
        **{name: _version(name) for name in ("fairway", "numpy", "tokenizers", "onnx")},
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _gpu() -> tuple[str, str, str]:
    """Name, driver and memory of the first GPU, as the driver's own tool gives them."""
    try:
        said = subprocess.run(_QUERY, capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S603
        name, driver, memory = said.splitlines()[0].split(", ")
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return (_NOT_KNOWN,) * 3
    return name, driver, memory


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
