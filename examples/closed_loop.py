"""The closed loop: people use a search engine, a model learns from their clicks, and the engine goes over to it.

Two processes do the work: `crossrank serve` ranks and keeps feedback, and `crossrank learn --every` trains on it and
puts a model into use if it is better. This script plays the people. They look at place k with a chance of one in k. Of
the documents they look at, they click nine in ten of the relevant ones and three in a hundred of the others. Nobody
tells the model what is relevant: the judgements only steer the clicks, and measure the ranking on queries that nobody
asks.

    python examples/closed_loop.py ../shared/data/scifact

What stands after `--` are options of `crossrank learn`; they take the place of the script's own.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import math
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.data.bm25 import Bm25, best

CLICKS_RELEVANT, CLICKS_OTHER = 0.9, 0.03
SHOWN = 10
LEARN = [
    *("--loss", "mnrl", "--freeze", "4", "--lr", "1e-4", "--epochs", "4", "--held-out", "0"),
    *("--alpha", "0.2", "--eval-share", "0.3"),
]
CACHE = ["--document-cache", "1GB"]  # all documents of the collection, so that a model reads each of them once
LONGEST_WAIT = 3600.0


@dataclass(frozen=True)
class Search:
    """A query with the documents that a first stage finds, and what is relevant, which only people know."""

    query: str
    documents: tuple[str, ...]
    relevant: frozenset[str]


def read(folder: Path, words: int, candidates: int, most: int) -> tuple[list[Search], list[Search]]:
    """Queries that people ask (the training part) and queries that nobody asks (the test part), by BM25."""
    corpus = {row["_id"]: " ".join(f"{row['title']} {row['text']}".split()[:words]) for row in _rows(folder / "corpus")}
    names, index = list(corpus), Bm25(list(corpus.values()))

    def searches(queries: Mapping[str, str], split: str) -> list[Search]:
        relevant: dict[str, set[str]] = {}
        for line in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            if float(grade) > 0 and document in corpus:
                relevant.setdefault(query, set()).add(document)
        found = []
        for query in sorted(relevant.keys() & queries.keys(), key=lambda name: random.Random(name).random())[:most]:
            chosen = [names[i] for i in best(index.scores(queries[query]), candidates)]
            # A first stage that finds what there is to find: the loop is about the order.
            chosen += sorted(relevant[query] - set(chosen))
            texts = tuple(dict.fromkeys(corpus[name] for name in chosen))
            found.append(Search(queries[query], texts, frozenset(corpus[name] for name in relevant[query])))
        return found

    asked, unasked = (
        {row["_id"]: row["text"] for row in _rows(folder / name)} for name in ("queries-train", "queries")
    )
    return searches(asked, "train"), searches(unasked, "test")


def _rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]


class Engine:
    """The server as people see it. Counts requests and those that failed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = 0
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send a request; give its answer, or ``None`` if it failed."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        failure = None
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError) as error:  # no connection, or a status of 400 and above
            failure = f"{path}: {error}"
            return None
        finally:
            with self._lock:
                self.requests += 1
                self.failures += [failure] if failure else []

    def rank(self, search: Search, **more: Any) -> dict[str, Any] | None:
        """Have a query's documents ranked."""
        return self.post("/v1/rerank", {"query": search.query, "documents": search.documents, "top_n": SHOWN, **more})

    def visit(self, user: str, searches: Sequence[Search], chance: random.Random) -> list[dict[str, Any]]:
        """One person asks some queries; give what this person clicks, as feedback."""
        said = []
        for search in searches:
            answer = self.rank(search, store=True) or {"results": []}
            clicked = []
            for place, result in enumerate(answer["results"], start=1):
                relevant = search.documents[result["index"]] in search.relevant
                if chance.random() < 1 / place and chance.random() < (CLICKS_RELEVANT if relevant else CLICKS_OTHER):
                    clicked.append(result["index"])
            if answer["results"]:
                said.append({"request_id": answer["id"], "clicked": clicked, "user": user})
        return said

    def judge(self, said: Mapping[str, Any]) -> bool:
        """Send feedback; whether it was taken."""
        return self.post("/v1/feedback", said) is not None

    def ndcg(self, searches: Sequence[Search]) -> float:
        """NDCG@10 on queries whose judgements are known."""

        def value(search: Search) -> float:
            answer = self.rank(search) or {"results": []}
            gains = [search.documents[result["index"]] in search.relevant for result in answer["results"]]
            ideal = sum(1 / math.log2(place + 1) for place in range(1, min(SHOWN, len(search.relevant)) + 1))
            return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1)) / ideal

        with ThreadPoolExecutor(4) as threads:
            return sum(threads.map(value, searches)) / len(searches)

    @contextmanager
    def passers_by(self, searches: Sequence[Search]) -> Iterator[None]:
        """People who only look, nearly one in each second, whatever happens to the model."""
        stop = threading.Event()

        def look() -> None:
            for number in range(10**9):
                self.rank(searches[number % len(searches)])
                if stop.wait(1):
                    return

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


