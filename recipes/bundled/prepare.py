"""From a data folder to what train.py reads: a sample of pairs, the body's states of every text, mined candidates.

Writes, for queries and documents, ``*.states.npy`` ``[tokens, H]`` float16, ``*.ids.npy`` ``[tokens]``,
``*.offsets.npy`` ``[texts + 1]`` and ``*.vectors.npy`` ``[texts, H]``; ``lexical.npy`` and ``dense.npy``
``[variants, candidates]``; ``word_weight.npy`` ``[vocabulary]``; and the texts as JSON. The default sample is twelve
million tokens: 10 GB, and 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from recipes.bundled.processor import native

# Pairs of each file, at the most: breadth over depth, for the files differ in size by a factor of 60.
SAMPLE = {
    "openstax": 22000,
    "docs": 24000,
    "docstrings": 14000,
    "debian": 9000,
    "medquad": 6000,
    "tldr": 8000,
    "wordnet": 6000,
    "pydoc": 5000,
    "covidqa": 1032,
}
# Kinds of pairs whose passage was found by word overlap: about seven in ten are right.
LESS_SURE = {"claim": 0.6, "objective": 0.6, "question": 0.6}
MOST_VARIANTS = 3
QUERY_TOKENS, DOCUMENT_TOKENS = 40, 192
CANDIDATES = 24
HELD_OUT = 360


def usable(source: str, pair: dict) -> bool:
    """Whether a pair may be trained on: no answers of evaluation data, no query with many documents."""
    return not (source == "medquad" and pair["in_liveqa"]) and not (source == "tldr" and pair["pages_with_query"] > 1)


def select(folder: Path, fraction: float) -> tuple[list[dict], list[tuple[str, str]]]:
    """Queries with their wordings, and the distinct documents as ``(source, text)``."""
    draw = random.Random(1)
    index: dict[tuple[str, str], int] = {}
    queries: list[dict] = []
    for source, most in SAMPLE.items():
        with gzip.open(folder / f"{source}.jsonl.gz", "rt", encoding="utf-8") as lines:
            pairs = [pair for pair in map(json.loads, lines) if usable(source, pair)]
        draw.shuffle(pairs)
        for pair in pairs[: max(1, int(most * fraction))]:
            position = index.setdefault((source, pair["positive"]), len(index))
            wordings = [pair["query"], *(pair.get("query_variants") or [])][:MOST_VARIANTS]
            weight = LESS_SURE.get(pair.get("kind", ""), 1.0)
            queries.append({"source": source, "wordings": wordings, "positive": position, "weight": weight})
    return queries, list(index)


def tokenize(tokenizer: Tokenizer, texts: list[str], most: int) -> list[list[int]]:
    """Ids with the opening and closing token, cut to ``most``."""
    return [
        ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]
        for start in range(0, len(texts), 2000)
        for ids in (encoding.ids for encoding in tokenizer.encode_batch(texts[start : start + 2000]))
    ]


@torch.inference_mode()
def encode(model: torch.nn.Module, rows: list[list[int]], folder: Path, name: str, budget: int = 6144) -> None:
    """The body's last states and their normalised mean, written to disk."""
    lengths = np.array([len(row) for row in rows])
    offsets = np.concatenate([[0], lengths.cumsum()])
    hidden = model.config.hidden_size
    states = np.lib.format.open_memmap(folder / f"{name}.states.npy", "w+", np.float16, (int(offsets[-1]), hidden))
    vectors = np.zeros((len(rows), hidden), np.float32)
    order = np.argsort(lengths, kind="stable")
    start, printed, began = 0, time.time(), time.time()
    while start < len(order):
        end = start + 1
        while end < len(order) and (end - start + 1) * lengths[order[end]] <= budget:
            end += 1
        batch = order[start:end]
        longest = -(-int(lengths[batch].max()) // 8) * 8
        ids = np.zeros((len(batch), longest), np.int64)
        for row, i in enumerate(batch):
            ids[row, : lengths[i]] = rows[i]
        mask = torch.from_numpy((np.arange(longest) < lengths[batch][:, None]).astype(np.int64))
        out = model(input_ids=torch.from_numpy(ids), attention_mask=mask).last_hidden_state
        weight = mask.float().unsqueeze(-1)
        mean = torch.nn.functional.normalize((out.float() * weight).sum(1) / weight.sum(1), dim=1)
        vectors[batch] = mean.numpy()
        plain = out.to(torch.float16).numpy()
        for row, i in enumerate(batch):
            states[offsets[i] : offsets[i + 1]] = plain[row, : lengths[i]]
        start = end
        if time.time() - printed > 30:
            printed = time.time()
            print(f"{name}: {start} of {len(order)} texts, {time.time() - began:.0f} s", flush=True)
    np.save(folder / f"{name}.vectors.npy", vectors)
    np.save(folder / f"{name}.offsets.npy", offsets)
    np.save(folder / f"{name}.ids.npy", np.concatenate([np.array(row, np.int32) for row in rows]))


def word_weights(ids: np.ndarray, offsets: np.ndarray, size: int, special: tuple[int, ...]) -> np.ndarray:
    """Inverse document frequency of each word piece (Robertson and Spärck Jones 1976), scaled to about 1."""
    frequency = np.zeros(size)
    for begin, end in itertools.pairwise(offsets):
        frequency[np.unique(ids[begin:end])] += 1
    documents = len(offsets) - 1
    weight = np.log(1 + (documents - frequency + 0.5) / (frequency + 0.5)) / 6
    weight[list(special)] = 0
    return weight.astype(np.float32)


def mine(queries: list[dict], folder: Path, texts: list[str], sources: np.ndarray, query_of: np.ndarray) -> None:
    """Documents near the top of the bi-encoder and of BM25, within each source."""
    q = np.load(folder / "queries.vectors.npy")
    d = np.load(folder / "documents.vectors.npy")
    wordings = [text for query in queries for text in query["wordings"]]
    source_of = np.array([query["source"] for query in queries])
    dense = np.zeros((len(wordings), CANDIDATES), np.int32)
    lexical = np.zeros((len(wordings), CANDIDATES), np.int32)
    counts = np.bincount(query_of)
    first = np.concatenate([[0], counts.cumsum()[:-1]])
    # BM25 is asked one wording of each query, and the others share its list.
    asked = first + (np.random.default_rng(0).random(len(first)) * counts).astype(int)
    for source in np.unique(source_of):
        members = np.where(sources == source)[0]
        # A small source is repeated to fill a row.
        width = min(CANDIDATES, len(members))
        repeat = np.arange(CANDIDATES) % width
        mine_here = np.where(source_of[query_of] == source)[0]
        for start in range(0, len(mine_here), 1000):
            part = mine_here[start : start + 1000]
            best = np.argsort(-(q[part] @ d[members].T), axis=1, kind="stable")[:, :width]
            dense[part] = members[best][:, repeat]
        index = bm25s.BM25()
        index.index(
            bm25s.tokenize([texts[i] for i in members], stopwords="en", show_progress=False), show_progress=False
        )
        chosen = asked[source_of == source]
        tokens = bm25s.tokenize([wordings[i] for i in chosen], stopwords="en", return_ids=False, show_progress=False)
        found, _ = index.retrieve(tokens, k=width, show_progress=False)
        lexical[chosen] = members[found][:, repeat]
        print(f"{source}: {len(members)} documents, {len(mine_here)} wordings", flush=True)
    np.save(folder / "dense.npy", dense)
    # Last and in one move: where it is, the folder is whole.
    np.save(folder / "lexical.part.npy", lexical[asked[query_of]])
    (folder / "lexical.part.npy").replace(folder / "lexical.npy")


def run(data: Path, body: Path, output: Path, *, fraction: float = 1.0, threads: int = 2) -> None:
    """Write the folder; ``lexical.npy`` comes last."""
    torch.set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    queries, documents = select(data, fraction)
    wordings = [text for query in queries for text in query["wordings"]]
    query_of = np.repeat(np.arange(len(queries)), [len(query["wordings"]) for query in queries])
    held_out = np.random.default_rng(0).choice(len(queries), min(HELD_OUT, len(queries) // 10), replace=False)
    table = {
        "text": wordings,
        "query_of": query_of.tolist(),
        "source": [query["source"] for query in queries],
        "positive": [query["positive"] for query in queries],
        "weight": [query["weight"] for query in queries],
        "held_out": sorted(held_out.tolist()),
    }
    texts = [text for _, text in documents]
    sources = [source for source, _ in documents]
    (output / "queries.json").write_text(json.dumps(table), encoding="utf-8")
    (output / "documents.json").write_text(json.dumps(texts), encoding="utf-8")
    (output / "document_sources.json").write_text(json.dumps(sources), encoding="utf-8")
    print(f"{len(queries)} queries in {len(wordings)} wordings, {len(documents)} documents", flush=True)
    tokenizer = Tokenizer.from_file(str(body / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = AutoModel.from_pretrained(body).eval().to(native())
    encode(model, tokenize(tokenizer, wordings, QUERY_TOKENS), output, "queries")
    encode(model, tokenize(tokenizer, texts, DOCUMENT_TOKENS), output, "documents")
    offsets, ids = np.load(output / "documents.offsets.npy"), np.load(output / "documents.ids.npy")
    special = (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]"))
    np.save(output / "word_weight.npy", word_weights(ids, offsets, tokenizer.get_vocab_size(), special))
    mine(queries, output, texts, np.array(sources), query_of)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the training files, *.jsonl.gz")
    parser.add_argument("--body", type=Path, required=True, help="folder of the bi-encoder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fraction", type=float, default=1.0, help="how much of the sample to take")
    parser.add_argument("--threads", type=int, default=2)
    run(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
