"""Sentences that differ only in whom they are about, and what a model makes of the difference [S27]."""

from export.counterfactual.measure import Answers, Ask, measure_counterfactual, refuse_unfair
from export.counterfactual.templates import Sentence, Templates, load_templates

__all__ = [
    "Answers",
    "Ask",
    "Sentence",
    "Templates",
    "load_templates",
    "measure_counterfactual",
    "refuse_unfair",
]
