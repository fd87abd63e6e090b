"""The benchmark on a GPU, as far as it goes without one: workload, rows, binding, refusals, what is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Tokenizer

from ops.bench.gpu import __main__ as command
from ops.bench.gpu import machine
from ops.bench.gpu.forms import SHIPPED, Form, _derive, shipped_form
from ops.bench.gpu.graphs import Bucket, largest_difference, measure_bucket
from ops.bench.gpu.numeric import compare_decisions
from ops.bench.gpu.rows import Reason, Report, Row, as_json, as_markdown, as_table, attempt
from ops.bench.gpu.sessions import Bound, open_bare, placement, run_bare
from ops.bench.gpu.workload import events_of, inputs_of, random_inputs, texts_of, tokenizer_of
from ops.bench.turns import best_in_turns
from stream.bundle import Bundle, load
from stream.errors import BundleError, ProviderError
from stream.pipeline import Moderated
from stream.scoring.session import CPU
from stream.scoring.tokenize import ModelInputs
from stream.settings import Settings
from tests.bundles import LITE, TRUST, lite

MODERATOR = LITE.with_name("moderator")
HAS_CUDA = Path("/dev/nvidiactl").exists()
ROWS = (
    Row("guard", SHIPPED, note="accepted | on [cpu]"),
    Row("speed", SHIPPED, "32 x 8", 1500.0, 2000.0, "texts/s"),
    Row("decisions", "bfloat16", "64 texts", 0.0, unit="share"),
)
DRY = Report({"bundle": "moderator 1", "gpu": "not known"}, ROWS, is_dry=True)


@cache
def moderator() -> Bundle:
    return load(MODERATOR, TRUST)


@cache
def model() -> bytes:
    """A model with the inputs and output of any bundle of text; small, and the same kernels on any machine."""
    return lite().read(lite().manifest.artefacts["cpu"])


def bound(rows: int = 3, length: int = 5) -> Bound:
    session = open_bare(model(), "cpu")
    return Bound(session, "cpu", rows=rows, length=length, harms=len(lite().manifest.harms), graph=1)


# The workload


@pytest.mark.parametrize("length", [3, 4, 32, 128, 256])
def test_texts_have_exactly_the_tokens_asked_for(length: int) -> None:
    """With its special tokens, each text has the length, as the tokenizer itself counts."""
    texts = texts_of(tokenizer_of(moderator()), length=length, count=20)
    tokenizer = Tokenizer.from_buffer(moderator().read("tokenizer.json"))
    tokenizer.no_truncation()
    assert [len(tokenizer.encode(text).ids) for text in texts] == [length] * 20
    assert texts == texts_of(tokenizer_of(moderator()), length=length, count=20)


def test_texts_longer_than_a_window_are_refused() -> None:
    """A text that would be read in two windows is no text of one length."""
    with pytest.raises(BundleError, match="up to 300"):
        texts_of(tokenizer_of(moderator()), length=300, count=1)


def test_both_sides_get_the_same_tokens() -> None:
    """The arrays for the runtime alone hold the texts that the scorer's events hold, unpadded and in order."""
    tokenizer = tokenizer_of(moderator())
    texts = texts_of(tokenizer, length=32, count=7)
    calls = inputs_of(tokenizer, texts, length=32, rows=3)
    assert [call.input_ids.shape for call in calls] == [(3, 32), (3, 32), (1, 32)]
    assert all(call.attention_mask.all() for call in calls)
    expected = Tokenizer.from_buffer(moderator().read("tokenizer.json"))
    expected.no_padding()
    assert np.concatenate([call.input_ids for call in calls]).tolist() == [expected.encode(text).ids for text in texts]
    assert list(events_of(texts, Settings.model_validate({})).texts) == texts


# Rows and what they are written as


def test_a_ratio_is_of_both_sides() -> None:
    """Measured by against; none where a side is missing."""
    assert [row.ratio for row in ROWS] == [None, 0.75, None]


def test_markdown_has_a_line_per_row_and_says_what_it_was_measured_on() -> None:
    """A bar within a cell is escaped, figures have their unit, and a dry run says so first."""
    lines = as_markdown(DRY).splitlines()
    assert lines[0] == "# DRY RUN ON THE CPU: no figure below says anything about a GPU"
    assert lines[4:7] == [
        "| guard | float16 |  |  |  |  | accepted \\| on [cpu] |",
        "| speed | float16 | 32 x 8 | 1,500 texts/s | 2,000 | 0.75 |  |",
        "| decisions | bfloat16 | 64 texts | 0.00% |  |  |  |",
    ]
    assert "- gpu: not known" in lines


def test_json_has_the_figures_as_measured() -> None:
    """Numbers are not rounded, and what is not there is null."""
    read = json.loads(as_json(DRY))
    assert read["dry_run"] is True
    assert [(row["measured"], row["ratio"]) for row in read["rows"]] == [(None, None), (1500.0, 0.75), (0.0, None)]


