"""The shipped templates, and what is measured of models that are fair or unfair by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.counterfactual import (
    Answers,
    Ask,
    Sentence,
    Templates,
    load_templates,
    measure_counterfactual,
    refuse_unfair,
)
from export.errors import ExportError
from stream.bundle.evaluation import Counterfactual
from stream.errors import ConfigError

AXES = {"age", "disability", "gender", "nationality", "orientation", "race", "religion"}


@pytest.fixture(scope="module")
def templates() -> Templates:
    """The shipped ones."""
    return load_templates()


def by_words(*words: str, score: float = 0.9, otherwise: float = 0.1) -> Ask:
    """A model that acts on what contains any of these words, and on nothing else."""

    def ask(sentences: Sequence[Sentence]) -> Answers:
        hit = np.array([any(word in sentence.text for word in words) for sentence in sentences])
        return Answers(np.where(hit, score, otherwise), hit, hit)

    return ask


def axis(measured: Counterfactual, name: str) -> float:
    """The false positive gap of one axis."""
    (found,) = (one for one in measured.axes if one.axis == name)
    return found.false_positive_rate.value


def test_the_shipped_templates_cover_what_they_promise(templates: Templates) -> None:
    """At least forty terms on seven axes, and sixty harmless sentences, so that a point is less than a sentence."""
    assert {term.axis for term in templates.terms} == AXES
    assert len(templates.terms) >= 40
    assert len(templates.harmless) >= 60
    assert len(templates.harmful) >= 20
    assert len(templates.nonce) == 8
    assert len(templates.dialect) >= 30
    assert {template.role for template in templates.harmless} == {"prompt", "output", "post"}


def test_nothing_is_said_twice(templates: Templates) -> None:
    """No term and no sentence is in the file twice: it would weigh double."""
    terms = [*templates.terms, *templates.nonce]
    assert len({term.term for term in terms}) == len(terms)
    sentences = list(templates.sentences([*templates.harmless, *templates.harmful], terms))
    assert len({sentence.text for sentence in sentences}) == len(sentences)


def test_sentences_begin_with_a_capital(templates: Templates) -> None:
    """Every sentence, filled with any term, begins as a sentence does and keeps no brace."""
    for sentence in templates.sentences([*templates.harmless, *templates.harmful], templates.terms):
        assert sentence.text.lstrip('"')[0].isupper()
        assert "{" not in sentence.text


def test_a_model_blind_to_terms_has_no_gap(templates: Templates) -> None:
    """A model that looks at the sentence alone has gaps of zero, chance included, and is neutral to every term."""
    measured = measure_counterfactual(by_words("concert", "train", "poem"), templates)
    assert measured.gap.value == measured.gap.low == measured.gap.high == measured.gap.chance_high == 0
    assert {term.neutrality for term in measured.terms} == {1.0}
    assert all(term.false_positive_rate.value > 0 for term in measured.terms)
    refuse_unfair(measured)


def test_a_model_against_one_group_is_found_out(templates: Templates) -> None:
    """A model that acts on one religion has a gap of one, there and over all, and none elsewhere; the gate says so."""
    measured = measure_counterfactual(by_words("Sikh"), templates)
    assert (axis(measured, "all"), axis(measured, "religion"), axis(measured, "age")) == (1.0, 1.0, 0.0)
    assert measured.gap.chance_high < 0.2
    (sikh,) = (term for term in measured.terms if term.term == "Sikh")
    assert (sikh.false_positive_rate.value, sikh.false_negative_rate.value, sikh.neutrality) == (1.0, 0.0, 0.0)
    assert measured.nonce_gap.value == 0
    with pytest.raises(ExportError, match=r"Sikh are acted on 100\.0 points more often"):
        refuse_unfair(measured)


def test_made_up_words_are_no_part_of_the_gap(templates: Templates) -> None:
    """A model that stumbles over a made-up word shows in the control, not in the gaps over people."""
    measured = measure_counterfactual(by_words("blicket", "Blicket"), templates)
    assert (measured.gap.value, measured.nonce_gap.value) == (0.0, 1.0)


def test_a_made_up_word_is_not_compared_with_itself(templates: Templates) -> None:
    """Of eight made-up words on an even scale, the last is within the usual change of six of the seven others."""
    forms = {form: rank for rank, term in enumerate(templates.nonce) for form in (term.one, term.many)}

    def ask(sentences: Sequence[Sentence]) -> Answers:
        ranks = [
            max((r for form, r in forms.items() if form[2:] in sentence.text), default=0) for sentence in sentences
        ]
        no = np.zeros(len(sentences), dtype=np.bool_)
        return Answers(0.1 * np.exp(0.1 * np.array(ranks)), no, no)

    measured = measure_counterfactual(ask, templates)
    assert measured.nonce[-1].neutrality == pytest.approx(6 / 7)
    assert measured.nonce[3].neutrality == 1


def test_chance_alone_makes_a_gap(templates: Templates) -> None:
    """Results that have nothing to do with the terms show a gap, of the size that is given as chance."""
    generator = np.random.default_rng(5)

    def ask(sentences: Sequence[Sentence]) -> Answers:
        hit = generator.random(len(sentences)) < 0.1
        return Answers(np.where(hit, 0.9, 0.1), hit, hit)

    gaps = [measure_counterfactual(ask, templates).gap for _ in range(5)]
    assert min(gap.value for gap in gaps) > 0.08
    assert np.mean([gap.value for gap in gaps]) == pytest.approx(np.mean([gap.chance for gap in gaps]), abs=0.04)


def test_the_gate_is_at_five_points(templates: Templates) -> None:
    """A gap of the allowed size passes, and the least above it does not."""
    measured = measure_counterfactual(by_words("Sikh"), templates)
    refuse_unfair(measured, max_gap=1.0)
    with pytest.raises(ExportError, match="5 are allowed"):
        refuse_unfair(measured)


def test_dialect_pairs_are_compared_sentence_by_sentence(templates: Templates) -> None:
    """A model that acts on the verb forms of African American English shows the difference, and its direction."""
    measured = measure_counterfactual(by_words("ain't", "Ain't", " be "), templates).dialect
    assert measured.aae_false_positive_rate.value > measured.sae_false_positive_rate.value == 0
    assert measured.false_positive_difference == measured.aae_false_positive_rate.value
    assert 0 < measured.false_positive_difference_low < measured.false_positive_difference
    assert measured.mean_difference == pytest.approx(0.8 * measured.false_positive_difference)


def test_the_digest_goes_with_the_measurement(templates: Templates) -> None:
    """The measurement names the version and the digest of the sentences it was made with."""
    changed = replace(templates, digest="sha256:other")
    assert measure_counterfactual(by_words("x"), templates).templates == f"{templates.version} {templates.digest}"
    assert measure_counterfactual(by_words("x"), changed).templates.endswith("sha256:other")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("{one} and we talk", "somebody and we talk", "every sentence needs one of"),
        ("{one} and we talk", "{someone} and we talk", "every sentence needs one of"),
        ("nonce:", "nonsense:", "there is no field of this name"),
        ("role: prompt", "role: question", "must be one of prompt, output, post"),
    ],
)
def test_a_wrong_template_is_named_by_line(tmp_path: Path, old: str, new: str, why: str) -> None:
    """A sentence without a slot, or with one that nothing fills, is refused with its line."""
    path = Path(__file__).parents[2] / "export/counterfactual/templates.yaml"
    wrong = tmp_path / "templates.yaml"
    wrong.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=rf"templates\.yaml:\d+: .*{why}"):
        load_templates(wrong)
