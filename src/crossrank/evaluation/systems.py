"""Systems that score the candidates of a dataset: first stage, bi-encoder, cross-encoders."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossrank.data.candidates import Candidates
from crossrank.data.dataset import Dataset
from crossrank.errors import InputError
from crossrank.evaluation.measures import per_query
from crossrank.evaluation.result import Shown, System
from crossrank.evaluation.score_store import ScoredQuery, WorkFile, slug
from crossrank.evaluation.significance import mean_intervals
from crossrank.pairs import PairScores
from crossrank.progress import progress_of
from crossrank.scoring.bi_encoder import Embeddings

Floats = NDArray[np.float64]
TOP = 10  # documents of a query that an evaluation keeps

# The most pairs per call of a model, and the seconds that a call may take; the first query shows the speed of the
# model. An interrupted evaluation loses at most one call.
GROUP = 2048
_SECONDS = 10.0
# A model that reads query and document separately reads a document that several queries share once per call. So its
# calls are larger, and their size depends on the number of different documents.
GROUP_APART = 65536
_SECONDS_APART = 120.0
# Documents that a bi-encoder embeds per call.
_EMBEDDED = 512
# Kinds of scores that are probabilities.
PROBABILITIES = ("sigmoid", "softmax", "calibrated")


class Scorer(Protocol):
    """A reranker: a :class:`~crossrank.scoring.cross_encoder.CrossEncoder`, or an object with the same methods."""

    name: str

    def score(self, pairs: Any, *, show_progress_bar: Any = None) -> PairScores:
        """Score pairs of texts; ``show_progress_bar`` is called with the number of pairs just done."""

    def info(self) -> Mapping[str, Any]:
        """Describe the model and its settings."""


class Embedder(Protocol):
    """A bi-encoder."""

    name: str

    def embed(self, texts: Sequence[str], *, role: str | None = None, show_progress_bar: Any = None) -> Embeddings:
        """Embed texts as queries or as documents: vectors ``[texts, width]``, each of length 1."""

    def info(self) -> Mapping[str, Any]:
        """Describe the model and its settings."""


@dataclass(frozen=True)
class Scored:
    """The scores that one system gave to all candidates, in the order of the first stage.

    :param relevance: ``[pairs]``, scores to rank by; NaN below the depth.
    :param depth: How many candidates of each query were re-ranked. The others keep their order below them.
    :param probabilities: ``[pairs]``, or ``None``.
    :param milliseconds: ``[queries]``, or ``None`` if nothing was computed.
    """

    name: str
    kind: str
    relevance: Floats
    depth: int = 0
    probabilities: NDArray[np.float32] | None = None
    milliseconds: Floats | None = None
    pairs: int = 0
    seconds: float = 0.0
    pairs_cut: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)

    def order(self, candidates: Candidates, query: int, depth: int | None = None) -> NDArray[np.int64]:
        """Give the ranking of a query's candidates, as positions in the arrays; ties keep the first stage's order.

        :param depth: Use only this many re-ranked candidates.
        """
        here = candidates.of(query)
        end = min(here.stop, here.start + min(self.depth, self.depth if depth is None else depth))
        head = here.start + np.argsort(-self.relevance[here.start : end], kind="stable")
        return np.concatenate([head, np.arange(end, here.stop)])

    def system(
        self,
        candidates: Candidates,
        ids: Sequence[str],
        qrels: Mapping[str, Mapping[str, int]],
        measures: Sequence[Any],
        seed: int,
    ) -> System:
        """Measure the ranking.

        :param candidates: What was scored.
        :param ids: Identifiers of the documents, by number.
        :param qrels: Query -> document -> grade, in the order of the candidates' queries.
        """
        top: dict[str, list[Shown]] = {}
        ties = 0
        for number, (query, grades) in enumerate(qrels.items()):
            best = self.order(candidates, number)[:TOP]
            documents = [ids[i] for i in candidates.documents[best].tolist()]
            top[query] = [
                Shown(document, score, grades.get(document))
                for document, score in zip(documents, self.relevance[best].tolist(), strict=True)
            ]
            all_scores = self.relevance[candidates.of(number)]
            _, counts = np.unique(all_scores[~np.isnan(all_scores)], return_counts=True)
            ties += int(counts[counts > 1].sum())
        values = per_query(measures, qrels, lambda query: self.ranking(candidates, ids, query))
        return System(
            name=self.name,
            kind=self.kind,
            values=values,
            intervals=mean_intervals(values, seed=seed),
            top=top,
            milliseconds=self.milliseconds,
            pairs=self.pairs,
            seconds=self.seconds,
            pairs_cut=self.pairs_cut,
            ties=ties,
            facts=self.facts,
        )

    def ranking(self, candidates: Candidates, ids: Sequence[str], query: int, depth: int | None = None) -> list[str]:
        """Give a query's documents, best first; see :meth:`order`."""
        return [ids[i] for i in candidates.documents[self.order(candidates, query, depth)].tolist()]


