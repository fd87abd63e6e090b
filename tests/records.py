"""Records for tests without a broker, and the limits of the default settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from stream.decode import DecodeLimits, Decoder
from stream.events import EventBatch, Image, Rejected
from stream.settings import Settings

__all__ = ["NOW", "Decoded", "Record", "batch_of", "default_limits", "outcomes", "rows_of"]

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


class Decoded(NamedTuple):
    """One row of a batch."""

    created_at: datetime
    id: str
    role: str
    text: str | None
    prompt: str | None
    image: Image | None
    surface: str
    locale: str | None
    tenant: str | None
    generator: str | None
    groups: Mapping[str, Sequence[str]]
    unknown_fields: Sequence[str]


def rows_of(batch: EventBatch) -> list[Decoded]:
    """The events of a batch, one by one."""
    columns = (
        *(batch.times, batch.ids, batch.roles, batch.texts, batch.prompts, batch.images, batch.surfaces, batch.locales),
        *(batch.tenants, batch.generators, batch.groups, batch.unknown_fields),
    )
    return [Decoded(*row) for row in zip(*columns, strict=True)]


def batch_of(*texts: str | None, images: Collection[int] = ()) -> EventBatch:
    """Events with these texts, and an image in the rows `images`."""
    count = len(texts)
    image = Image(media_type="image/png", url="https://images.example/1")
    return EventBatch(
        positions=np.arange(count),
        offsets=np.arange(count),
        input_digests=[""] * count,
        created_at=np.zeros(count),
        times=[datetime(1970, 1, 1, tzinfo=UTC)] * count,
        ids=[str(row) for row in range(count)],
        roles=["output"] * count,
        texts=texts,
        prompts=[None] * count,
        images=[image if row in images else None for row in range(count)],
        surfaces=["default"] * count,
        locales=[None] * count,
        tenants=[None] * count,
        generators=[None] * count,
        groups=[{}] * count,
        unknown_fields=[()] * count,
    )


def outcomes(decoder: Decoder, values: Iterable[bytes | None]) -> list[Decoded | Rejected]:
    """What becomes of each value, in order; fails where one has no outcome, or two."""
    records = [Record(value, offset) for offset, value in enumerate(values)]
    batch, rejected = decoder.decode(records, now=NOW)
    found: dict[int, Decoded | Rejected] = dict(zip(batch.positions.tolist(), rows_of(batch), strict=True))
    assert found.keys().isdisjoint(rejection.position for rejection in rejected)
    found |= {rejection.position: rejection for rejection in rejected}
    assert sorted(found) == list(range(len(records)))
    return [found[position] for position in range(len(records))]
