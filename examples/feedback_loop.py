"""A search engine that learns from clicks: users click, `learn` trains, compares and promotes, and the engine follows.

The users are simulated: they look at the k-th place with a chance of one in k, click what is relevant nine times in
ten, and now and then what is not. Nobody tells the model what is relevant; the judgements only steer the users, and
measure, on queries that no user ever asks, what became of the ranking.

    python examples/feedback_loop.py ../shared/data/scifact
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossrank.checkpoint.model_registry import ModelRegistry
from crossrank.data.bm25 import Bm25, best
from crossrank.errors import ModelNotFoundError
from crossrank.scoring.cross_encoder import CrossEncoder
from crossrank.scoring.registry_model import RegistryModel
from crossrank.training import Settings
from crossrank.training.learning import Rules, learn

CLICKS_RELEVANT, CLICKS_OTHER = 0.9, 0.03
SHOWN = 10


@dataclass(frozen=True)
class Search:
    """What the engine searches for one query, and what is relevant, which only users know."""

    query: str
    documents: tuple[str, ...]
    relevant: frozenset[str]


def read(folder: Path, words: int, candidates: int, most: int) -> tuple[list[Search], list[Search]]:
    """Queries that users ask (the training part) and queries that nobody asks (the test part), by BM25."""
    corpus = {row["_id"]: f"{row['title']} {row['text']}" for row in _lines(folder / "corpus.jsonl")}
    corpus = {name: " ".join(text.split()[:words]) for name, text in corpus.items()}
    names, index = list(corpus), Bm25(list(corpus.values()))

    def searches(queries: Mapping[str, str], split: str) -> list[Search]:
        relevant: dict[str, set[str]] = {}
        for line in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            if float(grade) > 0 and document in corpus:
                relevant.setdefault(query, set()).add(document)
        found = []
        for query in sorted(relevant.keys() & queries.keys(), key=lambda name: random.Random(name).random())[:most]:
            scores = index.scores(queries[query])
            chosen = [names[i] for i in best(scores, candidates)]
            # A first stage that finds what there is to find: the users' queries are about the order.
            chosen += [name for name in sorted(relevant[query]) if name not in chosen]
            texts = tuple(dict.fromkeys(corpus[name] for name in chosen))
            found.append(Search(queries[query], texts, frozenset(corpus[name] for name in relevant[query])))
        return found

    def texts_of(file: str) -> dict[str, str]:
        return {row["_id"]: row["text"] for row in _lines(folder / file)}

    return searches(texts_of("queries-train.jsonl"), "train"), searches(texts_of("queries.jsonl"), "test")


def _lines(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def rankings(model: CrossEncoder, searches: Sequence[Search]) -> list[list[str]]:
    """What the engine shows for each query."""
    pairs = [(one.query, text) for one in searches for text in one.documents]
    relevance = model.score(pairs).logits[:, 0].tolist()
    ranked, start = [], 0
    for one in searches:
        scores = relevance[start : start + len(one.documents)]
        start += len(one.documents)
        order = sorted(range(len(scores)), key=lambda i, scores=scores: -scores[i])
        ranked.append([one.documents[i] for i in order])
    return ranked


def mean_ndcg(model: CrossEncoder, searches: Sequence[Search]) -> float:
    """NDCG@10 on queries whose judgements are known."""
    import numpy as np
    from sklearn.metrics import ndcg_score

    total = 0.0
    for one, ranked in zip(searches, rankings(model, searches), strict=True):
        total += ndcg_score([[float(text in one.relevant) for text in ranked]], [-np.arange(len(ranked))], k=10)
    return total / len(searches)


def ask(model: CrossEncoder, searches: Sequence[Search], sessions: int, version: str, seed: int) -> list[str]:
    """Lines of feedback: every query is asked so often, by users who look at the top more than at the bottom."""
    users = random.Random(seed)
    lines = []
    for one, ranked in zip(searches, rankings(model, searches), strict=True):
        shown = ranked[:SHOWN]
        for _ in range(sessions):
            clicked = []
            for place, text in enumerate(shown, start=1):
                looks = users.random() < 1 / place
                chance = CLICKS_RELEVANT if text in one.relevant else CLICKS_OTHER
                if looks and users.random() < chance:
                    clicked.append(place)
            row = {"query": one.query, "documents": shown, "clicked": clicked, "model_version": version}
            lines.append(json.dumps(row, ensure_ascii=False))
    return lines


def run(args: argparse.Namespace, folder: Path) -> list[float]:
    """All rounds; nDCG@10 before, and after each."""
    asked, unasked = read(args.data, args.words, args.candidates, args.queries)
    registry, feedback = ModelRegistry(folder / "registry"), folder / "feedback"
    feedback.mkdir(parents=True)
    # What a server would hold; it follows the registry.
    serving = RegistryModel(registry.folder, check_every=0)
    base = CrossEncoder(args.base)
    values = [mean_ndcg(base, unasked)]
    print(f"{len(asked)} queries that users ask, {len(unasked)} that nobody asks")
    print(f"before: nDCG@10 {values[0]:.4f} on queries that nobody asks")
    for number in range(args.rounds):
        try:
            model, version = serving.current(), serving.version
        except ModelNotFoundError:  # nothing was promoted yet
            model, version = base, "base"
        part = asked[number :: args.rounds]
        lines = ask(model, part, args.sessions, version, seed=number)
        (feedback / f"round-{number + 1}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        outcome = learn(
            feedback,
            registry,
            base=args.base,
            rules=Rules(min_judgements=args.min_judgements, eval_share=0.3),
            training=Settings.parse(args.set),
            guard=args.guard,
        )
        after = serving.current() if outcome.version else base
        values.append(mean_ndcg(after, unasked))
        print(f"round {number + 1}: {len(lines)} rankings shown; {outcome.state}, in use: {outcome.version or 'base'}")
        for reason in outcome.reasons:
            print(f"  {reason}")
        print(f"  nDCG@10 {values[-1]:.4f} on queries that nobody asks", flush=True)
    print(f"in all: {values[0]:.4f} -> {values[-1]:.4f}")
    return values


def main(argv: Sequence[str] | None = None) -> list[float]:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a BEIR folder with queries-train.jsonl and qrels/train.tsv")
    parser.add_argument("--base", help="model to start from (default: the bundled model)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=300, help="of each part")
    parser.add_argument("--candidates", type=int, default=10, help="documents of a query")
    parser.add_argument("--words", type=int, default=60, help="most words of a document")
    parser.add_argument("--sessions", type=int, default=5, help="how often each query is asked")
    parser.add_argument("--min-judgements", type=int, default=100)
    parser.add_argument("--guard", default="bundled")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the training")
    parser.add_argument("--output", type=Path, help="keep registry and feedback here")
    args = parser.parse_args(argv)
    if args.output is not None:
        return run(args, args.output)
    with tempfile.TemporaryDirectory() as folder:
        return run(args, Path(folder))


if __name__ == "__main__":
    main()
