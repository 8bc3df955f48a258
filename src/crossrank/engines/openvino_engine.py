"""Graphs on the CPU through OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import Graphs
from crossrank.engines.threads import available_threads
from crossrank.errors import CrossRankError
from crossrank.tokenization.batching import Batch

PRECISIONS = ("auto", "float32", "bfloat16", "int8")
# "int8" stores weights in eight bits; sums stay in float32.
_HINTS: Mapping[str, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}

_core: Any = None
_core_lock = threading.Lock()


def _shared_core() -> Any:
    """One core for the process: making it costs time, and it is thread-safe."""
    global _core
    with _core_lock:
        if _core is None:
            _core = ov.Core()
        return _core


def choose_precision(requested: str) -> str:
    """What ``"auto"`` means on this processor.

    bfloat16 where the processor multiplies it natively (AMX or AVX512-BF16: OpenVINO lists it among its optimization
    capabilities just there), else float32.
    """
    if requested != "auto":
        return requested
    capabilities = _shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if "BF16" in capabilities else "float32"


class OpenVinoEngine:
    """An engine for graphs from :mod:`crossrank.architectures`.

    :param graphs: The model.
    :param precision: One of ``float32``, ``bfloat16``, ``int8``; the head runs in float32 in any case.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    """

    def __init__(self, graphs: Graphs, *, precision: str, num_threads: int | None = None) -> None:
        self._threads = available_threads(num_threads)
        self._precision = precision
        common = {"INFERENCE_NUM_THREADS": self._threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        core = _shared_core()
        self._body = core.compile_model(graphs.body, "CPU", {**common, "INFERENCE_PRECISION_HINT": _HINTS[precision]})
        self._head = core.compile_model(graphs.head, "CPU", {**common, "INFERENCE_PRECISION_HINT": "f32"})
        self._idle: list[tuple[Any, Any]] = []

    @property
    def facts(self) -> Mapping[str, str | int]:
        """What it runs with."""
        return {"engine": "openvino", "device": "cpu", "precision": self._precision, "threads": self._threads}

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, labels]``."""
        # A request holds its own buffers, so each thread takes one and gives it back.
        try:
            body, head = self._idle.pop()
        except IndexError:
            body, head = self._body.create_infer_request(), self._head.create_infer_request()
        try:
            body.infer(dict(batch.inputs), share_inputs=True)
            hidden = [body.get_output_tensor(i) for i in range(len(self._body.outputs))]
            head.infer(hidden, share_inputs=True)
            logits: NDArray[np.float32] = head.get_output_tensor(0).data.astype(np.float32, copy=True)
        except RuntimeError as error:
            raise CrossRankError(f"OpenVINO could not run a batch of {len(batch.rows)} pairs: {error}") from error
        self._idle.append((body, head))
        return logits
