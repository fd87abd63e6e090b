"""Does a scorer say here what its bundle said where it was packed? Golden events in, the largest difference out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from stream.bundle import Bundle
from stream.bundle.golden import Golden, parse_golden
from stream.decode import DecodeLimits, Decoder
from stream.errors import BundleError
from stream.events import FailCondition, LineRecord
from stream.scoring import Scorer

__all__ = ["golden_logits", "golden_of", "refuse_other_logits"]

LIMITS: Final = DecodeLimits(
    max_event_bytes=65_536, max_json_depth=32, max_future_s=0, max_image_pixels=1_000_000, max_image_frames=1
)
"""Of golden events, which are small and short."""

AT_ANY_TIME: Final = 4e9
"""A moment after the creation of any golden event, so that none is from the future: scores do not depend on time."""


def golden_of(bundle: Bundle) -> Golden:
    """The bundle's golden batch; raise `BundleError` where it has none, or none that can be read."""
    name = bundle.manifest.golden
    if name is None:
        raise BundleError(
            f"{bundle.path} holds no golden batch, so nobody can tell whether it scores here as it did when it was "
            "packed: pack it again"
        )
    return parse_golden(bundle.read(name), bundle.manifest.harms, name=f"{name} in {bundle.path}")


def golden_logits(scorer: Scorer, events: Sequence[str]) -> NDArray[np.float32]:
    """The logits of m event records, (m, h) float32, NaN in rows that the scorer does not read to the end or fails on.

    Raises `BundleError` where a value is no event.
    """
    records = [LineRecord(at, value.encode()) for at, value in enumerate(events)]
    batch, rejected = Decoder(LIMITS).decode(records, now=AT_ANY_TIME)
    if rejected:
        raise BundleError(
            f"golden event {rejected[0].position} is no event ({rejected[0].reason}): pack the bundle again"
        )
    scores = scorer.score(batch)
    # How much of a long text is read is a setting of the worker: such a row would compare settings, not models.
    cut = scores.conditions >> np.uint8(FailCondition.TRUNCATED) & 1 == 1
    return np.where(cut[:, None], np.float32(np.nan), scores.logits)


def refuse_other_logits(scorer: Scorer, golden: Golden, *, provider: Literal["cpu", "cuda"], name: str) -> float:
    """The largest difference of any logit from the golden one; raise `BundleError` where it is beyond the tolerance."""
    if provider not in golden.expected:
        raise BundleError(
            f"the golden batch of {name} holds no logits for {provider}: pack the bundle for it, or set provider to "
            f"{' or '.join(sorted(golden.expected))}"
        )
    tolerance = golden.expected[provider].tolerance
    found, expected = golden_logits(scorer, golden.events), np.array(golden.expected[provider].logits)
    difference = np.abs(found - expected)
    if np.isnan(difference).all():
        raise BundleError(f"{name} gives no logits for any of its golden events on {provider}: export it again")
    worst = int(np.nanargmax(difference))
    row, column = divmod(worst, expected.shape[1])
    largest = float(difference[row, column])
    if largest > tolerance:
        raise BundleError(
            f"{name} scores golden event {row} differently here: on {provider} the logit of {scorer.harms[column]} is "
            f"{found[row, column]:.4f}, with {golden.made_with} it was {expected[row, column]:.4f}, and {tolerance:g} "
            "apart is allowed. Another runtime, processor or tokenizer computes something else: use the one it was "
            "made with, or pack the bundle again on this kind of machine and evaluate it"
        )
    return largest
