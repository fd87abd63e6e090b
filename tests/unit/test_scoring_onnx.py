"""The ONNX scorer on a model of a few words, whose logits can be added up by hand and whose faults come on demand."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from stream.bundle import load
from stream.errors import BundleError, ProviderError, ScoringError
from stream.events import FailCondition
from stream.scoring.onnx import OnnxScorer
from stream.scoring.session import OnnxSession, RunError, refuse_operators_elsewhere, refuse_other_provider
from stream.scoring.tokenize import ModelInputs
from tests.bundles import UNSIGNED
from tests.records import batch_of

ASSETS = Path(__file__).parent.parent / "assets" / "scoring"
WORDS = (
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "nan",
    "inf",
    "minusinf",
    "poison",
    "hungry",
    "greedy",
    "hate",
    "kill",
    "a",
    "hello",
)
HARMS = ("hate", "violence")
HAS_CUDA = Path("/dev/nvidiactl").exists()

SCORER_ERROR = 1 << FailCondition.SCORER_ERROR
UNSUPPORTED = 1 << FailCondition.UNSUPPORTED
TRUNCATED = 1 << FailCondition.TRUNCATED

MakeScorer = Callable[..., OnnxScorer]


def word_tokenizer(words: Sequence[str]) -> bytes:
    """A tokenizer with one token per word."""
    vocabulary = {word: at for at, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer.to_str().encode()


def calibration(harms: Sequence[str]) -> bytes:
    """A calibration that says nothing."""
    empty = {"bins": 1024, "harmful": [0] * 1024, "harmless": [0] * 1024}
    harm = {"a": 1, "b": 0, "n_harmful": 0, "n_harmless": 0, "ece": 0, "ece_null": 0, "histogram": empty}
    now = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    return json.dumps(
        {"schema_version": 1, "created_at": now, "split": "none", "harms": dict.fromkeys(harms, harm)}
    ).encode()


@pytest.fixture
def make_scorer(tmp_path: Path) -> MakeScorer:
    """Make a scorer from a bundle on disk, verified like any other."""

    def make(
        *,
        harms: Sequence[str] = HARMS,
        model: str = "tiny.onnx",
        words: Sequence[str] = WORDS,
        window: int = 8,
        overlap: int = 1,
        provider: str = "cpu",
        max_batch_tokens: int = 64,
        max_windows: int = 3,
        form: dict[str, object] | None = None,
    ) -> OnnxScorer:
        contents = {
            "model.onnx": (ASSETS / model).read_bytes(),
            "tokenizer.json": word_tokenizer(words),
            "calibration.json": calibration(harms),
            "evaluation.json": b"{}",
            "CARD.md": b"",
        }
        manifest = {
            "schema_version": 1,
            "name": "tiny",
            "version": "1",
            "created_at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            "harms": harms,
            "roles": ["output"],
            "input": {"max_tokens": window, "stride": overlap, **({"form": form} if form else {})},
            "artefacts": {"cpu": "model.onnx"},
            "tokenizer": "tokenizer.json",
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
        return OnnxScorer.from_bundle(
            load(tmp_path, UNSIGNED),
            provider=provider,  # type: ignore[arg-type]  # a str from a parametrised test
            max_batch_tokens=max_batch_tokens,
            max_windows=max_windows,
        )

    return make


class LostDevice(OnnxSession):
    """A session whose device has gone away."""

    def __init__(self) -> None:
        self.provider = "cpu"

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:  # noqa: ARG002 - whatever comes in
        """Fail."""
        raise RunError("the device is lost")


class OtherDevice(OnnxSession):
    """A session on the CPU that says it is on CUDA, and remembers the shapes of its calls."""

    def __init__(self, session: OnnxSession) -> None:
        super().__init__(session._session, "cuda")
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """Run on the CPU."""
        self.shapes.append(inputs.input_ids.shape)
        return super().run(inputs)


class OtherBitsAlone(OnnxSession):
    """A session that rounds otherwise in calls of one row, as products of one row do, from a length on."""

    def __init__(self, session: OnnxSession, *, from_length: int) -> None:
        super().__init__(session._session, "cpu")
        self.from_length = from_length

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """Run, and change the last bits of a lone row."""
        rows, length = inputs.input_ids.shape
        logits = super().run(inputs)
        return logits if rows > 1 or length < self.from_length else np.nextafter(logits, np.float32(np.inf))


class Timed(OnnxSession):
    """A session that takes `micros` microseconds of made-up time for a call of so many tokens."""

    def __init__(self, session: OnnxSession, micros: Callable[[int], float]) -> None:
        super().__init__(session._session, "cpu")
        self.now = 0.0
        self.micros = micros
        self.most_tokens = 0

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """Run, and let time pass."""
        self.now += self.micros(inputs.input_ids.size) / 1e6
        self.most_tokens = max(self.most_tokens, inputs.input_ids.size)
        return super().run(inputs)


def test_logits_are_the_models(make_scorer: MakeScorer) -> None:
    """A row of logits is what the model says of the text between its special tokens."""
    scores = make_scorer().score(batch_of("hello", "hate", "KILL hate", "unheard of"))
    assert scores.logits.tolist() == [[-4, -4], [1, -4], [2, 3], [-4, -4]]
    assert scores.logits.dtype == np.float32


def test_role_and_prompt_enter_the_text_as_the_manifest_says(make_scorer: MakeScorer) -> None:
    """Each event is scored as if its text were the lead of its role, the end of its prompt, and the text itself."""
    form = {"lead": {"output": "hate "}, "prompt_characters": 6, "prompt_end": " "}
    events = replace(
        batch_of("hello", None, "hello", "hello"),
        roles=["output", "output", "post", "prompt"],
        prompts=["not poison", None, "not poison", None],
    )
    plain = make_scorer().score(batch_of("hate poison hello", "poison hello", "hello"))
    scores = make_scorer(form=form).score(events)
    np.testing.assert_array_equal(scores.logits[[0, 2, 3]], plain.logits)
    assert np.isnan(scores.logits[1]).all()
    without = make_scorer().score(events).logits[[0, 2, 3]]
    np.testing.assert_array_equal(without, np.repeat(plain.logits[2:], 3, axis=0))


def test_scores_are_the_largest_over_windows(make_scorer: MakeScorer) -> None:
    """A text longer than the window has, per harm, the largest logit of its windows."""
    text = " ".join(["a"] * 5 + ["hate", "hate"] + ["a"] * 5 + ["kill"])
    scores = make_scorer().score(batch_of(text, "a"))
    assert scores.windows.tolist() == [3, 1]
    assert scores.logits.tolist() == [[6, 3], [-4, -4]]
    assert scores.conditions.tolist() == [0, 0]


def test_text_beyond_the_last_window_is_said_to_be_unread(make_scorer: MakeScorer) -> None:
    """A text that needs more than `max_windows` windows is scored on those and has TRUNCATED."""
    read_whole = " ".join(["a"] * 16)
    scores = make_scorer().score(batch_of(read_whole, read_whole + " hate"))
    assert scores.conditions.tolist() == [0, TRUNCATED]
    assert scores.windows.tolist() == [3, 3]
    assert scores.logits.tolist() == [[-4, -4], [-4, -4]]


def test_a_very_long_text_is_cut_before_it_is_tokenised(make_scorer: MakeScorer) -> None:
    """Characters that no window could reach are not even tokenised, and the text has TRUNCATED."""
    scores = make_scorer().score(batch_of(" " * 1_000_000 + "hate"))
    assert scores.conditions.tolist() == [TRUNCATED]
    assert scores.windows.tolist() == [1]


def test_special_tokens_written_in_a_text_are_text(make_scorer: MakeScorer) -> None:
    """An author cannot write a special token: `[CLS]` in a text is an unknown word."""
    scores = make_scorer().score(batch_of("[CLS] hate [SEP]"))
    assert scores.logits.tolist() == [[1, -4]]


def test_half_a_surrogate_pair_is_scored(make_scorer: MakeScorer) -> None:
    """A text that cannot be UTF-8 is scored without the characters at fault, and so are its batch-mates."""
    scores = make_scorer().score(batch_of("hate \ud83d", "kill"))
    assert scores.logits.tolist() == [[1, -4], [-3, 3]]
    assert scores.conditions.tolist() == [0, 0]


def test_an_image_beside_text_is_unsupported_and_the_text_is_scored(make_scorer: MakeScorer) -> None:
    """A bundle that reads text only scores the text of an event with an image, and sets UNSUPPORTED."""
    scores = make_scorer().score(batch_of("hate", None, "", images=[0, 1, 2]))
    assert scores.conditions.tolist() == [UNSUPPORTED] * 3
    assert scores.logits[0].tolist() == [1, -4]
    assert np.isnan(scores.logits[1:]).all()
    assert scores.windows.tolist() == [1, 0, 0]


@pytest.mark.parametrize("fault", ["nan", "inf", "minusinf", "poison", "greedy"])
def test_a_row_at_fault_is_alone(make_scorer: MakeScorer, fault: str) -> None:
    """Whatever one text does to the model, it alone has SCORER_ERROR and NaN logits; the others keep their scores."""
    scores = make_scorer().score(batch_of("hate", "hello", f"hello {fault}", "kill", "hello hate", "a", "kill a"))
    assert scores.conditions.tolist() == [0, 0, SCORER_ERROR, 0, 0, 0, 0]
    assert np.isnan(scores.logits[2]).all()
    assert np.delete(scores.logits, 2, axis=0).tolist() == [[1, -4], [-4, -4], [-3, 3], [1, -4], [-4, -4], [-3, 3]]


@pytest.mark.parametrize("fault", ["nan", "inf", "minusinf", "poison", "greedy"])
def test_a_fault_in_one_window_is_not_hidden_by_the_others(make_scorer: MakeScorer, fault: str) -> None:
    """A text that is at fault in one window only has SCORER_ERROR, for that part of it was not read."""
    scores = make_scorer().score(batch_of(" ".join(["hate"] * 8 + [fault]), "hate"))
    assert scores.conditions.tolist() == [SCORER_ERROR, 0]
    assert np.isnan(scores.logits[0]).all()


def test_running_out_of_memory_splits_the_call(make_scorer: MakeScorer) -> None:
    """A call that does not fit into memory is split until it does, and every row is scored."""
    scores = make_scorer().score(batch_of(*["hungry hate"] * 5, *["hungry"] * 3))
    assert scores.conditions.tolist() == [0] * 8
    assert scores.logits.tolist() == [[1, -4]] * 5 + [[-4, -4]] * 3


@pytest.mark.parametrize("fault", ["nan", "poison", "greedy"])
def test_a_batch_of_faults_is_data_while_plain_text_can_be_scored(make_scorer: MakeScorer, fault: str) -> None:
    """Where all rows fail and a known text does not, the rows are at fault: a poison text stops no worker."""
    scores = make_scorer().score(batch_of(fault, f"{fault} a"))
    assert scores.conditions.tolist() == [SCORER_ERROR, SCORER_ERROR]


def test_a_model_that_is_swayed_by_batch_mates_scores_row_by_row(make_scorer: MakeScorer) -> None:
    """Where a row's logits depend on the rest of its call, each row is its own call, and so its score its own."""
    scorer = make_scorer(model="swayed.onnx")
    together = scorer.score(batch_of("a", "hello", "kill hate"))
    alone = [scorer.score(batch_of(text)).logits[0] for text in ("a", "hello", "kill hate")]
    assert scorer.one_row_per_call
    assert not make_scorer().one_row_per_call
    assert np.array_equal(together.logits, alone)


