"""A test collection small enough to judge by eye, written in BEIR's layout, and scorers that cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.pairs import PairScores

DOCUMENTS = {
    "undo": "git revert undoes a commit with a new one",
    "log": "git log shows the history of commits",
    "cake": "a cake needs flour, eggs and sugar",
    "bread": "bread needs flour, water and time",
    "moon": "the moon goes round the earth in a month",
}
QUERIES = {"git": "how do I undo a commit", "baking": "what does bread need", "sky": "how long is a month"}
QRELS = {"git": {"undo": 2, "log": 1}, "baking": {"bread": 1, "cake": 0}, "sky": {"moon": 1}}
# The first stage has the best document last, the middle, and first.
CANDIDATES = {"git": ["cake", "log", "undo"], "baking": ["cake", "bread"], "sky": ["moon", "log", "cake"]}


def write_beir(
    folder: Path,
    *,
    documents: Mapping[str, str] = DOCUMENTS,
    queries: Mapping[str, str] = QUERIES,
    qrels: Mapping[str, Mapping[str, int]] = QRELS,
    candidates: Mapping[str, Sequence[str]] | None = CANDIDATES,
) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    lines(folder / "corpus.jsonl", (json.dumps({"_id": i, "title": "", "text": t}) for i, t in documents.items()))
    lines(folder / "queries.jsonl", (json.dumps({"_id": i, "text": t}) for i, t in queries.items()))
    rows = [f"{q}\t{d}\t{grade}" for q, judged in qrels.items() for d, grade in judged.items()]
    lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *rows])
    if candidates is not None:
        rows = [f"{q}\t{d}\t{r}\t{9.0 - r}" for q, found in candidates.items() for r, d in enumerate(found, start=1)]
        lines(folder / "candidates.tsv", ["query-id\tcorpus-id\trank\tscore", *rows])
    return folder


def lines(path: Path, rows: Any) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


class Scores:
    """Scores pairs by a function of the two texts, as a model would."""

    def __init__(self, by: Callable[[str, str], float], name: str = "by-hand", kind: str = "logit") -> None:
        self.name, self._by, self._kind = name, by, kind
        self.calls: list[int] = []  # how many pairs each time

    def info(self) -> dict[str, Any]:
        return {"model": self.name, "precision": "float32"}

    def score(self, pairs: Sequence[tuple[str, str]], *, show_progress_bar: Any = None) -> PairScores:
        self.calls.append(len(pairs))
        logits = np.array([self._by(*pair) for pair in pairs], np.float32)[:, None]
        if callable(show_progress_bar):
            show_progress_bar(len(pairs))
        relevance = logits[:, 0].astype(np.float64)
        scores = 1 / (1 + np.exp(-relevance)) if self._kind == "sigmoid" else relevance
        none = np.zeros(len(pairs), np.int64)
        cut = np.array([len(document) > 1000 for _, document in pairs], np.int64)
        return PairScores(scores, logits, relevance, self._kind, none, cut, 10 * len(pairs), 0.001 * len(pairs))


def shared_words(query: str, document: str) -> float:
    return float(len(set(query.split()) & set(document.split())))
