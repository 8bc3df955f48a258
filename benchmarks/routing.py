"""Two servers behind nginx: requests in turn, or all requests of a collection to one server.

    python -m benchmarks.routing              # needs nginx, and ../shared/data or --synthetic

nginx runs with the configuration of docs/serving.md, once as it stands there, and once without its line ``hash``. Each
request ranks one of some sets of documents for a query of its own, and names the set in the header ``X-Collection``. A
server's memory for documents holds 70 % of all sets. The first request of each set is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.machine import in_words, machine
from benchmarks.server import free_port, serving
from benchmarks.systems import ROOT

_SHARE = 0.7
Sets = list[tuple[str, list[str]]]


def document_sets(count: int, size: int, data: Path, *, made_up: bool) -> tuple[Sets, list[str]]:
    """Sets of documents by name, no document in two, and queries."""
    if made_up:
        pairs = workloads.synthetic(count * size, queries=40)
        documents, queries = [text for _, text in pairs], list(dict.fromkeys(query for query, _ in pairs))
    else:
        source = workloads.read_collection("cranfield", data)
        documents, queries = list(source.documents.values()), list(source.queries.values())
    documents = list(dict.fromkeys(documents))[: count * size]
    if len(documents) < count * size:
        raise SystemExit(f"There are {len(documents)} documents, too few for {count} sets of {size}.")
    return [(f"set-{i}", documents[i * size : (i + 1) * size]) for i in range(count)], queries


def bytes_of(sets: Sets) -> int:
    """Memory that the bundled model needs for all documents."""
    from crossrank import CrossEncoder

    model = CrossEncoder(document_cache="10GB")
    for _, documents in sets:
        model.predict([("a", text) for text in documents], show_progress_bar=False)
    held = model.document_cache
    assert held is not None
    return int(held["bytes"])


def configuration(listen: int, servers: list[int], folder: Path, *, hashed: bool) -> str:
    """The one of docs/serving.md with these ports, as a whole file for a process of its own."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    found = re.search(r"^```nginx\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, "docs/serving.md has no block for nginx"
    text = re.sub(r"listen \d+;", f"listen 127.0.0.1:{listen};", found[1])
    for port in servers:
        text = re.sub(r"server 10[\d.:]+;", f"server 127.0.0.1:{port};", text, count=1)
    if not hashed:
        text = re.sub(r"^ *hash .*\n", "", text, flags=re.MULTILINE)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {paths}\n{text}}}\n"


@contextlib.contextmanager
def proxy(text: str, port: int, folder: Path) -> Iterator[None]:
    """Run nginx, as long as the block lasts."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")
    if program is None:
        raise SystemExit("nginx is missing. On Debian: apt-get install nginx-light")
    (folder / "nginx.conf").write_text(text)
    log = folder / "nginx.log"
    process = subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf", "-e", log])
    try:
        until = time.monotonic() + 10
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                pass
            finally:
                connection.close()
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"nginx does not answer: {log.read_text()[-500:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(10)


def measure(port: int, sets: Sets, queries: list[str], rounds: int) -> dict[str, float]:
    """Ask for each set in each round, in a new order with new queries; times in milliseconds."""
    chance = random.Random(0)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    times, known, asked = [], 0, 0
    for number in range(rounds + 1):
        for name, documents in chance.sample(sets, len(sets)):
            body = json.dumps({"query": chance.choice(queries), "documents": documents}).encode()
            begun = time.perf_counter()
            connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json", "X-Collection": name})
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200 or len(answer["results"]) != len(documents):
                raise SystemExit(f"{response.status}: {str(answer)[:500]}")
            if number:
                times.append(1000 * (time.perf_counter() - begun))
                known += answer["crossrank"]["documents_cached"]
                asked += len(documents)
    connection.close()
    return {"hits": known / asked, "p50": statistics.median(times), "p95": statistics.quantiles(times, n=20)[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--documents", type=int, default=25, help="of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--synthetic", action="store_true", help="made-up texts")
    parser.add_argument("--data", type=Path, default=workloads.DATA)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    facts = machine()
    print(in_words(facts))
    sets, queries = document_sets(args.sets, args.documents, args.data, made_up=args.synthetic)
    most = int(_SHARE * bytes_of(sets))
    print("\n| requests go | documents in memory | p50 ms | p95 ms |\n|---|---:|---:|---:|")
    figures: dict[str, Any] = {}
    for name, hashed in (("in turn", False), ("by collection", True)):
        ports = [free_port(), free_port()]
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            folder.chmod(0o755)  # nginx started by root works as another user
            folder = Path(place)
            folder.chmod(0o755)  # nginx that was started by root works as another user
            settings = folder / "server.toml"
            settings.write_text(f"[models.bundled]\nmodel = 'bundled'\ndocument_cache = {most}\nnum_threads = 1\n")
            for port in ports:
                command = [sys.executable, "-m", "crossrank", "serve", "--port", str(port), "--config", str(settings)]
                stack.enter_context(serving(command, port, "/v1/rerank", folder / f"{port}.log"))
            front = free_port()
            stack.enter_context(proxy(configuration(front, ports, folder, hashed=hashed), front, folder))
            found = figures[name] = measure(front, sets, queries, args.rounds)
            print(f"| {name} | {found['hits']:.0%} | {found['p50']:.0f} | {found['p95']:.0f} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, **figures}, indent=1))


if __name__ == "__main__":
    main()