@pytest.mark.parametrize("from_length", [0, 16])
def test_a_lone_row_has_the_bits_it_has_in_company(make_scorer: MakeScorer, from_length: int) -> None:
    """Where calls of one row round otherwise, at any length, a lone row goes with an idle one, and only there."""
    plain = make_scorer(window=16)
    scorer = OnnxScorer(
        OtherBitsAlone(plain._session, from_length=from_length),
        plain._tokenizer,
        harms=HARMS,
        window=16,
        max_batch_tokens=64,
    )
    assert not scorer.one_row_per_call
    assert (plain._fewest_rows, scorer._fewest_rows) == (1, 2)
    text = " ".join(["hate"] * 12)
    assert np.array_equal(scorer.score(batch_of(text)).logits[0], scorer.score(batch_of(text, text)).logits[1])


@pytest.mark.parametrize(("from_length", "rows"), [(1024, 2), (1500, 1)])
def test_company_is_tried_at_up_to_a_thousand_tokens(make_scorer: MakeScorer, from_length: int, rows: int) -> None:
    """Whether company changes a row is found out at lengths up to 1024, where longer rows are read too."""
    plain = make_scorer(window=2048)
    scorer = OnnxScorer(
        OtherBitsAlone(plain._session, from_length=from_length),
        plain._tokenizer,
        harms=HARMS,
        window=2048,
        max_batch_tokens=64,
    )
    assert scorer._fewest_rows == rows


