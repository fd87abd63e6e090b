"""What `golden.json` holds: events and the logits they had when the bundle was packed, to compare with before use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stream.bundle.manifest import explain, refuse_newer
from stream.errors import BundleError

__all__ = ["MAX_EVENTS", "Golden", "parse_golden"]

MAX_EVENTS = 64
"""More would say little more, and make a worker wait for the answer."""

# A difference above one changes the odds by e: no runtime rounds that much, so a file that allows it allows anything.
Tolerance = Annotated[float, Field(gt=0, le=1)]


class Golden(BaseModel):
    """The whole of `golden.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    made_with: Annotated[str, Field(min_length=1, max_length=128)]
    """Runtime that gave the logits, on a CPU."""
    tolerance: dict[Literal["cpu", "cuda"], Tolerance]
    """By provider, how far any logit may be from the one here."""
    events: Annotated[tuple[Annotated[str, Field(max_length=65_536)], ...], Field(min_length=1, max_length=MAX_EVENTS)]
    """Values of event records, JSON each; made up, never from data."""
    logits: dict[Literal["cpu", "cuda"], tuple[tuple[float, ...], ...]]
    """By provider, what its artefact says: (m, h), rows as `events`, columns as the manifest's harms."""


def parse_golden(content: bytes, harms: tuple[str, ...], *, name: str) -> Golden:
    """Parse the bytes of the golden file `name`; raise `BundleError` where it is wrong or not about `harms`."""
    refuse_newer(content, name)
    try:
        golden = Golden.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(explain(error, name)) from None
    if golden.logits.keys() != golden.tolerance.keys():
        raise BundleError(f"{name} has logits and tolerances of different providers: pack the bundle again")
    for provider, logits in golden.logits.items():
        if [len(row) for row in logits] != [len(harms)] * len(golden.events):
            raise BundleError(
                f"{name} has not a row on {provider} for each of {len(golden.events)} events with a logit for each of "
                f"{len(harms)} harms: pack the bundle again"
            )
    return golden
