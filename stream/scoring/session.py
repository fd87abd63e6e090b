"""One ONNX model on exactly the execution provider that was asked for; the only module that imports onnxruntime.

ONNX Runtime would rather run a model somewhere than not at all. Asked for CUDA alone on a machine without it, it gives
a session on the CPU and says so in a log line, whatever `enable_fallback` is; `get_available_providers()` lists CUDA
even without a driver. So every step that could move work to another provider is checked here, and refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from stream.errors import BundleError, ProviderError, ScoringError
from stream.scoring.tokenize import ModelInputs

# ONNX Runtime 1.31 reports to its maker from the moment it is imported, and keeps a file for it in the temporary
# folder. `disable_telemetry_events` comes too late to prevent either.
os.putenv("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as capi

__all__ = [
    "OnnxSession",
    "Provider",
    "RunError",
    "Signature",
    "answers_questions",
    "open_session",
    "reads_pixels",
    "reads_tokens",
]

Provider = Literal["cpu", "cuda"]

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
LOG_FATAL: Final = 4
"""Errors reach us as exceptions; ONNX Runtime's own lines on stderr would repeat them between the structured logs."""

CUDA_OPTIONS: Final = {
    "use_tf32": "0",  # Calibration was fitted on float32; TF32 moves logits by a thousandth and saves us nothing.
    "arena_extend_strategy": "kSameAsRequested",  # Growing by doubling would hit the memory limit at half of it.
}

SLOW_ON_CPU: Final = ["SkipLayerNormFusion", "BiasSkipLayerNormFusion", "EmbedLayerNormFusion"]
"""The CPU kernel of the fused layer norm is 5 to 9 times slower than the operators it replaces (measured, 1.31)."""

SHAPE_OPERATORS: Final = (
    frozenset({"Cast", "Concat", "Constant", "ConstantOfShape", "Equal", "Expand", "Gather", "Identity"})
    | {"Range", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Unsqueeze", "Where"}
)  # fmt: skip
"""Arithmetic on shapes is put on the CPU on purpose, since the result is needed there. Nothing else may be."""

# ONNX Runtime's exceptions have no common base. RuntimeError and MemoryError are C++ exceptions that it lets through.
RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(error for error in vars(capi).values() if isinstance(error, type) and issubclass(error, Exception)),
    RuntimeError,
    MemoryError,
)

Shape = tuple[int | None, ...]
"""None is a size that every call may choose anew."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Names, types and shapes of what a model takes and gives. ONNX's names of types: `tensor(float)` is float32."""

    inputs: Mapping[str, tuple[str, Shape]]
    outputs: Mapping[str, tuple[str, Shape]]


def reads_tokens(harms: int) -> Signature:
    """Of a classifier of texts: ids and mask, both (n, l), to logits (n, h)."""
    tokens = ("tensor(int64)", (None, None))
    return Signature({"input_ids": tokens, "attention_mask": tokens}, {"logits": ("tensor(float)", (None, harms))})


def answers_questions(harms: int, *, likelihoods: bool) -> Signature:
    """Of a language model: ids and marks, both (n, l), to yes and no for each harm, (n, h, 2).

    These are `log_likelihoods`, or `answers` that have the same difference and no more.
    """
    tokens = ("tensor(int64)", (None, None))
    name = "log_likelihoods" if likelihoods else "answers"
    return Signature({"input_ids": tokens, "attention_mask": tokens}, {name: ("tensor(float)", (None, harms, 2))})


def reads_pixels(harms: int, *, height: int, width: int) -> Signature:
    """Of a classifier of images: pixels (n, 3, height, width) to logits (n, h)."""
    pixels = ("tensor(float)", (None, 3, height, width))
    return Signature({"pixels": pixels}, {"logits": ("tensor(float)", (None, harms))})


class RunError(ScoringError):
    """One model call failed: out of memory, or an input that the model cannot take. May quote token ids."""


