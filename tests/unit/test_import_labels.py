"""Label maps: what is wrong with one is said with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.importing.labels import LabelMap, read_labels
from stream.errors import ConfigError

NAMED = 'schema_version: 1\nname: toxicity\nversion: "1"\n'
HEAD = NAMED + "roles: [post]\n"
CLASSES = ("calm", "rude", "insult", "threat")
FULL = "classes:\n  calm: harmless\n  threat: violence\n  rude: harassment\n  insult: harassment\n"


def labels_of(folder: Path, text: str) -> LabelMap:
    path = folder / "map.yaml"
    path.write_text(text)
    return read_labels(path)


def test_classes_become_columns_of_harms(tmp_path: Path) -> None:
    """Harms come in the order of the file, with the columns of their classes in the order of the checkpoint."""
    found = labels_of(tmp_path, HEAD + FULL).match(CLASSES, problem_type="single_label_classification")
    assert found.scores == "softmax"
    assert dict(zip(found.harms, found.columns, strict=True)) == {"violence": (3,), "harassment": (1, 2)}
    assert found.meanings[0] == ("calm", "harmless")


@pytest.mark.parametrize(
    ("stated", "problem_type", "scores"),
    [
        ("", "multi_label_classification", "sigmoid"),
        ("scores: sigmoid\n", "multi_label_classification", "sigmoid"),
        ("scores: sigmoid\n", None, "sigmoid"),
        ("scores: softmax\n", None, "softmax"),
    ],
)
def test_scores_are_what_either_says(tmp_path: Path, stated: str, problem_type: str | None, scores: str) -> None:
    """The kind of scores is that of the config, of the map where the config has none, and of both where they agree."""
    assert labels_of(tmp_path, HEAD + stated + FULL).match(CLASSES, problem_type=problem_type).scores == scores


@pytest.mark.parametrize(
    ("text", "problem_type", "said"),
    [
        (FULL, None, "map.yaml:1: the file: the checkpoint's config.json has no problem_type"),
        ("scores: softmax\n" + FULL, "multi_label_classification", "map.yaml:5: scores: .*which is sigmoid: remove"),
        (FULL, "regression", "made for regression"),
        (FULL.replace("rude:", "Rude:"), "multi_label_classification", "map.yaml:8: classes.Rude: .* mean `rude`"),
        (
            FULL.replace("  rude: harassment\n", ""),
            "multi_label_classification",
            ":5: classes: the class `rude` is not",
        ),
        ("classes: {calm: a, threat: a, rude: a, insult: a}", "single_label_classification", "always be found"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(tmp_path: Path, text: str, problem_type: str | None, said: str) -> None:
    """Classes that one side does not have, and scores that contradict the config or are said nowhere, are refused."""
    labels = labels_of(tmp_path, HEAD + text)
    with pytest.raises(ConfigError, match=said):
        labels.match(CLASSES, problem_type=problem_type)


def test_every_class_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """All that is wrong is said at once, not one thing after the other."""
    labels = labels_of(tmp_path, HEAD + "classes: {calm: harmless, threats: violence}")
    with pytest.raises(ConfigError) as refused:
        labels.match(CLASSES, problem_type="multi_label_classification")
    assert [line.count("`") > 0 for line in str(refused.value).splitlines()] == [True] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: {calm: harmless}", ":5: classes: every class means `harmless`"),
        ("classes: {calm: any_harm}", ":5: classes.calm: `any_harm` stands for all"),
        ("classes: {calm: hate}\nthreshold: 0.5", ":6: threshold: there is no field of this name"),
        ("classes: {calm: hate}\nscores: logits", ":6: scores: must be one of softmax, sigmoid"),
        ("classes: {0: hate}", ":5: the name of a field must be text; quote it"),
        ("classes: {" + ", ".join(f"c{n}: h{n}" for n in range(65)) + "}", "65 harms are named, a bundle has 64"),
        ("scores: softmax", "needs a field `classes`"),
    ],
)
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """What cannot be a label map of any checkpoint is refused when it is read, by file and line."""
    with pytest.raises(ConfigError, match=said):
        labels_of(tmp_path, HEAD + text)


def test_roles_are_the_maps_or_those_of_the_kind(tmp_path: Path) -> None:
    """A map's own roles come first, then those of the kind of model; with neither a map is refused."""
    (tmp_path / "own.yaml").write_text(HEAD + FULL)
    (tmp_path / "none.yaml").write_text(NAMED + FULL)
    assert read_labels(tmp_path / "own.yaml", roles=("output",)).roles == ("post",)
    assert read_labels(tmp_path / "none.yaml", roles=("output", "post")).roles == ("output", "post")
    with pytest.raises(ConfigError, match=r"none.yaml:1: the file: needs a field `roles`"):
        read_labels(tmp_path / "none.yaml")
