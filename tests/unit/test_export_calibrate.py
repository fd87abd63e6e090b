from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from export.errors import ExportError
from export.measuring.calibrate import MIN_LABELS, calibrate, calibrate_known, calibrator_of, uncalibrated
from stream.bundle.calibration import BINS, CalibrationFile, parse_calibration
from stream.errors import BundleError
from stream.uncertainty.calibration import Calibrator

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sample(n: int, *, a: float, b: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (n, 1), and labels (n, 1) drawn with probability sigmoid(a * logit + b)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 1)).astype(np.float32)
    probabilities = Calibrator(a=np.array([a]), b=np.array([b])).apply(logits)
    return logits, (generator.random((n, 1)) < probabilities).astype(np.float32)


def fit(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> CalibrationFile:
    """Calibrate the one harm of these columns."""
    return calibrate(logits, labels, harms=("hate",), split="calibration", created_at=NOW)


def test_finds_the_parameters_that_made_the_labels() -> None:
    """Slope and intercept are those of the process that labels were drawn from, within sampling error."""
    hate = fit(*sample(20_000, a=0.5, b=-1.0)).harms["hate"]
    assert (hate.a, hate.b) == pytest.approx((0.5, -1.0), abs=0.05)
    assert hate.ece is not None
    assert hate.ece_null is not None
    assert hate.ece < hate.ece_null + 0.01


def test_separable_labels_stay_finite() -> None:
    """Where the logits tell the labels apart without error, smoothed targets keep the slope finite."""
    logits = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
    hate = fit(logits, (logits > 0).astype(np.float32)).harms["hate"]
    assert 0 < hate.a < 1000


def test_extreme_logits_converge() -> None:
    """Logits of some thousands neither overflow nor keep the fit from converging."""
    logits, labels = sample(1000, a=1.0, b=0.0)
    near, far = fit(logits, labels).harms["hate"], fit(logits * 1000, labels).harms["hate"]
    assert (far.a * 1000, far.b) == pytest.approx((near.a, near.b), rel=1e-4)


def test_unknown_labels_are_left_out() -> None:
    """Unknown labels change nothing."""
    logits, labels = sample(1000, a=1.0, b=0.0)
    padded = fit(np.vstack([logits, logits + 5]), np.vstack([labels, np.full_like(labels, np.nan)]))
    assert padded == fit(logits, labels)


def test_histogram_is_of_the_probabilities_that_are_served() -> None:
    """Bin i counts items with floor(1024 p) = i, p from the service's own calibrator, and 1.0 is in the last bin."""
    logits, labels = sample(5000, a=2.0, b=0.5)
    logits[0], labels[0] = 1000, 1
    file = fit(logits, labels)
    probabilities = calibrator_of(file, ("hate",)).apply(logits)[:, 0]
    assert probabilities[0] == 1.0
    for label, counts in ((1, file.harms["hate"].histogram.harmful), (0, file.harms["hate"].histogram.harmless)):
        expected = [0.0] * BINS
        for probability in probabilities[labels[:, 0] == label]:
            expected[min(int(probability * 1024), 1023)] += 1
        assert list(counts) == expected


def test_what_a_role_has_is_measured_on_its_items_alone() -> None:
    """Per role: labels, histogram and calibration error of its items, under the one map of all roles."""
    logits, labels = sample(3000, a=1.0, b=0.0)
    labels[::7] = np.nan
    roles = np.array([("prompt", "post", "post")[i % 3] for i in range(3000)])
    logits[roles == "prompt"] += 1.5  # probabilities too high, as the map is made for posts as well
    whole = fit(logits, labels).harms["hate"]
    hate = calibrate(logits, labels, harms=("hate",), split="calibration", created_at=NOW, roles=roles).harms["hate"]
    assert hate.model_copy(update={"roles": {}}) == whole
    assert list(hate.roles) == ["prompt", "post"]
    probabilities = Calibrator(a=np.array([hate.a]), b=np.array([hate.b])).apply(logits)[:, 0]
    for role, part in hate.roles.items():
        inside = probabilities[(roles == role) & (labels[:, 0] == 1)]
        assert list(part.histogram.harmful) == np.histogram(inside, BINS, (0, 1))[0].tolist()
        assert (part.n_harmful, part.n_harmless) == tuple((labels[roles == role, 0] == label).sum() for label in (1, 0))
    parts = [part.histogram.harmless for part in hate.roles.values()]
    assert np.sum(parts, axis=0).tolist() == list(whole.histogram.harmless)
    prompt, post = hate.roles["prompt"], hate.roles["post"]
    assert prompt.ece is not None
    assert prompt.ece_alarm is not None
    assert prompt.ece > prompt.ece_alarm
    assert post.ece_null is not None
    assert whole.ece_null is not None
    assert whole.ece_null < post.ece_null  # fewer items, more of it chance


def test_a_small_role_has_counts_and_no_calibration_error() -> None:
    """Below 200 items the error would be chance, so it is null; a role without an item is not there."""
    logits, labels = sample(1000, a=1.0, b=0.0)
    roles = np.array(["output"] * 199 + ["post"] * 801)
    hate = calibrate(logits, labels, harms=("hate",), split="calibration", created_at=NOW, roles=roles).harms["hate"]
    assert hate.roles.keys() == {"output", "post"}
    output, post = hate.roles["output"], hate.roles["post"]
    assert (output.ece, output.ece_null, output.ece_alarm) == (None, None, None)
    assert output.n_harmful + output.n_harmless == 199
    assert None not in {post.ece, post.ece_null, post.ece_alarm}


def test_roles_that_are_written_can_be_read() -> None:
    """The service reads back the counts of each role; a calibration from before roles is read as one without."""
    logits, labels = sample(500, a=1.0, b=0.0)
    file = calibrate(
        logits, labels, harms=("hate",), split="calibration", created_at=NOW, roles=np.array(["post"] * 500)
    )
    content = file.model_dump(mode="json")
    read = parse_calibration(json.dumps(content).encode(), ("hate",), name="calibration.json").harms["hate"]
    assert read.roles["post"].harmful == read.harmful == file.harms["hate"].histogram.harmful
    del content["harms"]["hate"]["roles"]
    read = parse_calibration(json.dumps(content).encode(), ("hate",), name="calibration.json").harms["hate"]
    assert read.roles == {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"n_harmful": 3.5}, r"the harmful histogram of hate in role post counts \d+ items, not 3.5"),
        ({"ece": 1.5}, r"calibration\.json is not valid: harms\.hate\.roles\.post\.ece"),
        ({"a": 1.0}, r"calibration\.json is not valid: harms\.hate\.roles\.post\.a"),
    ],
)
def test_a_role_that_cannot_be_is_refused(change: dict[str, float], error: str) -> None:
    """Counts of a role that do not add up, shares beyond 1 and a map of its own are errors that name the role."""
    logits, labels = sample(500, a=1.0, b=0.0)
    roles = np.array(["post"] * 500)
    file = calibrate(logits, labels, harms=("hate",), split="calibration", created_at=NOW, roles=roles)
    content = file.model_dump(mode="json")
    content["harms"]["hate"]["roles"]["post"] |= change
    with pytest.raises(BundleError, match=error):
        parse_calibration(json.dumps(content).encode(), ("hate",), name="calibration.json")


