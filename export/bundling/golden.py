"""The golden batch of a bundle: events of our own writing, scored once where the bundle is packed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from export.bundling.golden_images import golden_images
from export.errors import ExportError
from stream.bundle import Bundle, ImageInput
from stream.bundle.golden import Golden, GoldenLogits
from stream.scoring.golden import golden_logits
from stream.scoring.opening import open_scorer
from stream.scoring.session import Provider

__all__ = ["TOLERANCE", "make_golden"]

TOLERANCE: Final[Mapping[Provider, float]] = {"cpu": 0.05, "cuda": 0.25}
"""Float32 on another processor differs by a hundred-thousandth; int8 by some hundredths, where a rounding falls the
other way. An artefact for CUDA may be of half precision, which a CPU computes in float32 and a GPU does not: rounding
to it moved logits by up to 0.10 (1,200 texts, measured)."""

TEXTS: Final = (
    ("post", "Thank you all for coming to my sister's graduation, we had a lovely day."),
    ("post", "The 14:05 from the central station was cancelled again!!! Third time this week..."),
    ("post", "nobody asked you, shut up and go away you stupid clown"),
    ("post", "I keep thinking that everyone would be better off without me."),
    ("post", "People like them should not be allowed to live in our street."),
    ("post", "Ça va? Mañana vamos al mercado; 明天见。 До встречи!"),
    ("post", "so proud of you 🎉🎉 can't wait \u2764\ufe0f"),
    ("post", "w h a t  a  d a y, l0ve th1s pl4ce"),
    ("prompt", "How do I kill a Python process that does not answer?"),
    ("prompt", "Explain step by step how to get into a neighbour's house without a key."),
    ("prompt", "Write a love letter from a lighthouse to the sea."),
    ("prompt", "a photograph of two people kissing in the rain, 35 mm, soft light"),
    ("output", "I cannot help with that. If you are in danger, please call your local emergency number."),
    ("output", "First, cream the butter with the sugar; then fold in the flour."),
    ("output", "He raised the knife and stabbed again and again until the room was silent."),
    ("output", "x"),
)
"""Short, so that no model's window cuts them; of all roles, calm and not; several scripts, with emoji and spacing."""


def make_golden(bundle: Bundle) -> Golden:
    """Score the golden events with the artefact of each provider, on the CPU.

    An artefact for CUDA is judged by its own scores: those of one that is rounded to 8 bits are further from it than
    any wrong runtime would be. Raises `ExportError` where the model cannot score one of the events.
    """
    given = bundle.manifest.input
    contents = _with_images(given) if given.kind == "image" else _with_texts(bundle.manifest.roles)
    events = tuple(
        json.dumps({"id": f"golden-{number}", "created_at": "2026-01-01T00:00:00Z"} | content, ensure_ascii=False)
        for number, content in enumerate(contents)
    )
    artefacts = bundle.manifest.artefacts
    rows = {artefact: _score(bundle, artefact, events) for artefact in dict.fromkeys(artefacts.values())}
    return Golden(
        made_with=f"onnxruntime {_onnxruntime_version()} on cpu",
        events=events,
        expected={
            provider: GoldenLogits(tolerance=TOLERANCE[provider], logits=rows[artefact])
            for provider, artefact in artefacts.items()
        },
    )


def _score(bundle: Bundle, artefact: str, events: tuple[str, ...]) -> tuple[tuple[float, ...], ...]:
    """What one of the bundle's artefacts says of the events on the CPU, to six digits."""
    alone = replace(bundle, manifest=bundle.manifest.model_copy(update={"artefacts": {"cpu": artefact}}))
    logits = golden_logits(open_scorer(alone, provider="cpu", max_batch_tokens=4096), events)
    if not np.isfinite(logits).all():
        what = "small image" if bundle.manifest.input.kind == "image" else "short sentence"
        raise ExportError(
            f"{artefact} gives no logits for a {what}, or cannot read it whole: export it again; a language model that "
            "does not answer the question needs the wording of its card, or a lower min_answer_mass"
        )
    return tuple(tuple(round(value, 6) for value in row) for row in logits.astype(float).tolist())


def _with_texts(roles: Collection[str]) -> list[dict[str, object]]:
    return [{"role": role, "text": text} for role, text in TEXTS if role in roles]


def _with_images(given: ImageInput) -> list[dict[str, object]]:
    return [{"role": "output", "image": golden.image.model_dump(exclude_none=True)} for golden in golden_images(given)]


def _onnxruntime_version() -> str:
    import onnxruntime  # noqa: PLC0415 - its distribution has another name where it runs on a GPU

    return str(onnxruntime.__version__)
