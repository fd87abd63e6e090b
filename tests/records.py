"""Records for tests without a broker, and the limits of the default settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stream.decode import DecodeLimits, Decoder
from stream.events import ContentEvent, Rejected
from stream.settings import Settings

__all__ = ["NOW", "Record", "default_limits", "outcomes"]

NOW = 1_790_000_000.0
"""Seconds since the epoch: September 2026."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record with nothing but what a test gives it."""

    value: bytes | None
    offset: int = 0
    timestamp: int | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


def default_limits() -> DecodeLimits:
    """The limits that a worker without settings of its own has."""
    settings = Settings.model_validate({})
    return DecodeLimits(
        max_event_bytes=settings.max_event_bytes,
        max_json_depth=settings.max_json_depth,
        max_future_s=settings.max_future_s,
        max_image_pixels=settings.max_image_pixels,
        max_image_frames=settings.max_image_frames,
    )


def outcomes(decoder: Decoder, values: Iterable[bytes | None]) -> list[ContentEvent | Rejected]:
    """What becomes of each value, in order; fails where one has no outcome, or two."""
    records = [Record(value, offset) for offset, value in enumerate(values)]
    batch, rejected = decoder.decode(records, now=NOW)
    found: dict[int, ContentEvent | Rejected] = dict(zip(batch.positions.tolist(), batch.events, strict=True))
    assert found.keys().isdisjoint(rejection.position for rejection in rejected)
    found |= {rejection.position: rejection for rejection in rejected}
    assert sorted(found) == list(range(len(records)))
    return [found[position] for position in range(len(records))]
