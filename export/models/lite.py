"""The lite model: weights of words and of pairs of neighbouring words, added up; and its training.

A logit is (sum of the weights of the text's words and word pairs) / sqrt(number of words) + bias, per harm. The sum is
taken over integers, so it is exact, and the rest depends on the text alone: the same text has the same logits to the
last bit, whatever it is padded to and whatever it is batched with.

This is the one module that the rest of export knows nothing about: `train` gives two modules that map
`(input_ids, attention_mask)`, both (n, l) int64, to logits (n, h) float32, and any other model can do the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.errors import ExportError
from export.measuring.metrics import average_precision
from export.models.logits import first_windows
from export.progress import Say
from export.text.tokens import FIRST_WORD_ID, VOCABULARY
from stream.scoring.tokenize import TokenWindows

__all__ = ["ABOUT", "LIMITS", "Candidate", "Lite", "Training", "TrainingSet", "quantise", "train", "train_apart"]

ABOUT = """\
A linear model of words (WordPiece) and of pairs of neighbouring words, with one 8-bit weight per harm each: small
enough to ship with the source, fast enough not to be noticed, and the yardstick for anything larger."""

_PAIR_BUCKETS = 131_071
"""Word pairs share this many weights. A Mersenne prime, so that two pairs rarely meet; twice as many gained nothing."""

_PAIR_MULTIPLIER = 1_000_003
"""Spreads the left word over the buckets; a prime, and small enough that the product of int64 ids cannot overflow."""

LIMITS = """\
- It sees words, not meaning. Irony, quotation, reclaimed words, coded language and context escape it, and a text that
  speaks *about* a harm looks like one that does it.
- **It is biased against African American English.** The labels of `davidson`, the largest source of hate speech here,
  mark such tweets as offensive far more often than others (Sap et al. 2019; Davidson et al. 2019), and a model of words
  learns that. Watch false positives by group before acting on `hate` or `harassment`, and prefer review to blocking.
- Names of groups carry weight of their own: a harmless sentence that mentions a group scores higher than one that does
  not: see the figures by group. On `hatemojibuild`, which pairs such sentences on purpose and differs in emoji, the
  model is no better than chance.
- Emoji are mostly unknown to the tokenizer and weigh nothing.
- Easily evaded: misspellings, spaces within words and unseen paraphrases. It is a first line, not a defence."""

_LARGEST_INT8 = 127

_BETAS = (0.9, 0.99)  # the usual (0.9, 0.999) remembers for longer than a run of a few epochs lasts


@dataclass(frozen=True, slots=True)
class Training:
    """How to train. Defaults were chosen on the validation split of the real data."""

    epochs: int = 8
    batch_size: int = 1024
    learning_rate: float = 0.03
    weight_decays: tuple[float, ...] = (1e-6, 2e-6, 4e-6, 8e-6)
    """Tried in turn; the one with the best mean average precision on the validation split is trained on both splits."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What is learnt from: t texts as token windows, with labels and weights row by row.

    `labels` is (t, h) float32, NaN unknown; `human_labels` likewise without those that a rule gave;
    `weights` is (t,) float32; `train` and `validation` are row numbers.
    """

    windows: TokenWindows
    labels: NDArray[np.float32]
    human_labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained model, and the form of it that is to be served."""

    trained: nn.Module
    served: nn.Module


class Lite(nn.Module):
    """Adds up rows of `table`, (features, h) int8 or float32; `scale` and `bias`, (h,), make logits of the sums."""

    table: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, table: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        # 127 × 2 × 8192 tokens is far below 2^31; and integer sums have no order, which float sums have.
        self.sum_type = torch.float32 if table.is_floating_point() else torch.int32

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (n, h) float32 of token ids and mask, both (n, l) int64."""
        words = _words(input_ids, attention_mask)
        total = self.table[_features(words)].to(self.sum_type).sum(dim=1, dtype=self.sum_type)
        return total.to(torch.float32) / _damping(words) * self.scale + self.bias


def _words(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The ids with 0 in the place of padding and of special tokens, (n, l) int64."""
    read = input_ids * attention_mask
    return torch.where(read >= FIRST_WORD_ID, read, 0)


def _features(words: Tensor) -> Tensor:
    """Rows of the table of every word and of every two neighbours, (n, 2 l - 1) int64; row 0 weighs nothing."""
    left, right = words[:, :-1], words[:, 1:]
    pairs = VOCABULARY + (left * _PAIR_MULTIPLIER + right) % _PAIR_BUCKETS
    return torch.cat([words, torch.where(left * right > 0, pairs, 0)], dim=1)


def _damping(words: Tensor) -> Tensor:
    """Square root of the number of words, (n, 1) float32, so that a long text is not harmful for its length."""
    return (words > 0).sum(dim=1, keepdim=True).to(torch.float32).clamp(min=1).sqrt()


def quantise(model: Lite) -> Lite:
    """Round the weights of each harm to whole multiples of a step, 127 of which reach its largest weight."""
    step = model.table.abs().amax(dim=0).clamp(min=torch.finfo(torch.float32).tiny) / _LARGEST_INT8
    return Lite((model.table / step).round().to(torch.int8), step * model.scale, model.bias)


