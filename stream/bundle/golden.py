"""What `golden.json` holds: events and the logits they had when the bundle was packed, to compare with before use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream.bundle.manifest import explain, refuse_newer
from stream.errors import BundleError

__all__ = ["MAX_EVENTS", "Golden", "GoldenLogits", "parse_golden"]

MAX_EVENTS = 64
"""More would say little more, and make a worker wait for the answer."""

# A difference above one changes the odds by e: no runtime rounds that much, so a file that allows it allows anything.
Tolerance = Annotated[float, Field(gt=0, le=1)]


_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class GoldenLogits(BaseModel):
    """What the artefact of one provider says of m events about h harms."""

    model_config = _STRICT

    tolerance: Tolerance
    """How far any logit may be from the one here."""
    logits: tuple[tuple[float, ...], ...]
    """(m, h), rows as the events, columns as the manifest's harms."""


class Golden(BaseModel):
    """The whole of `golden.json`."""

    model_config = _STRICT

    schema_version: Literal[1] = 1
    made_with: Annotated[str, Field(min_length=1, max_length=128)]
    """Runtime that gave the logits, on a CPU."""
    events: Annotated[tuple[Annotated[str, Field(max_length=65_536)], ...], Field(min_length=1, max_length=MAX_EVENTS)]
    """Values of event records, JSON each; made up, never from data."""
    expected: Annotated[dict[Literal["cpu", "cuda"], GoldenLogits], Field(min_length=1)]
    """By provider."""


def parse_golden(content: bytes, harms: tuple[str, ...], *, name: str) -> Golden:
    """Parse the bytes of the golden file `name`; raise `BundleError` where it is wrong or not about `harms`."""
    refuse_newer(content, name)
    try:
        golden = Golden.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
    for provider, expected in golden.expected.items():
        if [len(row) for row in expected.logits] != [len(harms)] * len(golden.events):
            raise BundleError(
                f"{name} has not a row on {provider} for each of {len(golden.events)} events with a logit for each of "
                f"{len(harms)} harms: pack the bundle again"
            )
    return golden
