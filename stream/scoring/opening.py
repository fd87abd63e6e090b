"""A verified bundle in, the scorer for its kind of input out: the one place that knows every kind."""

from __future__ import annotations

from stream.bundle import Bundle
from stream.errors import BundleError
from stream.scoring import Scorer
from stream.scoring.onnx import OnnxScorer
from stream.scoring.policy import PolicyScorer
from stream.scoring.session import Provider

__all__ = ["open_scorer"]


def open_scorer(bundle: Bundle, *, provider: Provider, max_batch_tokens: int, max_windows: int | None = None) -> Scorer:
    """Load a bundle's model for `provider`, warm; `max_windows` None is as many as its evaluation read.

    Raises `BundleError` where the bundle cannot be served, `ProviderError` where `provider` is not what would run it.
    """
    given = bundle.manifest.input
    if given.kind == "text":
        return OnnxScorer.from_bundle(
            bundle, provider=provider, max_batch_tokens=max_batch_tokens, max_windows=max_windows
        )
    if given.kind == "policy":
        return PolicyScorer.from_bundle(bundle, provider=provider, max_batch_tokens=max_batch_tokens)
    raise BundleError(f"{bundle.path} has an input of kind {given.kind}, which this service does not read yet")
