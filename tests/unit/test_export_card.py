from __future__ import annotations

from pathlib import Path

from export.data.sources import SOURCES, licence_of
from export.reporting.card import write_card
from stream.bundle import TextInput, load
from stream.bundle.evaluation import Estimate, LeftOut, parse_evaluation
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
        within_roles=any(harm.roles for harm in bundle.calibration.harms.values()),
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


def test_the_card_shows_what_sources_never_seen_came_to() -> None:
    """Each rotation is a line of the card with the mean over its harms, and the mean over the lines is said."""
    bundle = load(LITE, TRUST)
    assert isinstance(bundle.manifest.input, TextInput)
    half = Estimate(value=0.5, low=0.4, high=0.6)
    left_out = [
        LeftOut(rotation="posts", harms={"hate": half}, any_harm=half, false_positive_rate=0.07, harmless=900),
        LeftOut(
            rotation="prompts",
            harms={"hate": half, "sexual": Estimate(value=0.7, low=0.6, high=0.8)},
            any_harm=None,
            false_positive_rate=None,
            harmless=0,
        ),
    ]
    evaluation = parse_evaluation(bundle.read("evaluation.json"), name="evaluation.json")
    card = write_card(
        title="other 1",
        about="Something else.",
        limits="- None.",
        model_input=bundle.manifest.input,
        evaluation=evaluation.model_copy(update={"left_out": tuple(left_out)}),
        training_data=bundle.manifest.training_data,
        sources=licence_of(used.source for used in bundle.manifest.training_data),
        within_roles=True,
    )
    assert "\nIt holds over all roles together, or within each under a policy with `risks_within: role`:" in card
    section = card.partition("### On sources it never saw")[2].partition("### By role")[0]
    assert "Mean over the rows: 0.550." in section
    assert "| posts | 0.500 | 1 | 0.500 (0.400 to 0.600) | 0.070 | 900 |" in section
    assert "| prompts | 0.600 | 2 | - | - | 0 |" in section
