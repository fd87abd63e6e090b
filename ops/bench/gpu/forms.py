"""A bundle's artefact for CUDA as it ships, in float16, and in bfloat16 and float32.

The other two are made by `python -m export.graphs.precision`, a process of its own, since it needs `onnx`, which
nothing here does. What float32 means then is said there: the weights of the artefact, with nothing rounded again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.bundle import Bundle
from stream.errors import BundleError
from stream.scoring.session import OnnxSession, Provider, open_session, reads_tokens

__all__ = ["SHIPPED", "WHOLE", "Form", "derive_others", "shipped_form"]

SHIPPED: Final = "float16"
WHOLE: Final = "float32"
_DERIVED: Final = ("bfloat16", WHOLE)


@dataclass(frozen=True, slots=True)
class Form:
    """A model in one precision, or the reason why there is none."""

    precision: str
    content: bytes
    why_not: str = ""

    def model(self) -> bytes:
        """The ONNX bytes. Raises `BundleError` where there are none."""
        if self.why_not:
            raise BundleError(self.why_not)
        return self.content

    def session(self, provider: Provider, *, harms: int) -> OnnxSession:
        """The service's session with it. Raises `BundleError` or `ProviderError`."""
        return open_session(self.model(), provider, signature=reads_tokens(harms))


def shipped_form(bundle: Bundle) -> Form:
    """The artefact for CUDA. Raises `BundleError` where the bundle has none."""
    name = bundle.manifest.artefacts.get("cuda")
    if name is None:
        raise BundleError(
            f"{bundle.path} has no artefact for cuda, so there is nothing to compare: name a bundle that has one, such "
            "as models/moderator"
        )
    return Form(SHIPPED, bundle.read(name))


def derive_others(shipped: Form) -> tuple[Form, ...]:
    """The same model in bfloat16 and in float32."""
    return tuple(_derive(shipped.model(), precision) for precision in _DERIVED)


def _derive(shipped: bytes, precision: str) -> Form:
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "shipped.onnx", Path(folder) / "derived.onnx"
        source.write_bytes(shipped)
        command = [sys.executable, "-m", "export.graphs.precision", str(source), precision, str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
            return Form(precision, b"", why_not=f"could not be made of the artefact: {last}")
        return Form(precision, out.read_bytes())
