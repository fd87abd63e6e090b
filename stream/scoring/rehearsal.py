"""A bundle is tried in a process of its own before it may run in this one: what kills or stalls that one harms nobody.

No look at a file can tell how much memory a graph will ask for or how long a tokenizer takes: a graph of 300 bytes can
fill a terabyte with zeros, a replacement rule can make a text ten thousand times as long. So the parsers of ONNX
Runtime and `tokenizers` meet a bundle first in a child process with limits of memory and processor time. There the
tokenizer reads texts as long and as awkward as come, those that its own rules ask for among them, and the model scores
the golden batch on the CPU.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stream.bundle import Bundle
from stream.bundle.load import assemble
from stream.errors import BundleError, FairwayError
from stream.scoring.charsmap import longest_replaced
from stream.scoring.golden import golden_of, refuse_other_logits
from stream.scoring.opening import open_scorer
from stream.scoring.policy import read_questions
from stream.scoring.tokenize import TokenizeError, WindowTokenizer

__all__ = ["Limits", "rehearse"]

STRESS_CHARACTERS = 200_000
"""Length of the texts that a tokenizer is timed with, before it cuts them as it does every text."""

MAX_PATTERNS = 4096
"""Rules of a tokenizer that texts are made for: a map of all emoji has 3,600."""

ATTENTION_BYTES = 4 * 1024**3
"""More memory for a language model: attention has the square of a row's tokens, for each head, several times over. With
12 heads and rows of 2,300 tokens, 250 MB of weights took 3.8 GB in all (measured)."""

BATCH_TOKENS = 2048
"""Token budget of a call in the rehearsal: the golden batch is small."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rehearsal may take."""

    memory_bytes: int = 2 * 1024**3
    """Beyond what the libraries take themselves; scoring a few short texts takes a tenth of it."""
    memory_per_model_byte: float = 6.0
    """And this much for each byte of the model: its bytes, their parsed form, and weights packed for the kernels."""
    processor_s: float = 60.0
    """A linear model takes one second, MiniLM two."""
    processor_s_per_model_mb: float = 2.0
    """And this much more for each megabyte of the model: to warm up and read 16 golden events, a language model reads
    20,000 tokens; one of 250 MB took a tenth of a second a megabyte (measured), and a busy core is far slower."""
    wall_factor: float = 3.0
    """Time on the clock, in processor times: for a machine on which others are busy as well."""
    text_s: float = 0.5
    """Processor time for one text; the longest take 5 ms with WordPiece, 100 ms with a slow one of 32,000 pieces."""

    def seconds(self, model_bytes: int) -> float:
        """Processor time for a bundle of this size."""
        return self.processor_s + self.processor_s_per_model_mb * model_bytes / 1e6


def rehearse(bundle: Bundle, limits: Limits | None = None) -> float:
    """Try a verified bundle in a child process; give the largest difference from its golden logits on the CPU.

    Raises `BundleError`: what was wrong, or which limit it broke.
    """
    limits = limits or Limits()
    manifest = bundle.manifest
    if manifest.input.kind == "policy":
        limits = replace(limits, memory_bytes=limits.memory_bytes + ATTENTION_BYTES)
    golden_of(bundle)  # before a process is started to no end
    needed = {manifest.calibration, *manifest.artefacts.values()}
    needed |= {name for name in (manifest.tokenizer, manifest.golden) if name is not None}
    needed |= {manifest.input.templates} if manifest.input.kind == "policy" else set()
    contents = {name: bundle.contents[name] for name in sorted(needed)}
    head = {
        "path": str(bundle.path),
        "manifest": bundle.manifest_bytes.decode(),
        "sizes": {name: len(content) for name, content in contents.items()},
        "limits": asdict(limits),
    }
    payload = b"".join((json.dumps(head).encode(), b"\n", *contents.values()))
    answer = _ask_child(payload, limits, what=str(bundle.path))
    if "error" in answer:
        raise BundleError(str(answer["error"]))
    return float(answer["difference"])


