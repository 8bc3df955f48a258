"""Dataset: queries, texts, judgements and candidates, checked against each other. What is left out is counted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.data.bm25 import bm25
from crossrank.data.candidates import EXCLUDED, CandidateRows, Candidates
from crossrank.data.corpus import Corpus, MemoryCorpus
from crossrank.data.text_lines import Notes, Place, text_of
from crossrank.data.trec import Qrels, RunRow, diagnose, grades_of, place_of, run_rows
from crossrank.errors import InputError

NO_JUDGEMENT = "queries with candidates but without a judgement"
NO_RELEVANT = "queries without a relevant document"
NO_CANDIDATES = "queries without candidates (kept: they count 0)"
UNKNOWN_QUERY = "judgements of queries that are not among the queries"
UNKNOWN_DOCUMENT = "judgements of documents that are not in the corpus (kept: they count as missed)"
CANDIDATE_QUERY = "candidates of queries that are not among the queries"
CANDIDATE_DOCUMENT = "candidates that are not in the corpus"
SAMPLED = "queries that are not in the random sample"

_LOOKED_AT = 1000  # lines to examine in a file without any known identifier, to say why


@dataclass(frozen=True)
class Dataset:
    """A test collection.

    :param name: Its name in tables.
    :param queries: Query -> text, for queries with a relevant document. All per-query arrays have this order.
    :param corpus: The documents.
    :param qrels: Query -> document -> grade; 1 and more is relevant.
    :param candidates: The candidates of the first stage; ``None`` until :meth:`with_bm25` makes them.
    :param first_stage: What found them, such as ``"BM25"``.
    :param excluded: Query -> documents that are never candidates for it.
    :param left_out: What was left out or changed -> how many.
    :param first_places: What was left out or changed -> file and line of the first.
    """

    name: str
    queries: Mapping[str, str]
    corpus: Corpus
    qrels: Qrels
    candidates: Candidates | None
    first_stage: str
    excluded: Mapping[str, frozenset[str]]
    left_out: Mapping[str, int]
    first_places: Mapping[str, str]

    @classmethod
    def from_dicts(
        cls,
        queries: Mapping[str, str],
        documents: Mapping[str, str | Mapping[str, object]],
        judgements: Any,
        *,
        candidates: Any = None,
        name: str = "dataset",
    ) -> Dataset:
        """Make a dataset from data in memory.

        :param queries: Identifier -> text.
        :param documents: Identifier -> text, or -> ``{"title": ..., "text": ...}``.
        :param judgements: Query -> document -> grade, 1 and more is relevant; or a data frame or rows with the columns
            ``query_id``, ``doc_id`` and ``relevance``, as ir_measures has them.
        :param candidates: Query -> document -> score, or -> documents, best first; or rows with ``score``. If not
            given, BM25 finds them.
        :param name: Its name in tables.
        :raises InputError: If no query has a relevant document, or something can't be used.
        """
        place = Place(Path(name), 0)
        texts = {
            str(document): text if isinstance(text, str) else text_of(place, text)
            for document, text in documents.items()
        }
        notes = Notes()
        rows = None if candidates is None else (run_rows(candidates, "candidates"), place.path)
        return assemble(
            name,
            {str(query): text for query, text in queries.items()},
            MemoryCorpus(texts),
            (grades_of(judgements, notes), {}, place.path),
            notes,
            rows=rows,
            first_stage="BM25" if rows is None else "first stage",
        )

    def with_bm25(self, depth: int, *, show_progress: bool | None = None) -> Dataset:
        """Find candidates by BM25 in the whole corpus.

        :param depth: The most candidates per query.
        :raises MissingExtraError: If bm25s is not installed.
        """
        notes = Notes(dict(self.left_out), dict(self.first_places))
        index = self.corpus.index
        excluded = [
            frozenset(index[document] for document in self.excluded.get(query, ()) if document in index)
            for query in self.queries
        ]
        found = bm25(
            list(self.queries.values()), self.corpus, depth, excluded=excluded, notes=notes, show_progress=show_progress
        )
        return replace(
            self, candidates=found, first_stage="BM25", left_out=_count_empty(found, notes), first_places=notes.first
        )

    def sample(self, most: int, seed: int = 0) -> Dataset:
        """Sample at most this many queries at random."""
        names = list(self.queries)
        if len(names) <= most:
            return self
        chosen = sorted(np.random.default_rng(seed).permutation(len(names))[:most].tolist())
        left_out = {**self.left_out, SAMPLED: len(names) - most}
        candidates = None if self.candidates is None else self.candidates.chosen(chosen)
        notes = Notes(left_out, dict(self.first_places))
        return replace(
            self,
            queries={names[i]: self.queries[names[i]] for i in chosen},
            qrels={names[i]: self.qrels[names[i]] for i in chosen},
            candidates=candidates,
            left_out=left_out if candidates is None else _count_empty(candidates, notes),
        )

    def fingerprint(self) -> str:
        """Digest of everything that is scored: queries, texts and candidates."""
        hashed = hashlib.sha256(self.corpus.digest.encode())
        for name, text in self.queries.items():
            hashed.update(f"{len(name)} {len(text)} {name}{text}".encode("utf-8", "surrogatepass"))
        if self.candidates is not None:
            hashed.update(self.candidates.documents.tobytes())
            hashed.update(self.candidates.starts.tobytes())
        return hashed.hexdigest()[:16]


def assemble(
    name: str,
    queries: Mapping[str, str],
    corpus: Corpus,
    judgements: tuple[Qrels, Mapping[str, Place], Path],
    notes: Notes,
    *,
    rows: tuple[Iterable[RunRow], Path] | None = None,
    first_stage: str = "given",
    excluded: Mapping[str, frozenset[str]] | None = None,
) -> Dataset:
    """Put the parts together and check each against the others.

    :param judgements: The judgements, the first line of each query, and the file.
    :param rows: The candidates in any order, and their file; ``None`` if there are none.
    :raises InputError: If no query is left, or no candidate names both a known query and a known document.
    """
    qrels, places, path = judgements
    counting = _counting(queries, corpus, qrels, places, path, notes)
    candidates = None
    if rows is not None:
        candidates = _candidates(list(counting), queries, corpus, qrels, rows, excluded or {}, notes)
    left_out = notes.counts if candidates is None else _count_empty(candidates, notes)
    return Dataset(
        name,
        {query: queries[query] for query in counting},
        corpus,
        counting,
        candidates,
        first_stage,
        excluded or {},
        left_out,
        notes.first,
    )


def _counting(
    queries: Mapping[str, str], corpus: Corpus, qrels: Qrels, places: Mapping[str, Place], path: Path, notes: Notes
) -> Qrels:
    """Keep the judgements of known queries with a relevant document, in the order of the queries."""
    known = corpus.index
    if not any(q in queries and any(d in known for d in judged) for q, judged in qrels.items()):
        some = [(q, d) for q, judged in qrels.items() for d in judged][:_LOOKED_AT]
        raise diagnose(path, some, queries, known)
    for query, judged in qrels.items():
        place = f"{places[query]}: {query!r}" if query in places else None
        if query not in queries:
            notes.add(UNKNOWN_QUERY, place, len(judged))
            continue
        unknown = [document for document in judged if document not in known]
        if unknown:
            first = UNKNOWN_DOCUMENT not in notes.first  # finding the line means reading the file again
            where = place_of(path, query, unknown[0]) if first and query in places else path
            notes.add(UNKNOWN_DOCUMENT, f"{where}: {query!r} with {unknown[0]!r}", len(unknown))
        if not any(grade > 0 for grade in judged.values()):
            notes.add(NO_RELEVANT, place)
    counting = {q: qrels[q] for q in queries if q in qrels and any(grade > 0 for grade in qrels[q].values())}
    if not counting:
        raise InputError(f"{path}: no query has a relevant document, a grade of 1 or more, so nothing can be measured.")
    return counting


def _candidates(
    counting: list[str],
    queries: Mapping[str, str],
    corpus: Corpus,
    qrels: Qrels,
    rows: tuple[Iterable[RunRow], Path],
    excluded: Mapping[str, frozenset[str]],
    notes: Notes,
) -> Candidates:
    numbers = {query: i for i, query in enumerate(counting)}
    collected = CandidateRows()
    looked_at: list[tuple[str, str]] = []
    any_known = False
    unjudged: set[str] = set()
    for row in rows[0]:
        if row.query in queries and row.query not in qrels and row.query not in unjudged:
            unjudged.add(row.query)
            notes.add(NO_JUDGEMENT, f"{row.place}: {row.query!r}")
        if row.query not in queries:
            notes.add(CANDIDATE_QUERY, f"{row.place}: {row.query!r}")
        elif (document := corpus.index.get(row.document)) is None:
            notes.add(CANDIDATE_DOCUMENT, f"{row.place}: {row.document!r}")
        else:
            any_known = True
            if row.query in numbers:  # other queries are counted already
                if row.document in excluded.get(row.query, ()):
                    notes.add(EXCLUDED, str(row.place))
                else:
                    collected.add(numbers[row.query], document, row.score, row.rank, row.place)
        if not any_known and len(looked_at) < _LOOKED_AT:
            looked_at.append((row.query, row.document))
    if not any_known:
        raise diagnose(rows[1], looked_at, queries, corpus.index)
    return collected.build(len(counting), notes)


def _count_empty(candidates: Candidates, notes: Notes) -> dict[str, int]:
    """Count the queries without candidates again."""
    counts = {what: count for what, count in notes.counts.items() if what != NO_CANDIDATES}
    if empty := int((candidates.counts == 0).sum()):
        counts[NO_CANDIDATES] = empty
    return counts
