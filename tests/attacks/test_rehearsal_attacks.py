"""Bundles that only show what they are when they are tried: in a process of its own, which they may kill."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers

from stream.bundle import load
from stream.errors import BundleError
from stream.scoring.rehearsal import Limits, rehearse
from tests.bundles import LITE, UNSIGNED, copy_of_lite, edit_manifest, replace_listed
from tests.protobuf import message, model, node, tensor

SHORT = Limits(processor_s=20.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound bundle, to be tampered with by somebody who can sign."""
    return copy_of_lite(tmp_path / "bundle", signed=False)


def refused(folder: Path, limits: Limits = SHORT) -> str:
    """What is said after the rehearsal of a bundle that passes every look at its files."""
    bundle = load(folder, UNSIGNED)
    with pytest.raises(BundleError) as raised:
        rehearse(bundle, limits)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def with_tokenizer(folder: Path, change: Callable[[Tokenizer], None]) -> None:
    """Replace the bundle's tokenizer by a changed one."""
    tokenizer = Tokenizer.from_str((LITE / "tokenizer.json").read_text())
    change(tokenizer)
    replace_listed(folder, {"tokenizer.json": tokenizer.to_str().encode()})


def test_the_sound_copy_scores_as_it_did(folder: Path) -> None:
    """The bundle that the attacks below start from is itself sound."""
    assert rehearse(load(folder, UNSIGNED)) < 0.001


def _lengthen(times: int) -> Callable[[Tokenizer], None]:
    """Rules that make a rare letter as many as two to the power of `times`."""

    def change(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizers.Sequence([*[normalizers.Replace("ж", "жж")] * times, tokenizer.normalizer])

    return change


def test_tokenizer_that_takes_seconds_per_text(folder: Path) -> None:
    """A rule that makes a rare character a hundred is found by a text of that character, and named with its time."""
    with_tokenizer(folder, _lengthen(7))
    said = refused(folder)
    assert re.search(r"takes \d+\.\d s for one long text, 0\.5 s are allowed; the text repeats '\\u0436'", said)


def test_tokenizer_that_takes_minutes_per_text(folder: Path) -> None:
    """One that would take minutes is stopped by the processor time that a rehearsal may take."""
    with_tokenizer(folder, _lengthen(12))
    assert "took more than 3 s of processor time when tried" in refused(
        folder, Limits(processor_s=3.0, processor_s_per_model_mb=0, wall_factor=20.0)
    )


def _backtrack(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex("(щ+)+$"), ""), tokenizer.normalizer])


def test_tokenizer_that_backtracks(folder: Path) -> None:
    """A regular expression that backtracks without end, in a process where that stalls nobody, is refused."""
    with_tokenizer(folder, _backtrack)
    assert "Onig: Regex search error" in refused(folder)


def test_tokenizer_that_is_none(folder: Path) -> None:
    """A tokenizer file that the library cannot read is refused with the library's reason."""
    replace_listed(folder, {"tokenizer.json": b'{"model": {"type": "WordPiece"}}'})
    assert "tokenizer" in refused(folder)


def test_graph_that_asks_for_a_terabyte(folder: Path) -> None:
    """A graph of a few hundred bytes that fills memory with zeros is stopped at the limit, and the limit named."""
    sizes = message((1, 2), (2, 7), (8, "sizes"), (9, (2**19).to_bytes(8, "little") * 2))
    zeros = message((1, "sizes"), (2, "zeros"), (4, "ConstantOfShape"))
    graph = message(
        (1, zeros),
        (
            1,
            message(
                (1, "zeros"), (1, "axes"), (2, "none"), (4, "ReduceSum"), (5, message((1, "keepdims"), (3, 1), (20, 2)))
            ),
        ),
        (1, message((1, "input_ids"), (2, "cast"), (4, "Cast"), (5, message((1, "to"), (3, 1), (20, 2))))),
        (
            1,
            message(
                (1, "cast"), (1, "axis"), (2, "sum"), (4, "ReduceSum"), (5, message((1, "keepdims"), (3, 1), (20, 2)))
            ),
        ),
        (1, message((1, "sum"), (1, "none"), (2, "one"), (4, "Add"))),
        (1, message(*((1, "one"),) * 6, (2, "logits"), (4, "Concat"), (5, message((1, "axis"), (3, 1), (20, 2))))),
        (2, "g"),
        (5, sizes),
        (5, message((1, 2), (2, 7), (8, "axes"), (9, (0).to_bytes(8, "little") + (1).to_bytes(8, "little")))),
        (5, message((1, 1), (2, 7), (8, "axis"), (9, (1).to_bytes(8, "little")))),
        (11, _int64("input_ids")),
        (11, _int64("attention_mask")),
        (12, _value("logits", 1, "rows", 6)),
    )
    replace_listed(folder, {"model.onnx": message((1, 9), (7, graph), (8, message((2, 17))))})
    said = refused(folder)
    assert "memory" in said.lower() or "alloc" in said.lower(), said


