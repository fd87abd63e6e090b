"""The loss: binary cross-entropy over the labels that are known."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["masked_loss"]


def masked_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over rows of the weighted sum over harms of the cross-entropy; a label of weight 0 has no part in it.

    All three are (n, h) float32. Divided by rows and not by weights, so that a batch of few known labels is a small
    step and not a wild one.
    """
    return (
        functional.binary_cross_entropy_with_logits(logits, targets, weight=weights, reduction="sum") / logits.shape[0]
    )