@pytest.mark.parametrize(
    ("micros", "tokens", "tried"),
    [
        (lambda tokens: 1 + tokens, 4096, 4096),
        (lambda tokens: tokens if tokens <= 1024 else 2 * tokens, 512, 2048),
        (lambda tokens: 100 + tokens if tokens <= 1024 else 2 * tokens, 1024, 2048),
        (lambda tokens: 1_000_000 + tokens, 512, 512),
    ],
    ids=["cost of a call", "cache", "both", "seconds a call"],
)
def test_calls_are_as_large_as_is_fast(
    make_scorer: MakeScorer, micros: Callable[[int], float], tokens: int, tried: int
) -> None:
    """Calls on the CPU have the size with the least time per token; far larger ones are not even tried."""
    plain = make_scorer()
    session = Timed(plain._session, micros)
    scorer = OnnxScorer(
        session, plain._tokenizer, harms=HARMS, window=8, max_batch_tokens=4096, clock=lambda: session.now
    )
    assert scorer._max_batch_tokens == tokens
    assert session.most_tokens == tried
    session.most_tokens = 0
    scorer.score(batch_of(*["hate a a a a a"] * 2000))
    assert session.most_tokens == tokens


def test_a_runtime_that_fails_on_known_text_is_an_error(make_scorer: MakeScorer) -> None:
    """Where all rows fail and a known text does too, the runtime is at fault: no event is blamed for it."""
    scorer = make_scorer()
    scorer._session = LostDevice()
    with pytest.raises(ScoringError, match="device is lost"):
        scorer.score(batch_of("hello", "a"))


