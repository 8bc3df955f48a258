"""How fast `crossrank serve` answers, beside infinity and beside the same model in process.

    python -m benchmarks.server                                   # crossrank alone; needs ../shared/data
    python -m benchmarks.server --infinity .bench-infinity/bin/infinity_emb
    python -m benchmarks.server --overhead                        # what HTTP and the scheduler add to 100 documents
    python -m benchmarks.server --fairness                        # 5 documents beside a stream of 1,000

infinity is in an environment of its own: `pip install torch 'infinity-emb[server,torch,optimum]' 'transformers<4.49'
'optimum-onnx[onnxruntime]' 'datasets<4' 'pyarrow<21' 'numpy<2'`. One server runs at a time, on loopback. All get the
same bodies: queries of Cranfield with their first candidates, no query twice in a cell. In a cell each client sends
one request after the other until the time is up, and at least one; latencies are of whole requests. With infinity's
two engines, which score some 20 pairs a second on two cores, all takes about six minutes. --overhead and --fairness
use the bundled model.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.checkpoint import prepared
from benchmarks.machine import in_words, machine
from benchmarks.systems import ROOT

CELLS = ((1, 20), (8, 20), (64, 20), (1, 100), (8, 100))
SYSTEMS = ("crossrank", "infinity torch", "infinity optimum")
_START_SECONDS = 300
_NAME = "minilm"


@dataclass
class Cell:
    """One measurement; times in milliseconds."""

    clients: int
    documents: int
    requests: int
    pairs_per_second: float
    p50: float
    p99: float


def bodies(documents: int, data: Path) -> list[bytes]:
    """A body for each query of Cranfield that has so many candidates; with few candidates, other queries' follow."""
    source = workloads.read_collection("cranfield", data)
    pool = list(dict.fromkeys(itertools.chain.from_iterable(source.candidates.values())))
    found = []
    for query, candidates in source.candidates.items():
        own = (candidates + [one for one in pool if one not in set(candidates)])[:documents]
        body = {"model": _NAME, "query": source.queries[query], "documents": [source.documents[one] for one in own]}
        found.append(json.dumps(body).encode())
    return found


