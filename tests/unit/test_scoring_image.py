"""The scorer of images on a model whose logits are means of colours, and whose faults come on demand."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from stream.bundle import Bundle, load
from stream.errors import BundleError, ProviderError, ScoringError
from stream.events import FailCondition, Image
from stream.scoring import Scorer
from stream.scoring.image import CALL_PIXELS, ImageScorer
from stream.scoring.opening import open_scorer
from stream.scoring.session import OnnxSession, RunError
from tests.bundles import UNSIGNED
from tests.pictures import KINDS, drawn, encoded, events_with, image_of

ASSETS = Path(__file__).parent.parent / "assets" / "scoring"
HARMS = ("red", "green")
SIDE = 16
ROWS = CALL_PIXELS // SIDE**2

SCORER_ERROR = 1 << FailCondition.SCORER_ERROR
UNSUPPORTED = 1 << FailCondition.UNSUPPORTED
TRUNCATED = 1 << FailCondition.TRUNCATED

MakeBundle = Callable[..., Bundle]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Make a bundle of images on disk, verified like any other; keyword arguments are fields of `input`."""

    def make(model: str = "pixels.onnx", *, harms: tuple[str, ...] = HARMS, **fields: Any) -> Bundle:
        harm = {"a": 1, "b": 0, "n_harmful": 0, "n_harmless": 0, "ece": 0, "ece_null": 0}
        harm["histogram"] = {"bins": 1024, "harmful": [0] * 1024, "harmless": [0] * 1024}  # type: ignore[assignment]
        now = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
        calibration = {"schema_version": 1, "created_at": now, "split": "none", "harms": dict.fromkeys(harms, harm)}
        contents = {
            "model.onnx": (ASSETS / model).read_bytes(),
            "calibration.json": json.dumps(calibration).encode(),
            "evaluation.json": b"{}",
            "CARD.md": b"",
        }
        manifest = {
            "schema_version": 1,
            "name": "tiny",
            "version": "1",
            "created_at": now,
            "harms": harms,
            "roles": ["output"],
            "input": {"kind": "image", "height": SIDE, "width": SIDE, "resize": "stretch"} | fields,
            "artefacts": {"cpu": "model.onnx"},
            "calibration": "calibration.json",
            "evaluation": "evaluation.json",
            "card": "CARD.md",
            "training_data": [],
            "code_version": "test",
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for name, content in contents.items()
            },
        }
        for name, content in {**contents, "manifest.json": json.dumps(manifest).encode()}.items():
            (tmp_path / name).write_bytes(content)
        return load(tmp_path, UNSIGNED)

    return make


def scorer_of(bundle: Bundle, *, max_frames: int | None = None) -> ImageScorer:
    return ImageScorer.from_bundle(bundle, provider="cpu", max_frames=max_frames)


def plain(red: int, green: int = 0, blue: int = 0, *, size: tuple[int, int] = (SIDE, SIDE)) -> Image:
    """A PNG of one colour."""
    return image_of(encoded(Pillow.new("RGB", size, (red, green, blue)), "image/png"), "image/png")


def logits(red: float, green: float = 0) -> list[float]:
    return [8 * red / 255 - 4, 8 * green / 255 - 4]


NAN, POISON = plain(0, 0, 230), plain(0, 0, 255)


class LostDevice(OnnxSession):
    """A session whose device has gone away."""

    def __init__(self) -> None:
        self.provider = "cpu"

    def call(self, feed: Any) -> dict[str, NDArray[np.float32]]:  # noqa: ARG002 - whatever comes in
        """Fail."""
        raise RunError("the device is lost")


class OtherDevice(OnnxSession):
    """A session on the CPU that says it is on CUDA, and remembers how many rows its calls had."""

    def __init__(self, session: OnnxSession) -> None:
        super().__init__(session._session, "cuda")
        self.rows: list[int] = []

    def call(self, feed: Any) -> dict[str, NDArray[np.float32]]:
        """Run on the CPU."""
        self.rows.append(len(feed["pixels"]))
        return super().call(feed)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_models(make_bundle: MakeBundle, kind: str) -> None:
    """An image of any of the four kinds has the logits of its pixels."""
    picture = Pillow.new("RGB", (40, 30), (204, 51, 0))
    scores = scorer_of(make_bundle()).score(events_with(image_of(encoded(picture, kind), kind)))
    np.testing.assert_allclose(scores.logits, [logits(204, 51)], atol=0.1)
    assert (scores.conditions.tolist(), scores.windows.tolist()) == ([0], [1])
    assert scores.logits.dtype == np.float32
    assert scores.windows.dtype == np.int16


