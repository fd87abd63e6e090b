"""The runtime alone: a plain session, where its operators run, and a session bound to one shape at fixed addresses.

Rules of CUDA graphs (ONNX Runtime's documentation of the CUDA provider, and its keys of run options): every operator
on the GPU, no control flow; a graph is captured by the first run for its `gpu_graph_id`, and later runs replay it as it
is, so that shape and address of inputs and outputs may never change for that number; nobody checks that, a second shape
would silently give the first one's answer. Fresh inputs are copied into the bound memory. One thread only; the number
0 is the runtime's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.scoring.session import CPU, CUDA, CUDA_OPTIONS, LOG_FATAL, SLOW_ON_CPU, Provider, refuse_other_provider
from stream.scoring.tokenize import ModelInputs

import onnxruntime  # isort: skip - after stream.scoring, which switches its telemetry off

__all__ = ["Bound", "open_bare", "placement", "run_bare"]


def open_bare(model: bytes, provider: Provider, *, graphs: bool = False) -> onnxruntime.InferenceSession:
    """A session as the libraries give it, with the service's options of the provider: TF32 would flatter float32.

    The service's own session has to be opened before, since that loads CUDA's libraries. Raises whatever the runtime
    does, and `ProviderError` where it fell back to the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider == "cpu":
        options.intra_op_num_threads = 1  # as the service's
        return onnxruntime.InferenceSession(model, options, providers=[CPU], disabled_optimizers=SLOW_ON_CPU)
    cuda = CUDA_OPTIONS | ({"enable_cuda_graph": "1"} if graphs else {})
    session = onnxruntime.InferenceSession(model, options, providers=[(CUDA, cuda)])
    refuse_other_provider(session.get_providers(), missing="")
    session.disable_fallback()
    return session


def placement(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]]:
    """How many operators of each kind run on each provider, the fused ones counted as one."""
    found: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        found.setdefault(subgraph.ep_name, Counter()).update(node.op_type for node in subgraph.get_nodes())
    return found


def run_bare(session: onnxruntime.InferenceSession, inputs: ModelInputs) -> Callable[[], NDArray[np.float32]]:
    """A call of the session on these inputs, from and to the host's memory, giving logits (n, h)."""
    feed = {"input_ids": inputs.input_ids, "attention_mask": inputs.attention_mask}

    def call() -> NDArray[np.float32]:
        logits: NDArray[np.float32] = session.run(["logits"], feed)[0]
        return logits

    return call


class Bound:
    """A session bound to one shape, with inputs and output at addresses that never change; for one thread."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        provider: Provider,
        *,
        rows: int,
        length: int,
        harms: int,
        graph: int | None = None,
    ) -> None:
        """`graph`, from 1 on, is the number of this shape's CUDA graph within a session that was opened for them."""
        self._session = session
        self._binding = session.io_binding()
        self._options = onnxruntime.RunOptions()
        if graph is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph))
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._ids, self._mask = (make((rows, length), np.int64, provider, 0) for _ in range(2))
        self._logits = make((rows, harms), np.float32, provider, 0)
        self._binding.bind_ortvalue_input("input_ids", self._ids)
        self._binding.bind_ortvalue_input("attention_mask", self._mask)
        self._binding.bind_ortvalue_output("logits", self._logits)

    def run(self, inputs: ModelInputs) -> NDArray[np.float32]:
        """The logits, (n, h), of inputs of exactly the bound shape: copied in, run or replayed, copied out."""
        self._ids.update_inplace(inputs.input_ids)
        self._mask.update_inplace(inputs.attention_mask)
        self._session.run_with_iobinding(self._binding, self._options)
        logits: NDArray[np.float32] = self._logits.numpy()
        return logits
