"""What stops an export."""

from __future__ import annotations

from stream.errors import FairwayError

__all__ = ["ExportError"]


class ExportError(FairwayError):
    """The data, the model or the machine does not allow the bundle that was asked for; the text says what to mend."""