def test_calls_on_cuda_have_one_shape_per_length(make_scorer: MakeScorer) -> None:
    """On CUDA all calls of a length have the same number of rows, so that the same kernels run whatever the batch."""
    on_cpu = make_scorer(window=16)
    session = OtherDevice(on_cpu._session)
    scorer = OnnxScorer(session, on_cpu._tokenizer, harms=HARMS, window=16, max_batch_tokens=64)
    batches = [batch_of(*["hate"] * 5), batch_of(*["hate"] * 40, "kill " * 9), batch_of("a", "poison", "hello")]
    scores = [scorer.score(batch) for batch in batches]
    warm = {4: 16, 8: 8, 12: 5, 16: 4}
    split = [(3, 4)] + [(2, 4)] * 4  # the call with the poison: without idle rows, then in halves of two rows or more
    assert {length: rows for rows, length in session.shapes[:4]} == warm
    assert [(rows, length) for rows, length in session.shapes if rows != warm[length]] == split
    for batch, score in zip(batches, scores, strict=True):
        assert np.array_equal(score.logits, on_cpu.score(batch).logits, equal_nan=True)


def test_providers_that_disagree_are_refused(make_scorer: MakeScorer) -> None:
    """A scorer whose logits for known texts are not those of the reference is refused; one that agrees is not."""
    scorer = make_scorer()
    scorer.refuse_difference(make_scorer())
    with pytest.raises(ProviderError, match=r"on cpu a probe.s logit differs by .* Export an artefact"):
        scorer.refuse_difference(make_scorer(model="swayed.onnx"))


