"""Compare settings of ``crossrank train`` on small samples of real data. The defaults were chosen with it.

    python -m recipes.small_data ../shared/data build/small_data --tasks covidqa medquad --sizes 50 200 \
        --try "" "loss=lambda" "loss=lambda,learning_rate=1e-3"

A task is a pool of queries to sample training data from, and other queries to measure on. Negatives are mined by BM25
with the defaults of ``crossrank mine``. A run is one of ``crossrank train``, but averages with the base at the end, so
that one training gives figures for several shares. Runs that are already in the results are not repeated. ``--table``
only prints the table.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crossrank.data.bm25 import Bm25, best
from crossrank.data.dataset import Dataset
from crossrank.data.judgements import Group, Judgement
from crossrank.data.open_dataset import read_beir
from crossrank.data.text_lines import numbered, record
from crossrank.evaluation.significance import permutation_p
from crossrank.training import base_model, train
from crossrank.training.guard_set import load_guard
from crossrank.training.held_out import asks_for, measure, sentence_transformers_logits
from crossrank.training.negatives import Mining, mine
from crossrank.training.settings import Settings
from crossrank.training.split_bert_torch import KeptStates

Row = dict[str, Any]
CORPUS, MEASURED, DEPTH = 3000, 150, 25
MOST_KEPT = 4 << 30
# SciFact's test part with the first of BM25's candidates; no choice is based on it.
FINAL, FINAL_DEPTH = "scifact-test", 50
# Marks a relevant document that is not among the candidates.
ABSENT = "absent"


@dataclass(frozen=True)
class Task:
    """Queries with their positives to sample from, the corpus, and the queries to measure on."""

    pool: Sequence[tuple[str, Sequence[str]]]
    corpus: Sequence[str]
    measured: Sequence[Group]


def scifact(folder: Path, *, final: bool) -> Task:
    """Read SciFact's training part, to measure on some of its queries or on the test part."""
    train = read_beir(folder, split="train")
    corpus = [train.corpus.text(i) for i in range(len(train.corpus.ids))]
    pool = [(text, found) for _, text, found in _queries(train)]
    random.Random(0).shuffle(pool)
    if not final:
        return Task(pool[MEASURED:], corpus, _candidates(pool[:MEASURED], corpus))
    test = read_beir(folder)
    listed = _listed(test, FINAL_DEPTH)
    return Task(pool, corpus, [_group(text, found, listed[name]) for name, text, found in _queries(test)])


def _queries(data: Dataset) -> list[tuple[str, str, list[str]]]:
    """Name, text and relevant documents of each query, by name."""
    index, text = data.corpus.index, data.corpus.text
    relevant = {name: [text(index[one]) for one, grade in data.qrels[name].items() if grade] for name in data.queries}
    return [(name, data.queries[name], relevant[name]) for name in sorted(data.queries)]


def _listed(data: Dataset, depth: int) -> dict[str, list[str]]:
    """The candidates of each query, best first."""
    found = data.candidates
    assert found is not None
    return {
        name: [data.corpus.text(int(i)) for i in found.documents[found.of(number)][:depth]]
        for number, name in enumerate(data.queries)
    }


def pairs_file(file: Path) -> Task:
    """Sample one of the files of training pairs."""
    rows = [row for row in _lines(file) if not row.get("in_liveqa")]
    random.Random(0).shuffle(rows)
    by_query: dict[str, list[str]] = {}
    for row in rows[:CORPUS]:
        by_query.setdefault(row["query"], []).append(row["positive"])
    corpus = list(dict.fromkeys(text for texts in by_query.values() for text in texts))
    pool = list(by_query.items())
    return Task(pool[MEASURED:], corpus, _candidates(pool[:MEASURED], corpus))


def _candidates(queries: Sequence[tuple[str, Sequence[str]]], corpus: Sequence[str]) -> list[Group]:
    """Take BM25's best. Queries without a relevant document among them measure nothing and are left out."""
    index = Bm25(corpus)
    groups = [_group(text, found, [corpus[i] for i in best(index.scores(text), DEPTH)]) for text, found in queries]
    return [group for group in groups if any(one.label and one.file != ABSENT for one in group.judged)]


def _group(query: str, relevant: Sequence[str], documents: Sequence[str]) -> Group:
    listed = [Judgement(query, text, float(text in relevant)) for text in dict.fromkeys(documents)]
    return Group(query, (*listed, *(Judgement(query, one, 1.0, ABSENT) for one in relevant if one not in documents)))