class Process:
    """A command of crossrank beside this script. The lines it prints wait in a queue."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.name, self._log = arguments[0], log
        self._stream = log.open("w", encoding="utf-8")
        command = [sys.executable, "-m", "crossrank", *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._stream, text=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line)
        self._lines.put(None)

    def line(self) -> str:
        """The next line that it prints."""
        line = self._lines.get(timeout=LONGEST_WAIT)
        if line is None:
            raise SystemExit(f"crossrank {self.name} has ended. It said: {self.said()}")
        return line

    def said(self) -> str:
        """What it has printed to standard error."""
        return self._log.read_text(encoding="utf-8")

    def next_line(self) -> str:
        """A line that it has not printed yet."""
        while not self._lines.empty():
            self.line()
        return self.line()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stream.close()


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds, with what is measured before and after each."""
    asked, unasked = read(args.data, args.words, args.candidates, args.queries)
    print(f"{len(asked)} queries that people ask, {len(unasked)} that nobody asks", file=sys.stderr)
    store, registry = f"sqlite:///{folder.resolve() / 'feedback.db'}", ModelRegistry(folder / "registry")
    registry.folder.mkdir(parents=True)
    if args.base:
        registry.switch(registry.publish(args.base))
    rounds: list[dict[str, Any]] = []
    with ExitStack() as stack:
        model = f"live=registry:{registry.folder}"
        serve = Process(folder / "serve.log", "serve", "--port", "0", "--model", model, "--feedback", store, *CACHE)
        stack.callback(serve.stop)
        engine = Engine(serve.line().split()[-1])
        rounds.append({"round": 0, "ndcg": engine.ndcg(unasked)})
        if engine.failures:
            raise SystemExit(f"The server does not rank: {engine.failures[0]}\n{serve.said()}")
        _tell(f"before: nDCG@10 {rounds[0]['ndcg']:.4f}")
        stack.enter_context(engine.passers_by(unasked))
        where = ["--feedback", store, "--registry", str(registry.folder)]
        learn = Process(folder / "learn.log", "learn", *where, "--every", args.every, "--json", *args.learn)
        stack.callback(learn.stop)
        judged = 0
        for number in range(1, args.rounds + 1):
            wave = asked[number - 1 :: args.rounds]

            def visit(user: int, number: int = number, wave: Sequence[Search] = wave) -> list[dict[str, Any]]:
                chosen = [wave[(user * args.asks + i) % len(wave)] for i in range(args.asks)]
                return engine.visit(f"user-{user}", chosen, random.Random(f"{number} {user}"))

            with ThreadPoolExecutor(4) as people:
                said = [one for visited in people.map(visit, range(args.users)) for one in visited]
                # Right after a round of learn, so that the next one sees all of it.
                learn.next_line()
                taken = sum(people.map(engine.judge, said))
            judged += taken
            _tell(f"round {number}: {taken} rankings judged; learn works")
            outcomes: list[dict[str, Any]] = []
            while not outcomes or outcomes[-1]["rows"] != judged:
                outcomes.append(json.loads(learn.line()))
            outcome = next((one for one in reversed(outcomes) if one["decision"]), outcomes[-1])
            _wait_for(engine, unasked[0], outcome["version"])
            rounds.append({"round": number, "judged": taken, **_figures(outcome), "ndcg": engine.ndcg(unasked)})
            _tell(f"round {number}: {outcome['state']}, nDCG@10 {rounds[-1]['ndcg']:.4f}")
            for reason in outcome["reasons"]:
                _tell(f"  {reason}")
    return {"rounds": rounds, "requests": engine.requests, "failures": engine.failures}


def _wait_for(engine: Engine, search: Search, version: str | None) -> None:
    end = time.monotonic() + 120
    while version is not None and time.monotonic() < end:
        answer = engine.rank(search)
        if answer and answer["crossrank"]["model_version"] == version:
            return
        time.sleep(0.2)
    if version is not None:
        raise SystemExit(f"The server has not gone over to {version} within two minutes.")


def _figures(outcome: Mapping[str, Any]) -> dict[str, Any]:
    decision = outcome["decision"] or {}
    compared = {name: decision[name] for name in ("data", "guard") if decision.get(name)}
    figures = {name: {key: one[key] for key in ("means", "queries", "p")} for name, one in compared.items()}
    return {"outcome": outcome["state"], "reasons": outcome["reasons"], "version": outcome["version"], **figures}


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def table(found: Mapping[str, Any]) -> str:
    """The rounds as a table in Markdown."""
    lines = [
        "| | rankings judged | held-out feedback | guard set | outcome | nDCG@10 on queries that nobody asks |",
        "|---|---:|---|---|---|---:|",
    ]
    for one in found["rounds"]:
        compared = []
        for name in ("data", "guard"):
            figures = one.get(name)
            compared.append(
                "{:.3f} to {:.3f} on {} queries, p = {:.3f}".format(*figures["means"], figures["queries"], figures["p"])
                if figures
                else ""
            )
        name = f"round {one['round']}" if one["round"] else "before"
        cells = (name, one.get("judged", ""), *compared, one.get("outcome", ""), f"{one['ndcg']:.3f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run; 1 if a request failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data", type=Path, help="a BEIR folder with queries-train.jsonl and qrels/train.tsv")
    parser.add_argument("--base", help="folder of the model to start from (default: the bundled model)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--asks", type=int, default=3, help="queries that each user asks in a round (default: 3)")
    parser.add_argument("--queries", type=int, default=1000, help="most queries of each part (default: 1000)")
    parser.add_argument("--candidates", type=int, default=10, help="documents of a query (default: 10)")
    parser.add_argument("--words", type=int, default=60, help="most words of a document (default: 60)")
    parser.add_argument("--every", default="60s", help="time between the rounds of learn (default: 60s)")
    parser.add_argument("--output", type=Path, help="keep the database, the registry and the logs here")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.learn = words[end + 1 :] or LEARN
    with tempfile.TemporaryDirectory() as folder:
        found = run(args, args.output or Path(folder))
    if args.json:
        print(json.dumps(found))
    else:
        print(table(found))
        print(f"\n{found['requests']} requests, {len(found['failures'])} failed", *found["failures"][:5], sep="\n")
    return int(bool(found["failures"]))


if __name__ == "__main__":
    sys.exit(main())