class Client:
    """One connection to a server; ``server`` is its port and the path to post to."""

    def __init__(self, port: int, path: str) -> None:
        self._path = path
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def post(self, body: bytes) -> Any:
        self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {answer[:500]!r}")
        return json.loads(answer)

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, path: str, log: Path) -> Iterator[Callable[[], Client]]:
    """Run a server until it answers, and as long as the block lasts."""
    quiet = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env={**os.environ, **quiet})
    try:
        until = time.monotonic() + _START_SECONDS
        body = json.dumps({"model": _NAME, "query": "a", "documents": ["a", "b"]}).encode()
        while True:
            client = Client(port, path)
            try:
                client.post(body)
                break
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(
                        f"{' '.join(command)} does not answer: {error}. Its output is in {log}."
                    ) from error
                time.sleep(0.2)
            finally:
                client.close()
        yield lambda: Client(port, path)
    finally:
        process.send_signal(signal.SIGINT if command[0] == "env" else signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command_of(system: str, folder: Path, infinity: Path | None, port: int) -> tuple[list[str], str]:
    """How a server is started, and where it answers."""
    kind, _, setting = system.partition(" ")
    if kind == "crossrank":
        precision = ["--precision", setting] if setting else []
        command = [sys.executable, "-m", "crossrank", "serve", "--port", str(port), "--model"]
        return [*command, f"{_NAME}={prepared('minilm', folder)}", *precision], "/v1/rerank"
    if infinity is None:
        raise SystemExit(f"{system} needs --infinity, the path of its command infinity_emb.")
    prepared("minilm", folder)
    made = prepared("onnx" if setting == "optimum" else "minilm", folder)
    flags = ["--engine", setting, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    # It finds an ONNX file only in the folder that it runs in.
    command = ["env", "-C", str(made), str(infinity.absolute()), "v2", "--model-id", "."]
    return [*command, "--served-model-name", _NAME, *flags], "/rerank"


def measure(make: Callable[[], Client], clients: int, documents: int, seconds: float, given: list[bytes]) -> Cell:
    """Load a server with so many clients for so long."""
    if clients > len(given):
        raise SystemExit(f"There are {len(given)} queries, too few for {clients} clients.")
    numbers, lock, taken, failures = iter(range(len(given))), threading.Lock(), [], []
    started = time.perf_counter()

    def work() -> None:
        client = make()
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                begun = time.perf_counter()
                answer = client.post(given[number])
                ended = time.perf_counter()
                indices = sorted(row["index"] for row in answer["results"])
                if indices != list(range(documents)):
                    raise RuntimeError(f"{len(indices)} of {documents} documents came back")
                with lock:
                    taken.append(ended - begun)
                if ended - started > seconds:
                    return
        except Exception as error:
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - started
    if failures:
        raise SystemExit(f"{len(failures)} clients failed, the first with {failures[0]!r}")
    ordered = sorted(1000 * one for one in taken)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return Cell(clients, documents, len(ordered), documents * len(ordered) / wall, statistics.median(ordered), p99)


def bundled(port: int) -> list[str]:
    return [sys.executable, "-m", "crossrank", "serve", "--port", str(port)]


def overhead(folder: Path, data: Path, port: int, rounds: int) -> dict[str, float]:
    """The same 100 documents over HTTP and in process, in turns; medians in milliseconds."""
    from crossrank import CrossEncoder

    model = CrossEncoder().load()
    times: dict[str, list[float]] = {"http": [], "process": []}
    with serving(bundled(port), port, "/v1/rerank", folder / "server.log") as make:
        client = make()
        for number, body in enumerate(bodies(100, data)[: rounds + 1]):
            content = json.loads(body)
            turns: list[tuple[str, Callable[[], Any]]] = [
                ("http", lambda body=body: client.post(body)),
                ("process", lambda content=content: model.rank(content["query"], content["documents"])),
            ]
            for name, call in turns[:: 1 if number % 2 else -1]:
                begun = time.perf_counter()
                call()
                if number:  # the first warms up
                    times[name].append(1000 * (time.perf_counter() - begun))
        client.close()
    return {name: statistics.median(each) for name, each in times.items()}


def fairness(folder: Path, data: Path, port: int, rounds: int) -> dict[str, float]:
    """Requests with 5 documents, alone and beside a stream of 1,000-document ones; 95th percentiles in milliseconds.

    A number in front of each document makes it a new one, so that none is in the server's memory.
    """
    source = workloads.read_collection("cranfield", data)
    texts, queries = list(source.documents.values()), list(source.queries.values())
    numbers = itertools.count()

    def body(documents: int) -> bytes:
        own = [f"{next(numbers)} {text}" for text in itertools.islice(itertools.cycle(texts), documents)]
        return json.dumps({"query": queries[next(numbers) % len(queries)], "documents": own}).encode()

    def ask(client: Client) -> float:
        given = body(5)
        begun = time.perf_counter()
        client.post(given)
        return 1000 * (time.perf_counter() - begun)

    stop = threading.Event()

    def stream() -> None:
        client = make()
        while not stop.is_set():
            client.post(body(1000))
        client.close()

    with serving(bundled(port), port, "/v1/rerank", folder / "server.log") as make:
        client = make()
        alone = [ask(client) for _ in range(rounds + 5)][5:]  # the first ones warm up
        with ThreadPoolExecutor(1) as threads:
            large = threads.submit(stream)
            time.sleep(1)
            beside = [ask(client) for _ in range(rounds)]
            stop.set()
            large.result()
        client.close()
    return {name: statistics.quantiles(times, n=20)[-1] for name, times in (("alone", alone), ("beside", beside))}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infinity", type=Path, help="the command infinity_emb of its environment")
    parser.add_argument(
        "--systems",
        nargs="+",
        choices=(*SYSTEMS, "crossrank float32"),
        help="default: crossrank, and infinity's engines with --infinity",
    )
    parser.add_argument("--cells", nargs="+", help="CLIENTSxDOCUMENTS, such as 8x20")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each cell; requests in flight are finished")
    parser.add_argument("--overhead", action="store_true", help="compare with the call in process, nothing else")
    parser.add_argument(
        "--fairness", action="store_true", help="measure small requests beside large ones, nothing else"
    )
    parser.add_argument("--rounds", type=int, help="of --overhead (default: 12) and --fairness (default: 60)")
    parser.add_argument("--data", type=Path, default=workloads.DATA)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="for checkpoints and logs")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    print(in_words(facts))
    figures: dict[str, Any] = {"machine": facts, "systems": {}}
    if args.overhead:
        found = figures["overhead"] = overhead(args.folder, args.data, free_port(), args.rounds or 12)
        share = found["http"] / found["process"] - 1
        print(f"100 documents: {found['http']:.0f} ms over HTTP, {found['process']:.0f} in process: {share:+.1%}")
    elif args.fairness:
        found = figures["fairness"] = fairness(args.folder, args.data, free_port(), args.rounds or 60)
        times = found["beside"] / found["alone"]
        print(
            f"5 documents: {found['alone']:.0f} ms alone, {found['beside']:.0f} beside 1,000 (p95): {times:.1f} times"
        )
    else:
        cells = [tuple(map(int, cell.split("x"))) for cell in args.cells] if args.cells else CELLS
        given = {documents: bodies(documents, args.data) for _, documents in cells}
        print(
            "\n| server | clients | documents | requests | pairs/s | p50 ms | p99 ms |"
            "\n|---|---:|---:|---:|---:|---:|---:|"
        )
        for system in args.systems or (SYSTEMS if args.infinity else SYSTEMS[:1]):
            port = free_port()
            command, path = command_of(system, args.folder, args.infinity, port)
            rows = figures["systems"][system] = []
            with serving(command, port, path, args.folder / "server.log") as make:
                measure(make, 2, cells[0][1], 1.0, given[cells[0][1]][-20:])  # warms up
                for clients, documents in cells:
                    cell = measure(make, clients, documents, args.seconds, given[documents])
                    rows.append(asdict(cell))
                    print(
                        f"| {system} | {clients} | {documents} | {cell.requests} | {cell.pairs_per_second:.0f} | "
                        f"{cell.p50:.0f} | {cell.p99:.0f} |",
                        flush=True,
                    )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
