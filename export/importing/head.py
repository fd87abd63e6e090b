"""The logits of a checkpoint's classes in, one logit per harm out: computed in the graph, so that nothing can differ.

With scores of the kind softmax the classes share one probability. A harm's is the sum over its classes, and its logit
log p - log(1 - p) is the difference of two sums of exponentials, on the logarithm: nothing is rounded to 0 or 1.

With sigmoid each class has a probability of its own, and those that mean no harm play no part. A harm with one class
has that class's logit; with several, the largest. It is what the probability of any of them is at least, and exactly
that where one class is part of another, as `severe` toxicity is of toxicity. 1 - prod(1 - p) would be right for classes
that know nothing of each other, and counts the same insult three times where they overlap. It is also how the service
takes a text's windows and any harm together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.importing.labels import ClassMap

__all__ = ["HarmLogits"]


class HarmLogits(nn.Module):
    """Class logits (n, c) to harm logits (n, h), both float32."""

    def __init__(self, classes: ClassMap) -> None:
        super().__init__()
        self._classes = classes

    def forward(self, logits: Tensor) -> Tensor:
        """One column per harm."""
        one = _log_odds if self._classes.scores == "softmax" else _largest
        return torch.stack([one(logits, columns) for columns in self._classes.columns], dim=1)


def _log_odds(logits: Tensor, columns: tuple[int, ...]) -> Tensor:
    others = [column for column in range(logits.shape[1]) if column not in columns]
    return torch.logsumexp(logits[:, list(columns)], dim=1) - torch.logsumexp(logits[:, others], dim=1)


def _largest(logits: Tensor, columns: tuple[int, ...]) -> Tensor:
    return logits[:, list(columns)].amax(dim=1)
