"""What scorers of every kind do with model calls: run one or smaller ones, compare providers, set conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream.bundle import Bundle
from stream.errors import ProviderError
from stream.events import FailCondition
from stream.scoring.batching import MicroBatch
from stream.scoring.session import Provider, RunError

__all__ = ["MAX_PROVIDER_DIFFERENCE", "bit", "open_compared", "refuse_difference", "run_or_split"]

MAX_PROVIDER_DIFFERENCE = 1.0
"""Largest difference in a probe's logit between the CUDA artefact and the CPU one, on which the calibration was fitted.
Half precision moves a logit by up to 0.1, and 8-bit rounding by 0.1 on average and 0.6 at most (1,200 texts, measured);
above that it is another model or a wrong kernel."""


def run_or_split(batch: MicroBatch, run: Callable[[MicroBatch], None], *, fewest: int) -> None:
    """Run `batch`; where the call fails, run smaller ones of `fewest` rows or more, down to the rows at fault.

    Smaller calls serve both causes: one too large for the memory, and one with a row that the model cannot take.
    """
    try:
        run(batch)
    except RunError:
        for smaller in batch.smaller(fewest=fewest):
            run_or_split(smaller, run, fewest=fewest)


def refuse_difference(found: NDArray[np.float32], reference: NDArray[np.float32], *, provider: str) -> None:
    """Raise `ProviderError` unless the probes' logits on `provider`, (p, h), agree with those on the CPU."""
    difference = float(np.abs(found - reference).max())
    if difference > MAX_PROVIDER_DIFFERENCE:
        raise ProviderError(
            f"on {provider} a probe's logit differs by {difference:.3f} from that on cpu, "
            f"where the calibration was fitted; {MAX_PROVIDER_DIFFERENCE} is allowed. Export an artefact for "
            f"{provider} that agrees, or set provider to cpu"
        )


class Comparable(Protocol):
    """A scorer whose logits on one provider can be held against those on another."""

    def refuse_difference(self, reference: Self) -> None:
        """Raise `ProviderError` unless the probes' outputs agree with those of `reference`."""
        ...


Scorer = TypeVar("Scorer", bound=Comparable)


def open_compared(bundle: Bundle, provider: Provider, make: Callable[[bytes, Provider], Scorer]) -> Scorer:
    """The scorer that `make` gives of a bundle's model for `provider`, compared with the one on the CPU.

    Without an artefact for CUDA the one for the CPU runs there. Raises `ProviderError` where the two differ.
    """
    artefacts = bundle.manifest.artefacts

    def open_on(place: Provider) -> Scorer:
        return make(bundle.read(artefacts.get(place, artefacts["cpu"])), place)

    scorer = open_on(provider)
    if provider != "cpu":
        scorer.refuse_difference(open_on("cpu"))
    return scorer


def bit(condition: FailCondition, where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The bit of a condition in a mask, (m,) uint8, where (m,) is True."""
    return where.astype(np.uint8) << np.uint8(condition)