def score_cross_encoder(
    dataset: Dataset,
    candidates: Candidates,
    model: Scorer,
    name: str,
    *,
    depth: int,
    work: Path,
    resume: bool,
    show_progress: bool | None,
) -> Scored:
    """Score the first ``depth`` candidates of each query. Scores are kept in the work folder.

    :raises InputError: If the model has several labels and none is named, a score is NaN, or the work folder has
        scores of other settings.
    """
    facts = dict(model.info())
    # Without what scores do not depend on, such as the folder, which may move, and the number of threads.
    kept = {key: value for key, value in facts.items() if key not in ("folder", "threads", "document_cache")}
    settings = {
        "system": name,
        "dataset": dataset.name,
        "texts": dataset.fingerprint(),
        "depth": depth,
        "label": getattr(model, "label", None),
        "files": _files(facts),
        **kept,
    }
    apart = bool(facts.get("document_cache"))
    most, seconds = (GROUP_APART, _SECONDS_APART) if apart else (GROUP, _SECONDS)
    texts = list(dataset.queries.values())
    names = list(dataset.queries)
    counts = np.minimum(candidates.counts, depth)
    places = [candidates.documents[start : start + n] for start, n in zip(candidates.starts, counts, strict=False)]
    with WorkFile(work_path(work, dataset.name, name), settings, resume=resume) as file:
        left = [i for i, query in enumerate(names) if query not in file.done and counts[i]]
        with progress_of(int(counts.sum()), show_progress) as progress:
            progress(int(sum(counts[i] for i, query in enumerate(names) if query in file.done)))
            size = 1
            while left:
                group, left = _group(left, places, most if apart else size, size)
                read = {
                    d: dataset.corpus.text(d) for d in np.unique(np.concatenate([places[i] for i in group])).tolist()
                }
                pairs = [(texts[i], read[d]) for i in group for d in places[i].tolist()]
                result = model.score(pairs, show_progress_bar=progress)
                rows = _rows([names[i] for i in group], [int(counts[i]) for i in group], result, name)
                file.add(rows)
                file.done.update((row.query, row) for row in rows)
                size = int(min(most, len(read if apart else pairs) * seconds / max(result.seconds, 1e-3)))
        done = file.done
    relevance = np.full(len(candidates.documents), np.nan)
    probabilities = np.full(len(candidates.documents), np.nan, np.float32)
    milliseconds = np.zeros(len(names))
    for i, query in enumerate(names):
        if (row := done.get(query)) is not None:
            at = int(candidates.starts[i])
            relevance[at : at + len(row.relevance)] = row.relevance
            probabilities[at : at + len(row.probabilities)] = row.probabilities
            milliseconds[i] = 1000 * row.seconds
    scored = ~np.isnan(relevance)
    return Scored(
        name,
        "cross-encoder",
        relevance,
        depth,
        probabilities=None if np.isnan(probabilities[scored]).any() else probabilities,
        milliseconds=milliseconds,
        pairs=int(scored.sum()),
        seconds=float(milliseconds.sum()) / 1000,
        pairs_cut=sum(row.cut for row in done.values()),
        facts=facts,
    )


