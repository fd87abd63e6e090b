"""What the service itself says of the bundle on this GPU, and where the operators of its artefact run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ops.bench.gpu.forms import SHIPPED, Form
from ops.bench.gpu.rows import Reason, Row, attempt
from ops.bench.gpu.sessions import open_bare, placement
from stream.bundle import Bundle
from stream.scoring.golden import golden_of, refuse_other_logits
from stream.scoring.opening import open_scorer
from stream.scoring.session import Provider

__all__ = ["check_provider"]

FUSED: Final = ("Attention", "SkipLayerNormalization", "BiasGelu")
"""Operators of the runtime's own that the artefact is written in."""


def check_provider(bundle: Bundle, shipped: Form, provider: Provider, *, max_batch_tokens: int) -> Iterator[Row]:
    """The steps of the guard as a worker takes them. Raises `ProviderError` where CUDA does not run here at all."""
    shipped.session(provider, harms=len(bundle.manifest.harms))
    yield Row("guard: session", SHIPPED, note=f"accepted on {provider}")
    # On the CPU this is another artefact, the one for the CPU.
    artefact = bundle.manifest.artefacts[provider]
    difference = attempt(_golden_difference, bundle, provider, max_batch_tokens=max_batch_tokens)
    if isinstance(difference, Reason):
        yield Row("guard: whole bundle", note=f"{artefact} is REFUSED: {difference.text}")
    else:
        note = f"{artefact} is accepted; largest difference of a golden logit"
        yield Row("guard: whole bundle", measured=difference, unit="difference", note=note)
    for name, operators in sorted(placement(open_bare(shipped.model(), provider)).items()):
        fused = ", ".join(f"{operator} {operators[operator]}" for operator in FUSED if operators[operator])
        others = ", ".join(f"{operator} {count}" for operator, count in sorted(operators.items()))
        note = f"fused: {fused}" if fused else f"none fused: {others}"
        yield Row(f"on {name}", SHIPPED, measured=operators.total(), unit="operators", note=note)


def _golden_difference(bundle: Bundle, provider: Provider, *, max_batch_tokens: int) -> float:
    """Load the bundle as a worker does, and compare its golden batch. Raises `ProviderError` or `BundleError`."""
    scorer = open_scorer(bundle, provider=provider, max_batch_tokens=max_batch_tokens)
    return refuse_other_logits(scorer, golden_of(bundle), provider=provider, name=str(bundle.path))