def test_no_events_give_no_scores(make_scorer: MakeScorer) -> None:
    """An empty batch gives empty arrays of the usual shape and dtype."""
    scores = make_scorer().score(batch_of())
    assert scores.logits.shape == (0, 2)
    assert scores.conditions.dtype == np.uint8
    assert scores.windows.dtype == np.int16


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("renamed_output.onnx", "outputs are scores tensor.float. of rank 2, not logits"),
        ("int32_inputs.onnx", "inputs are attention_mask tensor.int32. of rank 2"),
        ("fixed_shape.onnx", "takes input_ids of 1 along axis 0 only"),
        ("one_row_for_all.onnx", r"gives logits of shape \(1, 2\), not \(8, 2\)"),
        ("build_models.py", "is not an ONNX model"),
    ],
)
def test_a_model_with_another_interface_is_refused(make_scorer: MakeScorer, model: str, what: str) -> None:
    """A model whose inputs or outputs are not the ones we feed and read is refused at load, saying which."""
    with pytest.raises(BundleError, match=what):
        make_scorer(model=model)


def test_a_model_with_other_harms_is_refused(make_scorer: MakeScorer) -> None:
    """A model with more or fewer logits than the manifest has harms is refused at load."""
    with pytest.raises(BundleError, match="has 2 along axis 1 of logits, its manifest makes that 3"):
        make_scorer(harms=["hate", "violence", "sexual"])


def test_a_tokenizer_of_another_model_is_refused(make_scorer: MakeScorer) -> None:
    """A tokenizer with ids beyond the model's embedding table is refused at load, not when such a word arrives."""
    with pytest.raises(BundleError, match=r"tokenizer.s tokens"):
        make_scorer(words=[*WORDS, "one-too-many"])


def test_a_model_that_gives_no_number_for_plain_text_is_refused(make_scorer: MakeScorer) -> None:
    """A model without finite logits for a plain sentence cannot serve, and says so at load."""
    with pytest.raises(ScoringError, match="no finite logits for a plain sentence"):
        make_scorer(words=["plain", "[CLS]", "[SEP]", "[UNK]"])  # unknown words have the id that the model gives NaN


@pytest.mark.skipif(HAS_CUDA, reason="CUDA is there")
def test_cuda_that_is_not_there_is_refused(make_scorer: MakeScorer) -> None:
    """Asked for CUDA where there is none, loading fails and says what to install; it never serves from the CPU."""
    with pytest.raises(
        ProviderError, match=r"CUDA does not run here.*nvidia-smi.*onnxruntime-gpu.*set provider to cpu"
    ):
        make_scorer(provider="cuda")


def test_a_session_on_another_provider_is_refused() -> None:
    """A session that came back on the CPU is refused, in the runtime's own words where it gave any."""
    with pytest.raises(ProviderError, match=r"fell back to CPUExecutionProvider. Failed to load libcublas"):
        refuse_other_provider(["CPUExecutionProvider"], missing="Failed to load libcublas.so.13")
    refuse_other_provider(["CUDAExecutionProvider", "CPUExecutionProvider"], missing="")


def test_only_shapes_may_be_computed_elsewhere() -> None:
    """Operators off the GPU are accepted if they compute shapes, and named in the error if they do more."""
    refuse_operators_elsewhere(Counter({"Shape": 4, "Gather": 2, "Concat": 1}))
    with pytest.raises(ProviderError, match=r"MatMul \(12\), Softmax \(6\)"):
        refuse_operators_elsewhere(Counter({"Shape": 4, "Softmax": 6, "MatMul": 12}))