class OnnxSession:
    """A loaded model. `run` may be called from several threads; nothing changes after construction."""

    def __init__(self, session: ort.InferenceSession, provider: Provider) -> None:
        self.provider: Provider = provider
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """The one output of a model that reads tokens, for n rows of them: (n, ...) float32. Raises `RunError`."""
        return self.call({"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask})[self._outputs[0]]

    def call(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Every output of the model by name, for its inputs by name. Raises `RunError`."""
        try:
            outputs = self._session.run(self._outputs, dict(feed))
        except RUNTIME_ERRORS as error:
            shape = " x ".join(map(str, next(iter(feed.values())).shape))
            raise RunError(f"a model call of {shape} failed on {self.provider}: {error}") from None
        return dict(zip(self._outputs, outputs, strict=True))


def open_session(model: bytes, provider: Provider, *, signature: Signature) -> OnnxSession:
    """Load a verified ONNX model that takes and gives what `signature` says.

    Raises `BundleError` where the model cannot be loaded or has other inputs or outputs, and `ProviderError` where it
    would not run on `provider` as a whole.
    """
    session = _open_on_cpu(model) if provider == "cpu" else _open_on_cuda(model)
    # Without this, a failing run() would silently rebuild the session on the CPU.
    session.disable_fallback()
    _check_signature(session, signature)
    return OnnxSession(session, provider)


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # One thread per session: workers are processes, and a text's score must not depend on how work was split.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # A plan would be kept for every (n, l) ever seen, thousands in a long-lived worker, for no measurable speed.
    options.enable_mem_pattern = False
    options.log_severity_level = LOG_FATAL
    # A spinning session takes the core from whatever else runs in the worker: 1.8 times slower, measured.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _open_on_cpu(model: bytes) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, _options(), providers=[CPU], disabled_optimizers=SLOW_ON_CPU)
    except RUNTIME_ERRORS as error:
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load the model: {error}; export it again") from None


def _open_on_cuda(model: bytes) -> ort.InferenceSession:
    missing = _preload_cuda()
    options = _options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # CUDA alone in the list: with the CPU beside it, falling back would be legitimate.
        session = ort.InferenceSession(model, options, providers=[(CUDA, CUDA_OPTIONS)], enable_fallback=False)
    except RUNTIME_ERRORS as error:
        raise ProviderError(_without_cuda(f"ONNX Runtime says: {error}")) from None
    refuse_other_provider(session.get_providers(), missing=missing)
    assigned = Counter(
        node.op_type
        for subgraph in session.get_provider_graph_assignment_info()
        if subgraph.ep_name != CUDA
        for node in subgraph.get_nodes()
    )
    refuse_operators_elsewhere(assigned)
    return session


def _preload_cuda() -> str:
    """Load CUDA's libraries, from NVIDIA's wheels where installed; says what is missing, in ONNX Runtime's words."""
    said = StringIO()
    with redirect_stdout(said):  # It prints; it neither raises nor logs.
        ort.preload_dlls()
    return "; ".join(line for line in said.getvalue().splitlines() if line.startswith("Failed"))


def refuse_other_provider(providers: list[str], *, missing: str) -> None:
    """Raise `ProviderError` unless CUDA is the first of the session's `providers`."""
    if providers[0] != CUDA:
        raise ProviderError(
            _without_cuda(f"ONNX Runtime fell back to {providers[0]}. {missing or 'It does not say why'}")
        )


def refuse_operators_elsewhere(assigned: Counter[str]) -> None:
    """Raise `ProviderError` if operators assigned to another provider than CUDA do more than compute shapes."""
    elsewhere = {operator: count for operator, count in assigned.items() if operator not in SHAPE_OPERATORS}
    if elsewhere:
        named = ", ".join(f"{operator} ({count})" for operator, count in sorted(elsewhere.items()))
        raise ProviderError(
            f"with provider cuda these operators of the model would still run on the CPU: {named}; "
            "export the bundle with an artefact for cuda that has kernels for them, or set provider to cpu"
        )


def _without_cuda(why: str) -> str:
    return (
        f"provider is cuda, but CUDA does not run here: {why}. Check the driver with `nvidia-smi` and install the "
        "libraries with `pip install 'onnxruntime-gpu[cuda,cudnn]'`, or set provider to cpu"
    )


def _check_signature(session: ort.InferenceSession, signature: Signature) -> None:
    """Raise `BundleError` unless the model takes and gives what this service feeds and reads."""
    for kind, expected, nodes in (
        ("inputs", signature.inputs, session.get_inputs()),
        ("outputs", signature.outputs, session.get_outputs()),
    ):
        found = {node.name: (node.type, tuple(node.shape)) for node in nodes}
        if _ranks(found) != _ranks(expected):
            raise BundleError(
                f"the model's {kind} are {_describe(_ranks(found))}, not {_describe(_ranks(expected))}; export it again"
            )
        for name, (_, shape) in expected.items():
            _check_shape(name, found[name][1], shape, fed=kind == "inputs")


def _check_shape(name: str, found: tuple[int | str | None, ...], expected: Shape, *, fed: bool) -> None:
    for axis, (size, wanted) in enumerate(zip(found, expected, strict=True)):
        if fed and wanted is None and isinstance(size, int):
            raise BundleError(f"the model takes {name} of {size} along axis {axis} only; export it with that size free")
        if wanted is not None and size != wanted:
            raise BundleError(
                f"the model has {size} along axis {axis} of {name}, its manifest makes that {wanted}; export it again"
            )


def _ranks(signature: Mapping[str, tuple[str, tuple[object, ...]]]) -> dict[str, tuple[str, int]]:
    return {name: (kind, len(shape)) for name, (kind, shape) in signature.items()}


def _describe(signature: dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} of rank {rank}" for name, (kind, rank) in sorted(signature.items()))
