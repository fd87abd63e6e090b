"""A training recipe: a YAML file that says everything about a training that the data does not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stream.bundle.manifest import TextForm
from stream.yamlfile import Section, load

__all__ = ["Balance", "Functional", "Head", "Noise", "Probe", "TrainingRecipe", "Tune", "read_recipe"]

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Head(Section):
    """What turns the mean states of a text into logits."""

    hidden: Annotated[int, Field(ge=0, le=4096)] = 0
    """Width of a layer between; 0 for none."""
    layers: Annotated[int, Field(ge=1, le=48)] = 1
    """The mean states of so many layers are read side by side, the last ones."""
    dropout: Share = 0.1
    members: Annotated[int, Field(ge=1, le=16)] = 1
    """So many heads are fitted, that differ in their seeds, and their logits averaged: as one head so much wider."""


class Balance(Section):
    """How much each text counts, and how often it is seen."""

    source_power: Share = 0.5
    """A source of n texts weighs n to the power of 1 minus this: 0 is by its size, 1 as much as any other."""
    silver_weight: Share = 0.5
    """A label given by a rule, a keyword or another model, beside a person's."""
    silver_smoothing: Share = 0.0
    """How far the target of such a label is drawn from 0 or 1 towards one half."""
    trust: dict[str, Annotated[float, Field(gt=0, le=4)]] = Field(default_factory=dict)
    """Factors on the weights of single sources."""
    class_power: Share = 0.0
    """Harmful labels of a harm weigh its odds of harmless ones to this power more: 1 makes both weigh the same."""
    most_per_source: Count | None = None
    """Texts of one source that are learnt from, the first by digest; none for all of them."""


class Functional(Section):
    """Texts of our own templates that are learnt from too, as one more source."""

    per_template: Annotated[int, Field(ge=1, le=1000)] = 40
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Noise(Section):
    """What is done to texts before the second stage reads them, other noise in each; see `export.text.augment`."""

    share: Share
    """Of texts that are changed."""


class Probe(Section):
    """The first stage: the head alone, on the states of the encoder as it comes, which are computed once."""

    epochs: Count = 10
    batch_rows: Count = 512
    rate: Rate = 1e-3
    weight_decay: Share = 0.01


class Tune(Section):
    """The second stage: all of the model, gently."""

    epochs: Count = 1
    batch_rows: Count = 32
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 96
    """Only so many tokens of a text are learnt from."""
    rate: Rate = 2e-4
    """Of the head; the last layer learns at `rate * layer_factor`, the one below at `rate * layer_factor ** 2`, ..."""
    layer_factor: Annotated[float, Field(gt=0, le=1)] = 0.7
    warmup: Share = 0.06
    """Share of the steps in which the rate rises; it falls to 0 in the others."""
    weight_decay: Share = 0.01
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of a step's gradient."""
    checkpoint_steps: Count = 200
    average_checkpoints: Count = 1
    """The weights are the mean of so many checkpoints, the last ones."""
    noise: Noise | None = None
    keep: Share = 1.0
    """How much of the way from the weights before this stage to those after it is gone: 1 is all of it."""


class TrainingRecipe(Section):
    """The whole file."""

    schema_version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=128)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_tokens: Annotated[int, Field(ge=8, le=512)] = 128
    """Tokens of a text that the head is learnt from, and with it the length of the frozen states' rows."""
    form: TextForm = TextForm()
    """How role and prompt enter the text; goes into the bundle's manifest as it is."""
    head: Head = Head()
    functional: Functional | None = None
    balance: Balance = Balance()
    probe: Probe = Probe()
    tune: Tune | None = None
    """None: the encoder stays as it comes."""


def read_recipe(path: Path) -> TrainingRecipe:
    """Read a recipe. Raises `RecipeError` naming file, line and field of each thing that is wrong."""
    return load(path, what="recipe").validate(TrainingRecipe)