def _lines(file: Path) -> list[Row]:
    return [dict(record(place, line)) for place, line in numbered(file)]


def guard() -> list[Group]:
    """The guard set as groups."""
    data = load_guard()
    listed = _listed(data, len(data.corpus.ids))
    relevant = {name: found for name, _, found in _queries(data)}
    return [_group(text, relevant[name], listed[name]) for name, text in data.queries.items()]


def ndcg_of(groups: Sequence[Group], model: Any) -> NDArray[np.float64]:
    """Give nDCG@10 of every query. Relevant documents that are not candidates are ranked last."""
    logits = sentence_transformers_logits(model, 32)

    def with_absent(pairs: list[tuple[str, str]]) -> NDArray[np.float64]:
        judged = [one for group in groups for one in group.judged]
        there = np.array([one.file != ABSENT for one in judged])
        values = np.full(len(pairs), -1e9)
        values[there] = logits([pair for pair, listed in zip(pairs, there, strict=True) if listed])
        return values

    return measure(groups, with_absent).ndcg


class OnKept(KeptStates):
    """Caches the states after all layers of a model whose upper layers were trained, on top of the lower ones."""

    def __init__(self, network: Any, lower: KeptStates) -> None:
        super().__init__(network.config.num_hidden_layers, MOST_KEPT)
        self.network, self.lower = network, lower

    def __call__(self, read: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Give the states as :class:`KeptStates` does, without ``read``."""

        def whole(text: torch.Tensor) -> torch.Tensor:
            layers, all_of_it = self.lower.layers, torch.ones_like(text)
            states = self.lower(lambda ids: self.network.lower_layers(ids, layers), text, all_of_it)
            return self.network.upper_layers(states, all_of_it, layers)

        return super().__call__(whole, ids, mask)


class Bench:
    """The figures of the base, and runs to compare with it."""

    def __init__(self, folder: Path, tasks: Mapping[str, Task], base: str | None) -> None:
        self.folder, self.tasks, self.base = folder, tasks, base
        # All runs read the same texts with the same frozen layers.
        self.kept: dict[int, KeptStates] = {}
        base_model.KeptStates = lambda layers: self.kept.setdefault(layers, KeptStates(layers, MOST_KEPT))  # type: ignore[assignment, misc]
        self.measured = {"guard": guard(), **{name: task.measured for name, task in tasks.items()}}
        model = self._open(base, Settings())
        self.weights = base_model.weights_of(model)
        self.before = {name: ndcg_of(self.measured[name], model) for name in self.measured}
        for name, values in self.before.items():
            print(f"base on {name}: {values.mean():.4f} ({len(values)} queries)", flush=True)

    def _open(self, name: str | None, settings: Settings) -> Any:
        found = base_model.find_base(name, self.folder / "base")
        model = base_model.open_model(found, settings, "cpu")
        base_model.freeze(model, found, settings)
        return model

    def run(self, task: str, size: int, seed: int, tried: str, shares: Sequence[float]) -> Row:
        """Sample, train and measure.

        :param tried: Settings that differ from the defaults, ``NAME=VALUE,...``; of mining ``mine.NAME=VALUE``; general
            pairs to mix in ``mix=FILE``.
        """
        given = [one for one in tried.split(",") if one]
        settings = Settings.parse([one for one in given if not one.startswith(("mine.", "mix="))])
        general = [one[4:] for one in given if one.startswith("mix=")]
        started = time.perf_counter()
        pool = list(self.tasks[task].pool)
        random.Random(f"{task} {size} {seed}").shuffle(pool)
        groups = [Group(text, tuple(Judgement(text, one, 1.0) for one in found)) for text, found in pool[:size]]
        corpus = self.tasks[task].corpus
        mined, _ = mine(groups, corpus, [Bm25(corpus).scores], _mining(given, seed))
        with tempfile.TemporaryDirectory() as place:
            settings = replace(settings, seed=seed, average_with_base=0.0)
            result = train(
                [vars(one) for one in mined], Path(place) / "model", settings, base=self.base, general=general
            )
            trained = time.perf_counter() - started
            model = self._open(str(result.output), settings)
        learnt = base_model.weights_of(model)
        network, kept = model.model, getattr(model.model, "kept", None)
        # Queries whose gain can't come from a memorised document.
        documents = {one.document for group in groups for one in group.judged}
        new = np.array([not asks_for(group, documents) for group in self.measured[task] if group.can_rank])
        row: Row = {"queries": len(mined), "steps": result.steps, "seconds": round(trained, 1)}
        for share in shares:
            model.model.load_state_dict(learnt)
            base_model.average(model, self.weights, share)
            if settings.lora_rank or kept is None:
                network.kept = KeptStates(network.config.num_hidden_layers, MOST_KEPT)
            elif kept.layers < network.config.num_hidden_layers:
                network.kept = OnKept(network, kept)
            gains = {name: ndcg_of(self.measured[name], model) - self.before[name] for name in (task, "guard")}
            row |= {f"{name} {share:g}": _gain(found) for name, found in gains.items()}
            if new.any():
                row[f"new {share:g}"] = [*_gain(gains[task][new]), int(new.sum())]
        return row


def _gain(gains: NDArray[np.float64]) -> list[float]:
    return [round(float(gains.mean()), 4), round(float(permutation_p(gains[:, None])[0]), 4)]


def _mining(given: Sequence[str], seed: int) -> Mining:
    kinds = {one.name: {"int": int, "float": float, "str": str}[str(one.type)] for one in fields(Mining)}
    pairs = [one[5:].split("=") for one in given if one.startswith("mine.")]
    return Mining(**{"seed": seed, **{name: kinds[name](value) for name, value in pairs}})


def table(rows: Sequence[Row]) -> None:
    """Print the mean gain over tasks and seeds, and the worst, by settings and share of the base."""
    keys = list(dict.fromkeys((row["size"], row["settings"]) for row in rows))
    for size, text in sorted(keys):
        these = [row for row in rows if (row["size"], row["settings"]) == (size, text)]
        shares = [key.split()[1] for key in these[0] if key.startswith("guard ")]
        print(f"\n{size} queries, {text or 'defaults'}: {len(these)} runs, {_mean(r['seconds'] for r in these):.0f} s")
        for share in shares:
            own = [row[f"{row['task']} {share}"] for row in these]
            kept = [row[f"guard {share}"] for row in these]
            new = [row[f"new {share}"][0] for row in these if f"new {share}" in row]
            worse = sum(gain < 0 and p < 0.05 for gain, p in own)
            better = sum(gain > 0 and p < 0.05 for gain, p in own)
            print(
                f"  base {share}: gain {_mean(gain for gain, _ in own):+.4f} (least {min(own)[0]:+.4f}, significantly "
                f"better {better}, worse {worse}{f'; for new documents {_mean(new):+.4f}' if new else ''}), guard "
                f"{_mean(gain for gain, _ in kept):+.4f} (least {min(kept)[0]:+.4f})"
            )


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the collections")
    parser.add_argument("output", type=Path, help="folder for the results")
    parser.add_argument("--base", help="model to start from (default: the bundled model)")
    parser.add_argument("--tasks", nargs="+", default=["scifact"], help="scifact, scifact-test, or a file in train/")
    parser.add_argument("--sizes", nargs="+", type=int, default=[200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.5], help="of the base in the weights")
    parser.add_argument("--try", dest="tried", nargs="+", default=[""], metavar="NAME=VALUE,...")
    parser.add_argument("--table", action="store_true", help="only print the results that are there")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "results.jsonl"
    rows = _lines(file) if file.exists() else []
    if not args.table:
        known = {(row["task"], row["size"], row["seed"], row["settings"]) for row in rows}
        tasks = {
            name: scifact(args.data / "scifact", final=name == FINAL)
            if name in ("scifact", FINAL)
            else pairs_file(args.data / "train" / f"{name}.jsonl.gz")
            for name in args.tasks
        }
        bench = Bench(args.output, tasks, args.base)
        for text in args.tried:
            for size in args.sizes:
                for seed in args.seeds:
                    for task in args.tasks:
                        if (task, size, seed, text) in known:
                            continue
                        found = bench.run(task, size, seed, text, args.shares)
                        row = {"task": task, "size": size, "seed": seed, "settings": text, **found}
                        print(json.dumps(row), flush=True)
                        rows.append(row)
                        with file.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(row) + "\n")
    table(rows)


if __name__ == "__main__":
    main()