def train(data: TrainingSet, training: Training, *, say: Say) -> Candidate:
    """Choose the weight decay on the validation split, then train on both; same data and seed, same model."""
    bags = _to_bags(data.windows)
    best, _ = _choose(data, bags, training, say)
    both = np.union1d(data.train, data.validation)
    say(f"training on {len(both)} texts with weight decay {best:g}")
    trained = _fit(data, bags, both, training, weight_decay=best)
    return Candidate(trained, quantise(trained))


def train_apart(data: TrainingSet, training: Training, *, say: Say) -> Lite:
    """Choose likewise, and stay with the model of the train split: it has not seen the validation split."""
    return _choose(data, _to_bags(data.windows), training, say)[1]


def _choose(data: TrainingSet, bags: _Bags, training: Training, say: Say) -> tuple[float, Lite]:
    """The weight decay that does best on the validation split, and its model of the train split."""
    best: tuple[float, float, Lite] | None = None
    for weight_decay in training.weight_decays:
        model = _fit(data, bags, data.train, training, weight_decay=weight_decay)
        score = _mean_average_precision(model, data, bags)
        say(f"weight decay {weight_decay:g}: mean average precision on validation {score:.4f}")
        if best is None or score > best[0]:
            best = score, weight_decay, model
    if best is None:
        raise ExportError("no weight decay is given to choose from")
    return best[1], best[2]


@dataclass(frozen=True, slots=True)
class _Bags:
    """The features of t texts one after another: text i has `features[starts[i] : starts[i] + lengths[i]]`."""

    features: Tensor
    starts: Tensor
    lengths: Tensor
    damping: Tensor

    def take(self, rows: Tensor) -> _Bags:
        lengths = self.lengths[rows]
        starts = lengths.cumsum(0) - lengths
        index = torch.arange(int(lengths.sum())) + torch.repeat_interleave(self.starts[rows] - starts, lengths)
        return _Bags(self.features[index], starts, lengths, self.damping[rows])


def _to_bags(windows: TokenWindows) -> _Bags:
    """Features of the first window of every text: few texts are longer, and a label is for what a person read first."""
    features, lengths, damping, order = [], [], [], []
    for batch, inputs in first_windows(windows):
        words = _words(torch.from_numpy(inputs.input_ids), torch.from_numpy(inputs.attention_mask))
        found = _features(words)
        features.append(found[found > 0])
        lengths.append((found > 0).sum(dim=1))
        damping.append(_damping(words))
        order.append(batch)
    position = torch.from_numpy(np.argsort(np.concatenate(order)))
    all_lengths = torch.cat(lengths)
    starts = all_lengths.cumsum(0) - all_lengths
    return _Bags(torch.cat(features), starts[position], all_lengths[position], torch.cat(damping)[position])


def _fit(data: TrainingSet, bags: _Bags, rows: NDArray[np.int64], training: Training, *, weight_decay: float) -> Lite:
    """Minimise the weighted binary cross-entropy over the known labels of `rows`, plus weight decay, with Adam."""
    labels = torch.from_numpy(data.labels)
    weights = torch.from_numpy(data.weights)[:, None] * ~labels.isnan()
    targets = labels.nan_to_num()
    harms = data.labels.shape[1]
    table = nn.Parameter(torch.zeros(VOCABULARY + _PAIR_BUCKETS, harms))
    bias = nn.Parameter(torch.zeros(harms))
    optimiser = torch.optim.Adam([table, bias], lr=training.learning_rate, betas=_BETAS)
    for batch, remaining in _batches(rows, training):
        optimiser.param_groups[0]["lr"] = training.learning_rate * remaining
        loss = functional.binary_cross_entropy_with_logits(
            _bag_logits(table, bias, bags.take(batch)),
            targets[batch],
            weight=weights[batch],
            reduction="sum",
        )
        optimiser.zero_grad()
        (loss / len(batch) + weight_decay * table.square().sum()).backward()
        optimiser.step()
    return Lite(table.detach(), torch.ones(harms), bias.detach())


def _batches(rows: NDArray[np.int64], training: Training) -> Iterator[tuple[Tensor, float]]:
    """Row numbers of each step, shuffled anew in each epoch, and the share of the steps that remains."""
    generator = torch.Generator().manual_seed(training.seed)
    all_rows = torch.from_numpy(rows)
    steps = training.epochs * -(-len(rows) // training.batch_size)
    step = 0
    for _ in range(training.epochs):
        for batch in all_rows[torch.randperm(len(rows), generator=generator)].split(training.batch_size):
            yield batch, 1 - step / steps
            step += 1


def _bag_logits(table: Tensor, bias: Tensor, bags: _Bags) -> Tensor:
    return functional.embedding_bag(bags.features, table, bags.starts, mode="sum") / bags.damping + bias


def _mean_average_precision(model: Lite, data: TrainingSet, bags: _Bags) -> float:
    """Mean over harms of the average precision on the people's labels of the validation split, where there is one."""
    rows = data.validation
    with torch.no_grad():
        logits = _bag_logits(model.table, model.bias, bags.take(torch.from_numpy(rows))).numpy()
    labels = data.human_labels[rows]
    known = [~np.isnan(column) for column in labels.T]
    precisions = [
        average_precision(logits[mask, harm], labels[mask, harm])
        for harm, mask in enumerate(known)
        if labels[mask, harm].any()
    ]
    if not precisions:
        raise ExportError("no text of the validation split is labelled harmful: too few texts to choose a model by")
    return float(np.mean(precisions))
