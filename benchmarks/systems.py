"""The systems side by side, and the worker process of one: ``python -m benchmarks.systems NAME FOLDER THREADS``.

A worker loads its system, says so, and then scores one workload for each line that it reads. Between two lines it waits
in a read, and it reports how much processor time it used while it waited: idle thread pools must not take the others'.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.workloads import Pair

ROOT = Path(__file__).resolve().parents[1]
# optimum-intel and others hold transformers and huggingface_hub back, so they have an environment of their own.
PEERS = ROOT / ".bench-venv" / "bin" / "python"
# infinity holds them back further; benchmarks/server.py says what to install.
INFINITY = ROOT / ".bench-infinity" / "bin" / "python"

# Which ONNX file holds what.
_ONNX = {"onnx": "float32", "onnx-int8": "int8"}

Score = Callable[[list[Pair]], Sequence[float]]


@dataclass(frozen=True)
class System:
    """One way to score.

    :param open: From the model's folder and a number of threads to a function that scores pairs, and facts to report.
    :param kinds: What of :mod:`benchmarks.checkpoint` it needs, the one that it opens last.
    :param python: The interpreter that has its libraries.
    :param packages: Those whose versions matter.
    """

    open: Callable[[Path, int], tuple[Score, dict[str, Any]]]
    packages: tuple[str, ...]
    kinds: tuple[str, ...] = ("minilm",)
    python: Path = field(default_factory=lambda: Path(sys.executable))


def _crossrank(precision: str) -> Callable[[Path, int], tuple[Score, dict[str, Any]]]:
    def open_(folder: Path, threads: int) -> tuple[Score, dict[str, Any]]:
        from crossrank import CrossEncoder

        model = CrossEncoder(folder, precision=precision, num_threads=threads).load()
        return lambda pairs: model.predict(pairs, show_progress_bar=False), {"precision": model.info()["precision"]}

    return open_


def _crossrank_bundled(_: Path, threads: int) -> tuple[Score, dict[str, Any]]:
    from crossrank import CrossEncoder

    # Without its cache, because a text that comes again would not be encoded.
    model = CrossEncoder(num_threads=threads, document_cache=0).load()
    return lambda pairs: model.predict(pairs, show_progress_bar=False), {"precision": model.info()["precision"]}


def _sentence_transformers(dtype: str) -> Callable[[Path, int], tuple[Score, dict[str, Any]]]:
    def open_(folder: Path, threads: int) -> tuple[Score, dict[str, Any]]:
        import torch
        from sentence_transformers import CrossEncoder

        torch.set_num_threads(threads)
        model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": dtype})
        return lambda pairs: model.predict(pairs, show_progress_bar=False), {"precision": dtype}

    return open_


def _sentence_transformers_openvino(folder: Path, threads: int) -> tuple[Score, dict[str, Any]]:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    options = {"ov_config": {"INFERENCE_NUM_THREADS": str(threads)}}
    model = CrossEncoder(str(folder), device="cpu", backend="openvino", model_kwargs=options)
    model.predict([("what", "this")])  # It compiles at the first call.
    precision = model[0].model.request.get_property("INFERENCE_PRECISION_HINT").to_string()
    return lambda pairs: model.predict(pairs, show_progress_bar=False), {"precision": precision}


def _fastembed(folder: Path, threads: int) -> tuple[Score, dict[str, Any]]:
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model("benchmark", sources=ModelSource(hf="benchmark"), model_file="model.onnx")
    model = TextCrossEncoder("benchmark", threads=threads, specific_model_path=str(folder))
    return lambda pairs: list(model.rerank_pairs(pairs)), {"precision": _ONNX[folder.name]}


def _flashrank(folder: Path, threads: int) -> tuple[Score, dict[str, Any]]:
    """It has no setting for threads: ONNX Runtime takes all cores. It ranks query by query and gives probabilities."""
    import math

    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    model_file_map[folder.name] = "model.onnx"
    model = Ranker(folder.name, cache_dir=str(folder.parent), max_length=512)

    def of_query(query: str, documents: list[str]) -> list[float]:
        passages = [{"id": i, "text": document} for i, document in enumerate(documents)]
        ranked = sorted(model.rerank(RerankRequest(query=query, passages=passages)), key=lambda row: row["id"])
        probabilities = [float(row["score"]) for row in ranked]
        return [math.log(p / (1 - p)) for p in probabilities]

    return _query_by_query(of_query), {"precision": _ONNX[folder.name]}


def _infinity(folder: Path, threads: int) -> tuple[Score, dict[str, Any]]:
    """Its engine in this process, without HTTP, with the settings of its server. It ranks query by query."""
    import torch
    from infinity_emb import EngineArgs, SyncEngineArray

    torch.set_num_threads(threads)
    args = EngineArgs(model_name_or_path=str(folder), engine="torch", device="cpu", served_model_name="benchmark")
    engines = SyncEngineArray.from_args([args])

    def of_query(query: str, documents: list[str]) -> list[float]:
        rows, _ = engines.rerank(model="benchmark", query=query, docs=documents, raw_scores=True).result()
        return [row.relevance_score for row in sorted(rows, key=lambda row: row.index)]

    of_query("what", ["this"])
    return _query_by_query(of_query), {"precision": "float32"}


def _query_by_query(of_query: Callable[[str, list[str]], list[float]]) -> Score:
    """For a system that scores the documents of one query."""

    def score(pairs: list[Pair]) -> list[float]:
        scores: list[float] = []
        for query, group in groupby(pairs, key=lambda pair: pair[0]):
            scores += of_query(query, [document for _, document in group])
        return scores

    return score


_OPENVINO = ("openvino",)
_TORCH = ("sentence-transformers", "transformers", "torch")
# The first is ours, which the others are compared with; the second is the reference for the scores.
SYSTEMS: dict[str, System] = {
    "crossrank": System(_crossrank("auto"), ("crossrank", *_OPENVINO)),
    "sentence-transformers": System(_sentence_transformers("float32"), _TORCH),
    "sentence-transformers bfloat16": System(_sentence_transformers("bfloat16"), _TORCH),
    "sentence-transformers OpenVINO": System(
        _sentence_transformers_openvino, (*_TORCH, "optimum-intel", *_OPENVINO), ("minilm", "openvino"), PEERS
    ),
    "FlashRank float32": System(_flashrank, ("flashrank", "onnxruntime"), ("minilm", "onnx"), PEERS),
    "FlashRank int8": System(_flashrank, ("flashrank", "onnxruntime"), ("minilm", "onnx", "onnx-int8"), PEERS),
    "fastembed": System(_fastembed, ("fastembed", "onnxruntime"), ("minilm", "onnx"), PEERS),
    "infinity": System(_infinity, ("infinity-emb", "transformers", "torch"), python=INFINITY),
    "crossrank float32": System(_crossrank("float32"), ("crossrank", *_OPENVINO)),
    "crossrank bfloat16": System(_crossrank("bfloat16"), ("crossrank", *_OPENVINO)),
    "crossrank int8": System(_crossrank("int8"), ("crossrank", *_OPENVINO)),
    "crossrank bundled": System(_crossrank_bundled, ("crossrank", *_OPENVINO)),
}
DEFAULT = tuple(name for name in SYSTEMS if name not in ("infinity", "crossrank int8", "crossrank bundled"))


def peak_mb() -> float:
    """The most memory this process has held, in MB of a million bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage counts what the process was before exec too: a copy of its parent.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    # Libraries print what they like: the real standard output is kept for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    try:
        score, facts = SYSTEMS[name].open(folder, threads)
        versions = {package: metadata.version(package) for package in SYSTEMS[name].packages}
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        raise
    answer(versions=versions, **facts)
    waited_from = time.process_time()
    for line in sys.stdin:
        idle_cpu = time.process_time() - waited_from
        path = Path(json.loads(line))
        pairs = [(query, document) for query, document in json.loads(path.read_text(encoding="utf-8"))]
        started = time.perf_counter()
        scores = score(pairs)
        seconds = time.perf_counter() - started
        answer(seconds=seconds, scores=[float(one) for one in scores], idle_cpu=idle_cpu, peak_mb=peak_mb())
        waited_from = time.process_time()


if __name__ == "__main__":
    main()