def _ask_child(payload: bytes, limits: Limits, *, what: str) -> dict[str, Any]:  # Any: the child's JSON
    processor_s = limits.seconds(len(payload))
    wall_s = limits.wall_factor * processor_s
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "stream.scoring.rehearsal"],
        # Nothing of our environment, which may hold a password, reaches what is only about to be trusted.
        env={"PYTHONPATH": os.pathsep.join(sys.path), "ORT_DISABLE_TELEMETRY": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            out, _ = child.communicate(payload, timeout=wall_s)
        except subprocess.TimeoutExpired:
            raise BundleError(
                f"{what} was not ready after {wall_s:g} s when tried in a process of its own: try again on a "
                "machine less busy, or export it smaller"
            ) from None
        finally:
            child.kill()
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError:
        raise BundleError(f"{what} {_how_it_died(child.returncode, processor_s)}: export it again") from None
    return answer


def _how_it_died(status: int, processor_s: float) -> str:
    tried = "when tried in a process of its own"
    if status == -signal.SIGXCPU:
        return f"took more than {processor_s:.0f} s of processor time {tried}"
    if status < 0:
        return f"brought down the process ({signal.Signals(-status).name}) {tried}, as a lack of memory does"
    return f"ended the process with status {status} {tried}"


def _play() -> dict[str, Any]:  # Any: JSON
    """In the child: read the bundle from standard input, and say how it went."""
    head = json.loads(sys.stdin.buffer.readline())
    contents = {name: sys.stdin.buffer.read(size) for name, size in head["sizes"].items()}
    limits = Limits(**head["limits"])
    _limit(limits, sum(map(len, contents.values())))
    name = head["path"]
    try:
        bundle = assemble(Path(name), head["manifest"].encode(), contents, signer=None)
        _refuse_slow_tokenizer(bundle, limits, name)
        scorer = open_scorer(bundle, provider="cpu", max_batch_tokens=BATCH_TOKENS)
        return {"difference": refuse_other_logits(scorer, golden_of(bundle), provider="cpu", name=name)}
    except FairwayError as error:
        return {"error": str(error) if name in str(error) else f"{name}: {error}"}
    except MemoryError:
        return {"error": f"{name} asked for more memory than a bundle of its size may: export it again"}
    # A panic in `tokenizers` is a BaseException.
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer
        return {"error": f"{name} cannot be used: {type(error).__name__}: {error}; export it again"}


def _limit(limits: Limits, model_bytes: int) -> None:
    """Bound this process: it can raise neither limit again. Core files would be as large as the memory."""
    seconds = round(limits.seconds(model_bytes))
    # The signal of the soft limit says why it came, that of the hard one is the same as for anything else.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    allowance = limits.memory_bytes + int(limits.memory_per_model_byte * model_bytes)
    try:
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return  # not Linux: no way to say what is mapped already, and on macOS the limit is not kept either
    resource.setrlimit(resource.RLIMIT_AS, (mapped + allowance, mapped + allowance))


def _refuse_slow_tokenizer(bundle: Bundle, limits: Limits, name: str) -> None:
    if bundle.manifest.tokenizer is None:
        return
    content = bundle.read(bundle.manifest.tokenizer)
    read = _reader(bundle)
    for unit in _awkward_units(content):
        # Without end, and ending again and again: a rule that backtracks does so where what it repeats has stopped.
        texts = [(part * (STRESS_CHARACTERS // len(part) + 1))[:STRESS_CHARACTERS] for part in (unit, unit * 40 + "! ")]
        started_at = time.thread_time()
        failures = read(texts)
        taken_s = (time.thread_time() - started_at) / len(texts)
        if failures:
            raise BundleError(
                f"{bundle.manifest.tokenizer} of {name} cannot read {unit[:20]!a} repeated: {failures[0]}"
            )
        if taken_s > limits.text_s:
            raise BundleError(
                f"{bundle.manifest.tokenizer} of {name} takes {taken_s:.1f} s for one long text, {limits.text_s:g} s "
                f"are allowed; the text repeats {unit[:20]!a}: mend the rule of the tokenizer that this makes slow"
            )


def _reader(bundle: Bundle) -> Callable[[list[str]], list[TokenizeError]]:
    """What reads texts as the bundle's scorer will, and says what came in between."""
    manifest, given = bundle.manifest, bundle.manifest.input
    if given.kind == "text" and manifest.tokenizer is not None:
        tokenizer = WindowTokenizer.of(bundle.read(manifest.tokenizer), given)
        return lambda texts: list(tokenizer.read(texts).failures.values())
    questions = read_questions(bundle)

    def ask(texts: list[str]) -> list[TokenizeError]:
        asked = [questions.read(texts, roles=[role] * len(texts), prompts=texts) for role in sorted(questions.roles)]
        return [error for rows in asked for error in rows.failures.values()]

    return ask


def _awkward_units(tokenizer: bytes) -> Iterator[str]:
    """What texts are made of by repetition: common kinds of character, and whatever the tokenizer has rules for."""
    yield from (
        "a",
        " ",
        "a ",
        "é",
        "字",
        "9",
        ".",
        "\u0301",
        "\u200b",
        "😀",
        "The quick brown fox, 12 times! ",
        "ab-_@",
    )
    document = json.loads(tokenizer)
    yield from longest_replaced(document)
    rules = list(dict.fromkeys(_patterns(document)))
    if len(rules) > MAX_PATTERNS:
        raise BundleError(f"the tokenizer has {len(rules)} rules that replace or split, {MAX_PATTERNS} at most")
    yield from dict.fromkeys("".join(pattern for pattern, is_regex in rules if is_regex))
    texts = [pattern for pattern, is_regex in rules if pattern and not is_regex]
    if texts:
        yield "".join(texts)
        # One rule may lengthen what the next one looks for, so each has a text of its own as far as time allows.
        yield from texts[:64]


def _patterns(value: Any) -> Iterator[tuple[str, bool]]:  # Any: JSON
    """Every pattern in a tokenizer file, and whether it is a regular expression."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if isinstance(text := item.get("String"), str):
                yield text, False
            if isinstance(text := item.get("Regex"), str):
                yield text, True
            pending += [part for key, part in item.items() if key not in {"vocab", "merges"}]
        elif isinstance(item, list):
            pending += item


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_play()))