def test_pixels_are_normalised_as_the_manifest_says(make_bundle: MakeBundle) -> None:
    """The mean is taken from each colour in [0, 1], and then it is divided by the deviation."""
    scorer = scorer_of(make_bundle(mean=(0.5, 0.25, 0.0), deviation=(0.5, 0.25, 2.0)))
    expected = [8 * (0.2 - 0.5) / 0.5 - 4, 8 * (0.8 - 0.25) / 0.25 - 4]
    np.testing.assert_allclose(scorer.score(events_with(plain(51, 204))).logits, [expected], atol=1e-5)


def test_events_without_an_image_at_hand_are_unsupported(make_bundle: MakeBundle) -> None:
    """No image, an image by its address, and text beside an image are UNSUPPORTED; the image is scored."""
    address = Image(media_type="image/png", url="https://images.example/1")
    events = events_with(plain(255), None, address, plain(255), texts={1: "hello", 3: "hello"})
    scores = scorer_of(make_bundle()).score(events)
    assert scores.conditions.tolist() == [0, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED]
    assert np.isnan(scores.logits[1:3]).all()
    assert scores.windows.tolist() == [1, 0, 0, 1]
    assert np.array_equal(scores.logits[0], scores.logits[3])


def test_an_image_that_cannot_be_decoded_is_alone(make_bundle: MakeBundle) -> None:
    """An image that no decoder reads is UNSUPPORTED with no logits, and its neighbours have theirs."""
    sound = encoded(drawn(60, 60), "image/jpeg")
    broken = image_of(sound[:-200], "image/jpeg")
    scores = scorer_of(make_bundle()).score(events_with(plain(255), broken, plain(0)))
    assert scores.conditions.tolist() == [0, UNSUPPORTED, 0]
    assert scores.windows.tolist() == [1, 0, 1]
    np.testing.assert_allclose(scores.logits[[0, 2]], [logits(255), logits(0)], atol=1e-5)
    assert np.isnan(scores.logits[1]).all()


@pytest.mark.parametrize("fault", [NAN, POISON], ids=["nan", "poison"])
def test_a_row_at_fault_is_alone(make_bundle: MakeBundle, fault: Image) -> None:
    """Whatever one image does to the model, it alone has SCORER_ERROR and NaN; a batch of such images stops nothing."""
    scorer = scorer_of(make_bundle())
    scores = scorer.score(events_with(plain(255), plain(51), fault, plain(0)))
    assert scores.conditions.tolist() == [0, 0, SCORER_ERROR, 0]
    np.testing.assert_allclose(np.delete(scores.logits, 2, axis=0), [logits(255), logits(51), logits(0)], atol=1e-5)
    assert np.isnan(scores.logits[2]).all()
    assert scorer.score(events_with(fault, fault)).conditions.tolist() == [SCORER_ERROR] * 2


def test_the_worst_frame_counts(make_bundle: MakeBundle) -> None:
    """An animation has, per harm, the largest logit of its frames; one at fault is not hidden by the others."""
    colours = [(0, 0, 0), (204, 0, 0), (0, 255, 0)]

    def animation(*colours: tuple[int, int, int]) -> Image:
        first, *more = [Pillow.new("RGB", (SIDE, SIDE), colour) for colour in colours]
        return image_of(encoded(first, "image/png", save_all=True, append_images=more), "image/png")

    scorer = scorer_of(make_bundle())
    scores = scorer.score(events_with(animation(*colours), animation(*colours, (0, 0, 230))))
    np.testing.assert_allclose(scores.logits[0], logits(204, 255), atol=1e-5)
    assert scores.windows.tolist() == [3, 4]
    assert scores.conditions.tolist() == [0, SCORER_ERROR]
    few = scorer_of(make_bundle(), max_frames=2).score(events_with(animation(*colours)))
    assert (few.conditions.tolist(), few.windows.tolist()) == ([TRUNCATED], [2])
    np.testing.assert_allclose(few.logits[0], logits(0, 255), atol=1e-5)