def _value(name: str, element: int, *dims: str | int) -> bytes:
    shape = message(*((1, message((2, dim) if isinstance(dim, str) else (1, dim))) for dim in dims))
    return message((1, name), (2, message((1, message((1, element), (2, shape))))))


def _int64(name: str) -> bytes:
    return _value(name, 7, "rows", "tokens")


def test_model_with_other_inputs(folder: Path) -> None:
    """A model that parses and is not ours is refused with what it takes and gives."""
    replace_listed(folder, {"model.onnx": model((1, node("Identity")), (5, tensor(2, 2, raw=bytes(16))))})
    assert "export it again" in refused(folder)


def _change_golden(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    golden = json.loads((folder / "golden.json").read_bytes())
    change(golden)
    replace_listed(folder, {"golden.json": json.dumps(golden).encode()})


def _shift(golden: dict[str, object]) -> None:
    golden["expected"]["cpu"]["logits"][3][1] += 1.0  # type: ignore[index] # a matrix, as json gives it


def on_cpu(tolerance: float, logits: list[list[float]]) -> dict[str, object]:
    """What a golden batch says of one provider."""
    return {"cpu": {"tolerance": tolerance, "logits": logits}}


def test_model_that_scores_something_else(folder: Path) -> None:
    """A model whose golden logits differ beyond the stated tolerance is refused with event, harm and both figures."""
    _change_golden(folder, _shift)
    assert "scores golden event 3 differently here: on cpu the logit of hate is" in (said := refused(folder))
    assert "0.05 apart is allowed" in said


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("expected", on_cpu(2, [[0.0] * 6] * 16), "expected.cpu.tolerance: Input should be less than or equal to 1"),
        ("expected", on_cpu(0.1, [[0.0] * 6]), "has not a row on cpu for each of 16 events"),
        ("expected", on_cpu(0.1, [[0.0] * 5] * 16), "a logit for each of 6 harms"),
        ("expected", {}, "at least 1 item"),
        ("events", [], "at least 1 item"),
        ("events", ["{}"] * 65, "at most 64 items"),
        ("events", ["no json"] * 16, "golden event 0 is no event"),
        ("schema_version", 2, "reads up to 1: upgrade"),
    ],
)
def test_golden_batch_that_proves_nothing(folder: Path, field: str, value: object, complaint: str) -> None:
    """A golden batch with no bound, no rows or no events is refused, since anything would pass it."""
    _change_golden(folder, lambda golden: golden.__setitem__(field, value))
    with pytest.raises(BundleError, match=complaint):
        rehearse(load(folder, UNSIGNED), SHORT)


def test_no_golden_batch(folder: Path) -> None:
    """A bundle without golden batch is refused with the advice to pack it again."""

    def drop(manifest: dict[str, object]) -> None:
        del manifest["golden"]

    edit_manifest(folder, drop)
    with pytest.raises(BundleError, match=r"holds no golden batch, .* pack it again"):
        rehearse(load(folder, UNSIGNED))


def test_the_environment_stays_outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that a bundle is tried in sees no password of ours."""
    seen: dict[str, str] = {}
    real = subprocess.Popen

    def watch(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:  # Any: whatever Popen takes
        seen.update(keywords["env"])
        return real(*arguments, **keywords)

    monkeypatch.setenv("FAIRWAY_SASL_PASSWORD", "quagga")
    monkeypatch.setattr(subprocess, "Popen", watch)
    rehearse(load(folder, UNSIGNED))
    assert set(seen) == {"PYTHONPATH", "ORT_DISABLE_TELEMETRY"}


def test_out_of_patience(folder: Path) -> None:
    """A rehearsal that does not end is ended."""
    assert re.search(r"was not ready after 0\.06\d* s", refused(folder, Limits(wall_factor=0.001)))


def test_out_of_memory(folder: Path) -> None:
    """A bundle that needs more memory than it may is refused, whatever the libraries make of that: some hang."""
    assert refused(folder, Limits(memory_bytes=1024 * 1024, memory_per_model_byte=0, processor_s=8.0, wall_factor=1.0))
