"""Graphs on the CPU through OpenVINO."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.architectures.openvino_import import ov
from crossrank.architectures.ops import Graphs
from crossrank.engines.threads import available_threads
from crossrank.errors import CrossRankError
from crossrank.forks import before_fork, never_release_after_fork
from crossrank.tokenization.batching import TOKEN_BUDGET, Batch

_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "float32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bfloat16": {"INFERENCE_PRECISION_HINT": "bf16"},
}
# "int8": matrices are stored in eight bits, and activations are rounded to eight bits in groups with a scale each.
# Groups of 32 are more accurate, but slower than bfloat16 on processors that have it.
_INT8_GROUP = 128

# OpenVINO, and oneDNN inside it, each cache the kernels for every shape of batch, by default thousands.
# With mixed traffic, that takes a gigabyte. Keep only the last few of each kind: preparing them again takes at most a
# few percent of the time. oneDNN's limit is for the whole process and can be set only by an environment variable.
_KEPT_KERNELS = 32
_ONEDNN_KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"

_core: Any = None
_core_lock = threading.Lock()


def shared_core() -> Any:
    """The OpenVINO core of this process. It is thread-safe, and created once because that takes time."""
    global _core
    with _core_lock:
        if _core is None:
            os.environ.setdefault(_ONEDNN_KEPT, str(_KEPT_KERNELS))
            _core = ov.Core()
            never_release_after_fork(_core)
        return _core


@before_fork
def _drop_idle_threads() -> None:
    """Drop the threads of released models. OpenVINO would reuse them, but a child process has no threads.

    OpenVINO keeps them for the whole process, and drops idle ones whenever a CPU plugin is released (1 ms).
    """
    if _core is not None:
        ov.Core().get_property("CPU", "FULL_DEVICE_NAME")


def native_precision(requested: str) -> str:
    """Replace ``"auto"`` by the fastest precision on this processor.

    bfloat16 if the processor multiplies it natively (AMX or AVX512-BF16; only then does OpenVINO list it among its
    optimization capabilities), else float32.
    """
    if requested != "auto":
        return requested
    capabilities = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if "BF16" in capabilities else "float32"


class CompiledGraph:
    """A compiled graph; safe to call from many threads.

    :param graph: An ``openvino.Model`` whose inputs are named.
    :param precision: One of ``float32``, ``bfloat16``, ``int8``.
    :param num_threads: Threads of one run; ``None`` for all that the process may use.
    """

    def __init__(self, graph: Any, precision: str, num_threads: int | None) -> None:
        threads = available_threads(num_threads)
        self.facts: Mapping[str, str | int] = {
            "engine": "openvino",
            "device": "cpu",
            "precision": precision,
            "threads": threads,
        }
        int8 = precision == "int8"
        settings = {
            # With int8, all but the matrix products runs in the processor's fastest precision.
            **_SETTINGS[native_precision("auto") if int8 else precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_KERNELS,
            # Pinned threads of two processes would share one core while another is idle.
            "ENABLE_CPU_PINNING": False,
        }
        if int8:
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _INT8_GROUP
        try:
            self._compiled = shared_core().compile_model(graph, "CPU", settings)
        except (RuntimeError, MemoryError) as error:
            raise CrossRankError(
                f"OpenVINO could not compile the model: {error}. If memory is short, give the process more of it or "
                "take a smaller model; if not, download the checkpoint again."
            ) from error
        self._names = tuple(port.any_name for port in self._compiled.inputs)
        self._outputs = len(self._compiled.outputs)
        self._idle: list[Any] = []
        never_release_after_fork(self)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The outputs in order. Inputs that the graph does not have are ignored.

        :raises CrossRankError: If OpenVINO fails.
        """
        # A request has its own buffers, so each thread takes one and returns it.
        try:
            try:
                request = self._idle.pop()
            except IndexError:
                request = self._compiled.create_infer_request()
            request.infer({name: inputs[name] for name in self._names}, share_inputs=True)
            outputs = [request.get_output_tensor(i).data.astype(np.float32, copy=True) for i in range(self._outputs)]
        except (RuntimeError, MemoryError) as error:
            raise self._failed(inputs, str(error) or "out of memory") from error
        # If an allocation fails, OpenVINO may return an empty output instead of an error.
        if not all(output.size for output in outputs):
            raise self._failed(inputs, "it gave an empty result, as it does when memory is short")
        self._idle.append(request)
        return outputs

    def _failed(self, inputs: Mapping[str, NDArray[Any]], reason: str) -> CrossRankError:
        shapes = ", ".join(f"{name} {inputs[name].shape}" for name in self._names)
        return CrossRankError(
            f"OpenVINO could not run a batch ({shapes}): {reason}. If memory is short, give a smaller batch_size or "
            "max_length, or give the process more memory."
        )


class OpenVinoEngine:
    """An engine for graphs from :mod:`crossrank.architectures`.

    :param graphs: The model.
    :param precision: One of ``float32``, ``bfloat16``, ``int8``; a separate head always runs in float32.
    :param num_threads: Threads of one forward pass; ``None`` for all that the process may use.
    """

    token_budget = TOKEN_BUDGET

    def __init__(self, graphs: Graphs, *, precision: str, num_threads: int | None = None) -> None:
        self._body = CompiledGraph(graphs.body, precision, num_threads)
        self.facts = self._body.facts
        self._head: CompiledGraph | None = None
        if graphs.head is not None:
            self._head = CompiledGraph(graphs.head, "float32", num_threads)
            self._head_inputs = [node.get_friendly_name() for node in graphs.head.get_parameters()]

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of a batch, ``[batch, labels]``."""
        hidden = self._body.run(batch.inputs)
        if self._head is None:
            return hidden[0]
        (logits,) = self._head.run(dict(zip(self._head_inputs, hidden, strict=True)))
        return logits
