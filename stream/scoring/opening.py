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

    Of an animation as many frames are looked at as of a text windows are read. Raises `BundleError` where the bundle
    cannot be served, `ProviderError` where `provider` is not what would run it.
    """
    given = bundle.manifest.input
    if given.kind == "text":
        return OnnxScorer.from_bundle(
            bundle, provider=provider, max_batch_tokens=max_batch_tokens, max_windows=max_windows
        )
    if given.kind == "policy":
        return PolicyScorer.from_bundle(bundle, provider=provider, max_batch_tokens=max_batch_tokens)
    return _open_images(bundle, provider=provider, max_frames=max_windows)


def _open_images(bundle: Bundle, *, provider: Provider, max_frames: int | None) -> Scorer:
    # Not before: a worker for text has no image decoder in memory, which is what images are made to break.
    try:
        from stream.scoring.image import ImageScorer  # noqa: PLC0415
    except ImportError as error:
        raise BundleError(
            f"{bundle.path} reads images, and Pillow, which decodes them, cannot be loaded here ({error}): "
            "install it with `pip install pillow`"
        ) from None
    return ImageScorer.from_bundle(bundle, provider=provider, max_frames=max_frames)
