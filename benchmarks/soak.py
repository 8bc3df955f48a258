"""Five minutes of full load on a real `crossrank serve`: every answer checked, memory watched.

    python -m benchmarks.soak                     # Linux; needs ../shared/data, or --synthetic

Clients send as fast as they get answers: queries with 1 to 25 of their candidates in a random order. Now and then one
sends what is not JSON, gives up at once, or has a deadline of a millisecond. Each answer is compared with the scores
that the library gives the same pairs. Memory is flat if the last minute's mean is within 3 % of the second minute's.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.machine import in_words, machine
from benchmarks.server import free_port, serving
from benchmarks.systems import ROOT
from crossrank import CrossEncoder

QUERIES, CANDIDATES = 40, 25
# A score may differ from the library's by the rounding of another batch.
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
_MOST_GROWTH = 0.03

Pool = list[tuple[str, list[str], list[float]]]


def pool(data: Path, model: CrossEncoder, *, made_up: bool) -> Pool:
    """Queries, their candidates and the library's scores."""
    if made_up:
        pairs = workloads.synthetic(QUERIES * CANDIDATES, queries=QUERIES)
    else:
        source = workloads.read_collection("cranfield", data)
        chosen = list(source.candidates.items())[:QUERIES]
        pairs = [(source.queries[q], source.documents[d]) for q, found in chosen for d in found[:CANDIDATES]]
    scores = model.predict(pairs, show_progress_bar=False)
    texts: dict[str, dict[str, float]] = {}
    for (query, text), score in zip(pairs, scores, strict=True):
        texts.setdefault(query, {})[text] = float(score)
    return [(query, list(found), list(found.values())) for query, found in texts.items()]


class Load:
    """What the clients share: how much was asked, and what went wrong."""

    def __init__(self, port: int, given: Pool, until: float, tolerance: float) -> None:
        self.port, self.given, self.until, self.tolerance = port, given, until, tolerance
        self.answers = self.pairs = self.others = 0
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def run(self, seed: int) -> None:
        """One client, until the time is up."""
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            while time.monotonic() < self.until and not self.errors:
                kind = chance.random()
                if kind < 0.01:
                    self._leave(chance)
                elif kind < 0.02:
                    status, _ = self._post(connection, b'{"query": ')
                    self._note(0, None if status == 400 else f"what is not JSON is answered with {status}")
                else:
                    self._ask(connection, chance, late=kind < 0.03)
        except Exception as error:
            self._note(0, f"{type(error).__name__}: {error}")
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, chance: random.Random, *, late: bool) -> None:
        query, texts, scores = chance.choice(self.given)
        order = chance.sample(range(len(texts)), chance.randint(1, len(texts)))
        body = json.dumps({"query": query, "documents": [texts[i] for i in order]}).encode()
        status, answer = self._post(connection, body, {"X-Request-Timeout-Ms": "1"} if late else {})
        if status != 200:
            self._note(0, f"status {status}: {answer}")
            return
        skipped = set(answer["crossrank"]["skipped"])
        rows = {row["index"]: row["relevance_score"] for row in answer["results"]}
        wrong = [i for i in rows if i not in skipped and abs(rows[i] - scores[order[i]]) > self.tolerance]
        whole = sorted(rows) == list(range(len(order))) and (late or not skipped)
        in_order = [row["relevance_score"] for row in answer["results"] if row["index"] not in skipped]
        sound = whole and not wrong and in_order == sorted(in_order, reverse=True)
        self._note(len(order), None if sound else f"{len(wrong)} wrong scores, or rows missing: {rows}")

    def _leave(self, chance: random.Random) -> None:
        """Send a request and hang up."""
        query, texts, _ = chance.choice(self.given)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("POST", "/v1/rerank", json.dumps({"query": query, "documents": texts}).encode())
        connection.close()
        self._note(0, None)

    def _post(
        self, connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        connection.request("POST", "/v1/rerank", body, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def _note(self, pairs: int, error: str | None) -> None:
        with self._lock:
            self.answers += pairs > 0
            self.others += pairs == 0
            self.pairs += pairs
            if error:
                self.errors.append(error[:500])


def resident_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise SystemExit(f"The process {process} says nothing of its memory.")


def server_of(port: int) -> int:
    """The process that was started with this port."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and str(port).encode() in words:
            return int(entry.parent.name)
    raise SystemExit("The server's process is not found.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--model", default="bundled", help="as in `crossrank serve --model`")
    parser.add_argument("--precision", choices=tuple(_TOLERANCE), default="float32")
    parser.add_argument("--synthetic", action="store_true", help="made-up texts")
    parser.add_argument("--data", type=Path, default=workloads.DATA)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "benchmarks", help="for the log")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    print(in_words(facts))
    model = CrossEncoder(None if args.model == "bundled" else args.model, precision=args.precision)
    given = pool(args.data, model, made_up=args.synthetic)
    del model
    port = free_port()
    command = [sys.executable, "-m", "crossrank", "serve", "--port", str(port), "--precision", args.precision]
    with serving([*command, "--model", f"served={args.model}"], port, "/v1/rerank", args.folder / "soak.log"):
        process = server_of(port)
        started = time.monotonic()
        load = Load(port, given, started + args.seconds, _TOLERANCE[args.precision])
        clients = [threading.Thread(target=load.run, args=(seed,)) for seed in range(args.clients)]
        for client in clients:
            client.start()
        memory: list[tuple[float, float]] = []
        while any(client.is_alive() for client in clients):
            memory.append((time.monotonic() - started, resident_mb(process)))
            time.sleep(0.5)
    if load.errors:
        raise SystemExit(f"{len(load.errors)} errors, the first: {load.errors[0]}")
    minute = args.seconds / 5
    second = statistics.mean(mb for at, mb in memory if minute <= at < 2 * minute)
    last = statistics.mean(mb for at, mb in memory if at >= args.seconds - minute)
    found = {
        "answers": load.answers,
        "pairs_per_second": load.pairs / args.seconds,
        "others": load.others,
        "second_minute_mb": second,
        "last_minute_mb": last,
        "growth": last / second - 1,
        "megabytes_by_second": [[round(at), round(mb)] for at, mb in memory[::20]],
    }
    print(
        f"{load.answers} answers, all right, {found['pairs_per_second']:.0f} pairs a second; {load.others} that were "
        f"not JSON or left; {second:.0f} MB in the second fifth, {last:.0f} in the last: {last / second - 1:+.1%}"
    )
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, **found}, indent=1))
    if last / second - 1 > _MOST_GROWTH:
        raise SystemExit(f"Memory grew by more than {_MOST_GROWTH:.0%}.")


if __name__ == "__main__":
    main()