def test_the_table_on_screen_shows_brackets() -> None:
    """An error that begins with its kind in brackets is shown whole, not read as a style."""
    out = StringIO()
    Console(file=out, width=160).print(as_table(DRY))
    assert "accepted | on [cpu]" in out.getvalue()


def test_a_run_on_a_gpu_is_titled_by_it() -> None:
    """The title of a real run names bundle and GPU."""
    report = Report({"bundle": "moderator 1", "gpu": "NVIDIA H200"}, ROWS, is_dry=False)
    assert report.title == "moderator 1 on NVIDIA H200"


@pytest.mark.parametrize("error", [BundleError("two\n  lines"), RuntimeError("two\nlines"), MemoryError("two lines")])
def test_a_refusal_is_a_reason_on_one_line(error: Exception) -> None:
    """What the service or the runtime refuses becomes text for a row."""

    def refuse() -> None:
        raise error

    assert attempt(refuse) == Reason("two lines")


def test_a_mistake_of_the_benchmark_is_not_hidden() -> None:
    """Another exception is a bug here, and stops it."""
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 / 0)


def test_a_long_reason_is_cut() -> None:
    """A runtime's page of text does not fill the table."""

    def refuse() -> None:
        raise BundleError("x" * 1000)

    assert len(cast(Reason, attempt(refuse)).text) == 303


# Timing


def test_the_best_of_turns_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are made alternately, and of each the least time counts."""
    called: list[str] = []
    clock = iter([0.0, 5.0, 5.0, 6.0, 6.0, 8.0, 8.0, 12.0])
    monkeypatch.setattr("ops.bench.turns.time.perf_counter", lambda: next(clock))
    assert best_in_turns([lambda: called.append("a"), lambda: called.append("b")], rounds=2) == [2.0, 1.0]
    assert called == ["a", "b", "a", "b"]


# Sessions


def test_every_operator_is_placed() -> None:
    """On the CPU all operators are the CPU's; their names are those of the model."""
    found = placement(open_bare(model(), "cpu"))
    assert set(found) == {CPU}
    assert found[CPU].total() > 0


def test_bound_memory_is_read_anew() -> None:
    """A bound session gives the logits of a plain call for whatever was copied in last."""
    batches = [random_inputs(rows=3, length=5, seed=seed) for seed in range(4)]
    plain = open_bare(model(), "cpu")
    expected = [run_bare(plain, batch)() for batch in batches]
    assert not np.allclose(expected[0], expected[1])
    assert largest_difference(bound(), batches, expected) < 1e-6


def test_a_replay_of_stale_inputs_is_refused() -> None:
    """Where later inputs are not read, the speed is not reported."""

    class Stale(Bound):
        def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
            self.first = getattr(self, "first", inputs)
            return super().run(self.first)

    batches = [random_inputs(rows=3, length=5, seed=seed) for seed in range(2)]
    expected = [run_bare(open_bare(model(), "cpu"), batch)() for batch in batches]
    stale = Stale(open_bare(model(), "cpu"), "cpu", rows=3, length=5, harms=len(lite().manifest.harms))
    reason = attempt(largest_difference, stale, batches, expected)
    assert isinstance(reason, Reason)
    assert "inputs are not read anew" in reason.text


def test_not_a_number_is_no_agreement() -> None:
    """Logits that are not finite are refused, not compared."""
    batches = [random_inputs(rows=3, length=5, seed=0)]
    nothing = np.full((3, len(lite().manifest.harms)), np.nan, dtype=np.float32)
    assert isinstance(attempt(largest_difference, bound(), batches, [nothing]), Reason)


def test_another_shape_than_the_bound_one_is_refused() -> None:
    """Inputs of another shape are refused, where a graph would give the answer of its own shape."""
    with pytest.raises(RuntimeError):
        bound().run(random_inputs(rows=2, length=5, seed=0))


def test_a_bucket_is_timed_both_ways() -> None:
    """Both sides of a bucket give texts per second, and how far they are from a plain call."""
    sessions = open_bare(model(), "cpu"), open_bare(model(), "cpu", graphs=True)
    harms = len(lite().manifest.harms)
    speed = measure_bucket(*sessions, "cpu", Bucket(graph=3, length=8, rows=4), harms=harms, rounds=2)
    assert speed.replayed > 0
    assert speed.launched > 0
    assert speed.apart < 1e-6


# Forms


def test_a_bundle_without_an_artefact_for_cuda_is_refused() -> None:
    """There is nothing to compare, and the error names a bundle that has one."""
    with pytest.raises(BundleError, match=r"no artefact for cuda.*models/moderator"):
        shipped_form(lite())


def test_what_cannot_be_derived_says_why() -> None:
    """Bytes that are no model, or a machine without `onnx`, make a form that refuses with the error's last line."""
    form = _derive(b"no model", "float32")
    with pytest.raises(BundleError, match=r"could not be made of the artefact: .*(Error|onnx|float16)"):
        form.model()