def score_bi_encoder(
    dataset: Dataset,
    candidates: Candidates,
    model: Embedder,
    name: str,
    *,
    depth: int,
    work: Path,
    show_progress: bool | None,
) -> Scored:
    """Order the first ``depth`` candidates by the cosine with the query; each document is embedded once.

    The vectors are kept in a file in the work folder. Milliseconds include the vector of the query and the products,
    but not the embedding of documents, which an index does in advance.
    """
    counts = np.minimum(candidates.counts, depth)
    places = [candidates.documents[candidates.starts[i] :][: counts[i]] for i in range(len(candidates))]
    needed = np.unique(np.concatenate([*places, np.empty(0, np.int32)]))
    relevance = np.full(len(candidates.documents), np.nan)
    milliseconds = np.zeros(len(candidates))
    started = time.perf_counter()
    vectors: Any = None
    document_cut, cut = np.zeros(len(needed), bool), 0
    path = work_path(work, dataset.name, name).with_suffix(".vectors")
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_of(len(needed) + len(candidates), show_progress) as progress:
        for start in range(0, len(needed), _EMBEDDED):
            rows = needed[start : start + _EMBEDDED].tolist()
            texts = [dataset.corpus.text(i) for i in rows]
            embedded = model.embed(texts, role="document", show_progress_bar=progress)
            if vectors is None:
                vectors = np.memmap(path, np.float32, "w+", shape=(len(needed), embedded.vectors.shape[1]))
            vectors[start : start + len(rows)] = embedded.vectors
            document_cut[start : start + len(rows)] = embedded.tokens_cut > 0
        documents_seconds = time.perf_counter() - started
        for i, text in enumerate(dataset.queries.values()):
            before = time.perf_counter()
            if counts[i]:
                rows_of_query = np.searchsorted(needed, places[i])
                query = model.embed([text], role="query", show_progress_bar=False)
                at = int(candidates.starts[i])
                relevance[at : at + int(counts[i])] = vectors[rows_of_query] @ query.vectors[0]
                cut += len(rows_of_query) if query.tokens_cut[0] else int(document_cut[rows_of_query].sum())
            milliseconds[i] = 1000 * (time.perf_counter() - before)
            progress(1)
    del vectors
    path.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    facts = {**model.info(), "documents_embedded": len(needed), "seconds_for_documents": documents_seconds}
    if int(np.isnan(relevance).sum()) > len(relevance) - int(counts.sum()):
        raise InputError(f"{name}: a cosine is NaN. The model gives no usable vectors; try precision='float32'.")
    return Scored(name, "bi-encoder", relevance, depth, None, milliseconds, int(counts.sum()), seconds, cut, facts)


def _rows(names: list[str], counts: list[int], result: PairScores, system: str) -> list[ScoredQuery]:
    if result.relevance is None:
        raise InputError(
            f"{system} has {result.logits.shape[1]} labels, so there is no single score to rank by. "
            "Name the label that means relevant: CrossEncoder(..., label=...) or --label."
        )
    if np.isnan(result.relevance).any():
        raise InputError(
            f"{system} gave NaN for {int(np.isnan(result.relevance).sum())} of {len(result.relevance)} pairs, "
            f"the first for query {names[0]!r} or one after it. NaN can't be ranked; try --precision float32."
        )
    cut = (result.query_tokens_cut + result.document_tokens_cut) > 0
    rows, at = [], 0
    for query, count in zip(names, counts, strict=True):
        here = slice(at, at + count)
        at += count
        probabilities = array("d", result.scores[here] if result.kind in PROBABILITIES else ())
        share = result.seconds * count / len(result.relevance)
        rows.append(ScoredQuery(query, array("d", result.relevance[here]), probabilities, int(cut[here].sum()), share))
    return rows


def _group(
    queries: list[int], places: Sequence[NDArray[np.int32]], most_pairs: int, most_documents: int
) -> tuple[list[int], list[int]]:
    """Split off the first queries: at least one, and together at most these numbers of pairs and documents."""
    pairs, documents = 0, set[int]()
    for taken, query in enumerate(queries):
        pairs += len(places[query])
        documents.update(places[query].tolist())
        if taken and (pairs > most_pairs or len(documents) > most_documents):
            return queries[:taken], queries[taken:]
    return queries, []


def _files(facts: Mapping[str, object]) -> str | None:
    """Digest of the names, sizes and times of a local model's files, because it may be trained again in its folder."""
    folder = facts.get("folder")
    if facts.get("revision") is not None or not isinstance(folder, str) or not Path(folder).is_dir():
        return None
    listed = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in Path(folder).iterdir())
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]


def unique_name(name: str, taken: Sequence[str]) -> str:
    """Add a number to a name that is taken."""
    number, unique = 2, name
    while unique in taken:
        unique, number = f"{name} ({number})", number + 1
    return unique


def work_path(work: Path, dataset: str, system: str) -> Path:
    """Give the file for the scores of a system on a dataset."""
    return work / f"{slug(dataset)}-{slug(system)}.jsonl"
