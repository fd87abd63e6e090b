from __future__ import annotations

from pathlib import Path

from export.card import write_card
from export.sources import SOURCES, licence_of
from stream.bundle import TextInput, load
from stream.bundle.evaluation import parse_evaluation
from tests.bundles import TRUST

LITE = Path(__file__).parents[2] / "models" / "lite"


def test_the_card_says_what_was_measured() -> None:
    """The card of the shipped bundle is what its evaluation and manifest give, figure by figure."""
    bundle = load(LITE, TRUST)
    assert isinstance(bundle.manifest.input, TextInput)
    manifest, shipped = bundle.manifest, bundle.read("CARD.md").decode()
    card = write_card(
        title=f"{manifest.name} {manifest.version}",
        about=shipped.split("\n\n")[1],
        limits=shipped.partition("## Limits\n\n")[2].partition("\n- Figures over all")[0],
        model_input=bundle.manifest.input,
        evaluation=parse_evaluation(bundle.read("evaluation.json"), name="evaluation.json"),
        training_data=manifest.training_data,
        sources=licence_of(used.source for used in manifest.training_data),
        figures=[name for name in manifest.files if name.startswith("figures/")],
    )
    assert card == shipped


def test_the_shipped_card_attributes_every_source_that_asks() -> None:
    """Every source under an attribution licence is named with its creators in the shipped card."""
    bundle = load(LITE, TRUST)
    card = bundle.read("CARD.md").decode()
    for used in bundle.manifest.training_data:
        source = SOURCES[used.source]
        assert source.licence == used.licence
        assert source.attribution in card