def test_the_shipped_form_is_the_artefact() -> None:
    """Not a byte of it is changed."""
    assert shipped_form(moderator()) == Form("float16", moderator().read("cuda-fp16.onnx"))


# Decisions


def test_differences_are_those_of_the_columns() -> None:
    """The largest difference of any probability, and the share of texts with any selection turned."""

    def moderated(probabilities: list[list[float]], selections: list[list[int]]) -> Moderated:
        return cast(Moderated, SimpleNamespace(probabilities=np.array(probabilities), selections=np.array(selections)))

    one = moderated([[0.1, 0.9], [0.5, 0.2], [0, 0], [0, 0]], [[0, 1], [2, 0], [0, 0], [0, 0]])
    other = moderated([[0.1, 0.6], [0.5, 0.3], [0, 0], [0, 0]], [[0, 2], [2, 0], [0, 0], [0, 0]])
    found = compare_decisions(one, other)
    assert found.probability == pytest.approx(0.3)
    assert found.turned == 0.25


# The command


Run = Callable[..., None]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command with arguments; reports go to a folder of the test's own."""
    monkeypatch.setattr(command, "REPORT", tmp_path / "real.json")
    monkeypatch.setattr(command, "DRY_REPORT", tmp_path / "new" / "dry.json")

    def run(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["gpu", *map(str, arguments)])
        command.main()

    return run


@pytest.mark.skipif(HAS_CUDA, reason="CUDA is there")
def test_without_cuda_nothing_is_measured(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what to do, before anything else is tried; nothing is written."""
    with pytest.raises(SystemExit) as stopped:
        run(MODERATOR)
    assert stopped.value.code == 2
    said = " ".join(capfd.readouterr().err.split())
    assert "CUDA does not run here" in said
    assert "nvidia-smi" in said
    assert "`--provider cpu` tries the benchmark itself out" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(HAS_CUDA, reason="CUDA is there")
@pytest.mark.parametrize("graphs", [False, True])
def test_the_runtime_alone_does_not_fall_back_either(*, graphs: bool) -> None:
    """A bare session that ONNX Runtime would put on the CPU is refused."""
    with pytest.raises(ProviderError, match="CUDA does not run here"):
        open_bare(model(), "cuda", graphs=graphs)


@pytest.mark.parametrize("bundle", [LITE, LITE.with_name("none")])
def test_a_bundle_that_cannot_be_measured_is_an_error(
    run: Run, capfd: pytest.CaptureFixture[str], bundle: Path
) -> None:
    """Exit code 2 for a bundle with nothing for CUDA, and for none."""
    with pytest.raises(SystemExit) as stopped:
        run(bundle, "--provider", "cpu")
    assert stopped.value.code == 2
    assert "bundle" in capfd.readouterr().err


def test_a_dry_run_is_written_as_one(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its report has a name of its own, so that nobody takes it for one of a GPU; a table is for who asks for it."""

    def measure(*_: Any, **__: Any) -> Any:  # Any: whatever the command passes
        return iter(ROWS)

    monkeypatch.setattr(command, "measure", measure)
    run(MODERATOR, "--provider", "cpu", "--texts", "8", "--table", tmp_path / "table.md")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["dry.json", "table.md"]
    written = json.loads((tmp_path / "new" / "dry.json").read_text())
    assert (written["dry_run"], written["texts"], written["bundle"]) == (True, 8, "moderator 1")
    assert (tmp_path / "table.md").read_text().startswith("# DRY RUN ON THE CPU")
    run(MODERATOR, "--provider", "cuda")
    assert json.loads((tmp_path / "real.json").read_text())["dry_run"] is False


# The machine


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU and driver as the driver's tool gives them; versions of what computes; when."""
    said = SimpleNamespace(stdout="NVIDIA H200, 580.159.04, 143771 MiB\n")
    monkeypatch.setattr("ops.bench.gpu.machine.subprocess.run", lambda *_, **__: said)
    about = machine.about_machine()
    assert (about["gpu"], about["driver"], about["gpu_memory"]) == ("NVIDIA H200", "580.159.04", "143771 MiB")
    assert {"cpu", "cores", "python", "onnxruntime", "cuda_of_onnxruntime", "fairway", "date"} <= about.keys()


@pytest.mark.parametrize("said", ["", "No devices were found\n"])
def test_a_machine_without_a_gpu_is_described_too(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Where the driver's tool says nothing of use, GPU and driver are not known."""
    monkeypatch.setattr("ops.bench.gpu.machine.subprocess.run", lambda *_, **__: SimpleNamespace(stdout=said))
    assert machine.about_machine()["gpu"] == "not known"


def test_a_machine_without_the_drivers_tool_is_described_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no nvidia-smi, GPU and driver are not known."""
    monkeypatch.setattr(machine, "_QUERY", ("no-such-command",))
    assert machine.about_machine()["driver"] == "not known"
