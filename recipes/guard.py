"""Make the guard set of crossrank.training: general queries on which a candidate must not become worse.

The pairs come from texts whose licences allow copying them. The bundled model was not trained on their queries or
passages. The candidates of a query are its passage and others of the same source, with BM25's best among them.

    python -m recipes.guard --data ../shared/data/train
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

import bm25s

from recipes.bundled.prepare import select, usable

OUTPUT = Path(__file__).parents[1] / "src/crossrank/training/guard/guard.jsonl.gz"
CANDIDATES, BY_BM25 = 10, 8
WORDS = (25, 85)
# File, source in it (None: all), licence, kinds (empty: all), number of pairs.
QUOTA: tuple[tuple[str, str | None, str, tuple[str, ...], int], ...] = (
    ("openstax", "openstax/psychology", "CC BY 4.0", ("heading", "question_solution", "topic_sentence", "term"), 32),
    ("openstax", "openstax/astronomy", "CC BY 4.0", ("heading", "question_solution", "topic_sentence", "term"), 32),
    ("openstax", "openstax/us-history", "CC BY 4.0", ("heading", "question_solution", "topic_sentence", "term"), 32),
    ("openstax", "openstax/microbiology", "CC BY 4.0", ("heading", "question_solution", "topic_sentence", "term"), 32),
    ("openstax", "openstax/principles-economics-bundle", "CC BY 4.0", ("heading", "topic_sentence", "term"), 32),
    ("docs", "Django documentation (Debian)", "BSD-3-Clause", ("section",), 28),
    ("docs", "open-telemetry/opentelemetry.io", "CC BY 4.0", ("section",), 28),
    ("docs", "Node.js 18 documentation (Debian)", "MIT", ("section",), 24),
    ("docs", "department-of-veterans-affairs/vagov-content", "public domain (US government)", (), 24),
    ("pydoc", None, "PSF-2.0", ("section", "api_description"), 24),
    ("medquad", None, "CC BY 4.0", (), 32),
    ("tldr", None, "CC BY 4.0", (), 32),
)


def draw(data: Path) -> list[dict]:
    """Sample pairs with ``query``, ``positive``, ``group`` and ``licence``."""
    trained, passages = select(data, 1.0)
    texts = {text for _, text in passages}
    wordings = {wording.casefold() for query in trained for wording in query["wordings"]}
    chosen: list[dict] = []
    for number, (file, source, licence, kinds, most) in enumerate(QUOTA):
        random_here = random.Random(f"guard {number}")
        with gzip.open(data / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
            pairs = [pair for pair in map(json.loads, lines) if usable(file, pair)]
        pairs = [
            pair
            for pair in pairs
            if (source is None or pair["source"] == source)
            and (not kinds or pair["kind"] in kinds)
            and pair.get("licence", licence) == licence
            and pair["positive"] not in texts
            and not ({pair["query"].casefold(), *map(str.casefold, pair.get("query_variants") or [])} & wordings)
            and (file == "tldr" or WORDS[0] <= len(pair["positive"].split()) <= WORDS[1])
            and len(pair["query"].split()) >= 3
        ]
        random_here.shuffle(pairs)
        seen: set[str] = set()
        for pair in pairs:
            if len(seen) == 2 * most:
                break
            if not {pair["positive"], pair["query"]} & seen:
                seen |= {pair["positive"], pair["query"]}
                group = source or file
                row = {"query": pair["query"], "positive": pair["positive"], "group": group, "licence": licence}
                chosen.append(row)
        if len(seen) < 2 * most:
            raise SystemExit(f"{source or file}: only {len(seen) // 2} of {most} pairs")
    return chosen


def with_candidates(pairs: list[dict]) -> list[dict]:
    """Make the lines of the file: documents, then queries with their candidates in BM25's order."""
    texts = list(dict.fromkeys(pair["positive"] for pair in pairs))
    number = {text: i for i, text in enumerate(texts)}
    first = {pair["positive"]: pair for pair in reversed(pairs)}
    lines: list[dict] = [
        {"document": i, "text": text, "source": first[text]["group"], "licence": first[text]["licence"]}
        for i, text in enumerate(texts)
    ]
    fill = random.Random("guard candidates")
    for group in dict.fromkeys(pair["group"] for pair in pairs):
        here = [pair for pair in pairs if pair["group"] == group]
        members = list(dict.fromkeys(pair["positive"] for pair in here))
        index = bm25s.BM25()
        index.index(bm25s.tokenize(members, stopwords="en", show_progress=False), show_progress=False)
        for pair in here:
            [words] = bm25s.tokenize([pair["query"]], stopwords="en", return_ids=False, show_progress=False)
            scores = index.get_scores(words) if words else [0.0] * len(members)
            order = sorted(range(len(members)), key=lambda i: (-scores[i], members[i]))
            rest = order[BY_BM25:]
            taken = {members.index(pair["positive"]), *order[:BY_BM25]}
            taken |= set(fill.sample(rest, min(len(rest), CANDIDATES - BY_BM25)))
            candidates = [number[members[i]] for i in order if i in taken]
            lines.append({"query": pair["query"], "positive": number[pair["positive"]], "candidates": candidates})
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the training files, *.jsonl.gz")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    args = parser.parse_args(argv)
    lines = with_candidates(draw(args.data))
    whole = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    packed = io.BytesIO()
    # Without a time, so that the same lines give the same bytes.
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(whole.encode())
    args.output.write_bytes(packed.getvalue())
    queries = sum("query" in line for line in lines)
    print(f"{queries} queries, {len(lines) - queries} documents, {len(packed.getvalue())} bytes")


if __name__ == "__main__":
    main()