def test_probabilities_of_pieces_are_averaged(make_bundle: MakeBundle) -> None:
    """A large image has, as a logit, the mean probability of its centre and its corners."""
    picture = Pillow.new("RGB", (SIDE * 3, SIDE * 3))
    picture.paste((255, 51, 0), (0, 0, SIDE, SIDE))
    image = image_of(encoded(picture, "image/png"), "image/png")
    scores = scorer_of(make_bundle(resize="none", crops=5)).score(events_with(image))
    pieces = np.array([logits(255, 51)] + [logits(0)] * 4)
    mean = (1 / (1 + np.exp(-pieces))).mean(axis=0)
    np.testing.assert_allclose(scores.logits, [np.log(mean / (1 - mean))], atol=1e-5)
    assert scores.windows.tolist() == [5]
    assert scores.conditions.tolist() == [0]


def test_an_image_smaller_than_the_model_says_so(make_bundle: MakeBundle) -> None:
    """Where nothing is resized, a small image lies on black and has TRUNCATED."""
    scores = scorer_of(make_bundle(resize="none")).score(events_with(plain(255, size=(SIDE // 2, SIDE))))
    np.testing.assert_allclose(scores.logits, [logits(127.5)], atol=1e-5)
    assert scores.conditions.tolist() == [TRUNCATED]


IMAGES = [plain(level, 255 - level) for level in range(0, 256, 15)] + [
    *(NAN, POISON, image_of(b"GIF89a", "image/gif")),
    image_of(encoded(drawn(90, 70), "image/jpeg"), "image/jpeg"),
    image_of(encoded(drawn(50, 20), "image/gif", save_all=True, append_images=[drawn(50, 20, seed=1)]), "image/gif"),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows=st.lists(st.integers(0, len(IMAGES) - 1), min_size=1, max_size=12))
@pytest.mark.parametrize("model", ["pixels.onnx", "pixels_swayed.onnx"])
@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_a_score_does_not_depend_on_batch_mates(
    make_bundle: MakeBundle, model: str, provider: str, rows: list[int]
) -> None:
    """The same image has the same bits alone and in any company, also where the model would not have it so."""
    scorer = scorer_of(make_bundle(model, resize="shorter_side", resize_to=20, crops=3))
    if provider == "cuda":
        scorer = ImageScorer(OtherDevice(scorer._session), scorer._reader, harms=HARMS)
        scorer._rows = min(scorer._rows, 4)  # several calls for a batch of a few
    together = scorer.score(events_with(*(IMAGES[row] for row in rows)))
    for at, row in enumerate(rows):
        alone = scorer.score(events_with(IMAGES[row]))
        assert np.array_equal(alone.logits[0], together.logits[at], equal_nan=True)
        assert alone.conditions[0] == together.conditions[at]


@pytest.mark.parametrize(("model", "rows"), [("pixels.onnx", ROWS), ("pixels_swayed.onnx", 1)])
def test_a_model_that_is_swayed_by_batch_mates_scores_row_by_row(
    make_bundle: MakeBundle, model: str, rows: int
) -> None:
    """Where pieces run together, it is found at load if one depends on its company, and then each is its own call."""
    on_cpu = scorer_of(make_bundle(model))
    assert on_cpu._rows == 1
    scorer = ImageScorer(OtherDevice(on_cpu._session), on_cpu._reader, harms=HARMS)
    assert scorer._rows == rows
    together = scorer.score(events_with(*IMAGES[:7])).logits
    alone = [scorer.score(events_with(image)).logits[0] for image in IMAGES[:7]]
    assert np.array_equal(np.stack(alone), together)


def test_calls_on_cuda_have_one_shape(make_bundle: MakeBundle) -> None:
    """On CUDA all calls have the same number of rows, so that the same kernels run whatever the batch."""
    on_cpu = scorer_of(make_bundle())
    session = OtherDevice(on_cpu._session)
    scorer = ImageScorer(session, on_cpu._reader, harms=HARMS)
    scores = scorer.score(events_with(*IMAGES[:5]))
    assert set(session.rows) == {ROWS}
    assert np.array_equal(scores.logits, on_cpu.score(events_with(*IMAGES[:5])).logits)


def test_no_more_images_are_held_than_a_call_takes(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long batch, images are scored as soon as they fill a call, and every one of them is."""
    scorer = scorer_of(make_bundle())
    scorer._rows = 4
    held: list[int] = []
    score = ImageScorer._score_pictures

    def watched(self: ImageScorer, pictures: Any, scores: NDArray[np.float32]) -> None:
        held.append(len(pictures))
        score(self, pictures, scores)

    monkeypatch.setattr(ImageScorer, "_score_pictures", watched)
    scores = scorer.score(events_with(*IMAGES[:17]))
    assert held == [4, 4, 4, 4, 1]
    assert scores.scored.all()


def test_a_runtime_that_fails_on_a_known_image_is_an_error(make_bundle: MakeBundle) -> None:
    """Where all images fail and a known one does too, the runtime is at fault: no event is blamed for it."""
    scorer = scorer_of(make_bundle())
    scorer._session = LostDevice()
    with pytest.raises(ScoringError, match="device is lost"):
        scorer.score(events_with(plain(1), plain(2)))
    assert scorer.score(events_with(image_of(b"", "image/png"))).conditions.tolist() == [UNSUPPORTED]


def test_providers_that_disagree_are_refused(make_bundle: MakeBundle) -> None:
    """A scorer whose logits for known images are not those of the reference is refused; one that agrees is not."""
    scorer = scorer_of(make_bundle())
    scorer.refuse_difference(scorer_of(make_bundle()))
    with pytest.raises(ProviderError, match=r"a probe.s logit differs by"):
        scorer.refuse_difference(scorer_of(make_bundle(mean=(0.5, 0.5, 0.5))))


@pytest.mark.parametrize("count", [0, 1])
def test_results_have_a_row_per_event(make_bundle: MakeBundle, count: int) -> None:
    """No events give empty arrays of the usual shape and dtype."""
    scores = scorer_of(make_bundle()).score(events_with(*[None] * count))
    assert scores.logits.shape == (count, 2)
    assert scores.conditions.dtype == np.uint8
    assert scores.windows.dtype == np.int16


def test_threads_may_share_a_scorer(make_bundle: MakeBundle) -> None:
    """Calls from several threads at once give what they give one after another."""
    scorer = scorer_of(make_bundle(resize="shorter_side", resize_to=20))
    batches = [events_with(*IMAGES[at : at + 4]) for at in range(len(IMAGES) - 4)]
    expected = [scorer.score(batch).logits for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = [scores.logits for scores in threads.map(scorer.score, batches)]
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("model", "fields", "what"),
    [
        ("pixels.onnx", {"height": 32}, "has 16 along axis 2 of pixels, its manifest makes that 32"),
        ("pixels.onnx", {"harms": ("red",)}, "has 2 along axis 1 of logits, its manifest makes that 1"),
        ("tiny.onnx", {}, r"inputs are attention_mask tensor.int64. of rank 2, .* not pixels tensor.float. of rank 4"),
    ],
)
def test_a_model_with_another_interface_is_refused(
    make_bundle: MakeBundle, model: str, fields: dict[str, Any], what: str
) -> None:
    """A model that does not take the manifest's images or give its harms is refused at load, saying which."""
    with pytest.raises(BundleError, match=what):
        scorer_of(make_bundle(model, **fields))


def test_a_bundle_of_images_is_opened_by_what_it_reads(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`open_scorer` gives a scorer of images, with as many frames as windows, or says what lacks."""
    bundle = make_bundle()
    scorer: Scorer = open_scorer(bundle, provider="cpu", max_batch_tokens=128, max_windows=3)
    assert isinstance(scorer, ImageScorer)
    assert scorer._reader._max_frames == 3
    monkeypatch.delitem(sys.modules, "stream.scoring.image")
    monkeypatch.delitem(sys.modules, "stream.scoring.picture")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BundleError, match="pip install pillow"):
        open_scorer(bundle, provider="cpu", max_batch_tokens=128)