def test_what_is_written_can_be_read() -> None:
    """The service reads back what export writes."""
    file = fit(*sample(500, a=1.0, b=0.0))
    calibration = parse_calibration(file.model_dump_json().encode(), ("hate",), name="calibration.json")
    assert calibration.harms["hate"].a == file.harms["hate"].a
    assert calibration.harms["hate"].harmful == file.harms["hate"].histogram.harmful


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_one_sided_labels_are_refused(label: float) -> None:
    """A harm without both harmful and harmless items cannot be calibrated, and the error names it."""
    with pytest.raises(ExportError, match="labels of hate, not both"):
        fit(np.zeros((10, 1), np.float32), np.full((10, 1), label, np.float32))


def test_logits_against_the_labels_are_refused() -> None:
    """A model whose logits fall as harm rises is refused, not turned around."""
    logits, labels = sample(1000, a=1.0, b=0.0)
    with pytest.raises(ExportError, match="logits of hate do not rise"):
        fit(-logits, labels)


def test_harms_without_labels_keep_the_models_own_word() -> None:
    """Harms with labels are calibrated as ever; one with a label too few is left alone, with nothing behind it."""
    (hate, hate_labels), (spam, spam_labels) = sample(500, a=2.0, b=0.5), sample(500, a=1.0, b=0.0, seed=1)
    harmful = np.flatnonzero(spam_labels[:, 0] == 1)
    spam_labels[harmful[MIN_LABELS - 1 :]] = np.nan
    logits, labels = np.concatenate([spam, hate], axis=1), np.concatenate([spam_labels, hate_labels], axis=1)
    both = calibrate_known(logits, labels, harms=("spam", "hate"), split="calibration", created_at=NOW)
    assert (both.method, list(both.harms)) == ("platt", ["spam", "hate"])
    assert both.harms["hate"] == fit(hate, hate_labels).harms["hate"]
    alone = both.harms["spam"]
    assert (alone.a, alone.b, alone.n_harmful, alone.n_harmless, alone.ece) == (1.0, 0.0, 0.0, 0.0, None)
    spam_labels[harmful[MIN_LABELS - 1]] = 1
    labels[:, 0] = spam_labels[:, 0]
    enough = calibrate_known(logits, labels, harms=("spam", "hate"), split="calibration", created_at=NOW)
    assert enough.harms["spam"].n_harmful == MIN_LABELS


def test_labels_that_calibrate_nothing_are_refused() -> None:
    """Labels of which no harm has enough make no calibration that only looks like one."""
    logits, labels = sample(40, a=1.0, b=0.0)
    with pytest.raises(ExportError, match="no harm has 30 harmful and 30 harmless human labels in calibration"):
        calibrate_known(logits, labels, harms=("hate",), split="calibration", created_at=NOW)


def test_without_labels_the_service_gives_the_models_own_probability() -> None:
    """What is written where nobody has labels can be read back, says that nothing is behind it, and changes nothing."""
    file = uncalibrated(("hate", "spam"), created_at=NOW)
    calibration = parse_calibration(file.model_dump_json().encode(), ("hate", "spam"), name="calibration.json")
    assert calibration.method == "none"
    assert not any(harm.is_fitted for harm in calibration.harms.values())
    logits = np.array([[-2.0, 3.0]], np.float32)
    assert calibrator_of(file, ("hate", "spam")).apply(logits) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
