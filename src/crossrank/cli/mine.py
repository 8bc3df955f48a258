"""``crossrank mine DATA... --corpus FILE -o FILE``: hard negatives for queries with positives."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossrank.cli.options import Parser, positive
from crossrank.cli.terminal import complain, to_json
from crossrank.cli.train import add_reading_options, reading_of
from crossrank.errors import InputError

DESCRIPTION = """\
Find hard negatives to train on: documents that rank high in a search but were
not judged relevant."""
EPILOG = """\
output:
  JSON lines {"query", "positives", "negatives"}, which 'crossrank train' reads.

examples:
  crossrank mine pairs.jsonl --corpus corpus.jsonl -o triplets.jsonl
  crossrank mine ./scifact --method both --bi-encoder ./MiniLM -o t.jsonl
  crossrank mine pairs.jsonl --corpus docs.jsonl --filter -o t.jsonl
"""
METHODS = ("bm25", "bi-encoder", "both")


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "data", metavar="DATA", nargs="+", help="files or BEIR folders with queries and relevant documents"
    )
    parser.add_argument(
        "--corpus",
        metavar="FILE",
        help="documents to search: JSON lines with 'text', or a BEIR folder (default: those in DATA)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="where to write the triplets")
    parser.add_argument("--method", choices=METHODS, default="bm25", help="how to search the corpus (default: bm25)")
    parser.add_argument("--bi-encoder", metavar="MODEL", help="hub name or folder, for --method bi-encoder or both")
    parser.add_argument("--count", type=positive, default=4, metavar="N", help="negatives per query (default: 4)")
    parser.add_argument(
        "--ranks",
        type=positive,
        nargs=2,
        default=[3, 50],
        metavar="N",
        help="first and last rank to take negatives from (default: 3 50)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=0.95,
        metavar="SHARE",
        help="highest score of a negative, as a share of the positive's; inf for no limit (default: 0.95)",
    )
    parser.add_argument(
        "--filter",
        metavar="MODEL",
        nargs="?",
        const="",
        help="keep negatives that this cross-encoder scores below the positive (without a name: the bundled model)",
    )
    parser.add_argument(
        "--filter-margin",
        type=float,
        default=1.0,
        metavar="LOGITS",
        help="with --filter: how far below, in raw scores (default: 1)",
    )
    add_reading_options(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random choices (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.atomic_write import write_atomically
    from crossrank.cli.output_files import check_output
    from crossrank.data.bm25 import Bm25
    from crossrank.data.files import read_documents, read_judgements
    from crossrank.data.judgements import ReadReport
    from crossrank.progress import progress_of
    from crossrank.training.checks import check
    from crossrank.training.negatives import Mining, Ranker, bi_encoder_ranker, mine

    settings = Mining(args.method, args.count, args.ranks[0], args.ranks[1], args.margin, args.filter_margin, args.seed)
    if args.method != "bm25" and not args.bi_encoder:
        raise InputError(f"--method {args.method} needs a bi-encoder. Name one with --bi-encoder.")
    check_output(args.output, [*args.data, args.corpus])
    read = ReadReport()
    groups, _ = check(read_judgements(args.data, reading_of(args), read), read)
    if read.first_skipped:
        complain("warning", f"{read.skipped} lines that can't be used were skipped; the first is {read.first_skipped}.")
    if not groups:
        raise InputError(f"There are no judgements in {', '.join(args.data)}. Give queries with positives.")
    folders = [path for path in args.data if Path(path).is_dir()]
    corpora = [args.corpus] if args.corpus else folders
    texts = [text for corpus in corpora for text in read_documents(corpus)]
    if args.corpus and not texts:
        raise InputError(f"{args.corpus!r} contains no document. Leave --corpus out to search the documents of DATA.")
    texts = texts or [one.document for group in groups for one in group.judged]
    corpus = [text for text in dict.fromkeys(texts) if text.strip()]
    rankers: list[Ranker] = []
    if args.method != "bi-encoder":
        rankers.append(Bm25(corpus).scores)
    if args.method != "bm25":
        from crossrank.scoring.bi_encoder import BiEncoder

        rankers.append(bi_encoder_ranker(BiEncoder(args.bi_encoder), corpus, [group.query for group in groups]))
    with progress_of(len(groups), None) as progress:
        mined, report = mine(groups, corpus, rankers, settings, logits_of=_filter(args.filter), progress=progress)
    with write_atomically(args.output) as stream:
        stream.writelines(to_json(vars(one)) + "\n" for one in mined)
    if args.json:
        print(to_json({"output": str(args.output), "documents": len(corpus), **vars(report)}))
        return 0
    print(f"{args.output}: {len(mined)} of {report.queries} queries, {report.triplets} triplets")
    for count, what in (
        (report.without_positive, "queries left out: they have no positive"),
        (report.without_negatives, "queries left out: no negative is clearly below their positives"),
        (report.fewer, f"searches found fewer than {args.count} negatives"),
        (report.too_near, "documents not used: they score too close to a positive"),
        (report.beyond, "documents are from below the window, because too few in it score below the positive"),
        (report.filtered, "documents not used: the cross-encoder scores them too close to a positive"),
    ):
        if count:
            print(f"{count} {what}", file=sys.stderr)
    return 0


def _filter(name: str | None) -> Callable[[list[tuple[str, str]]], Any] | None:
    if name is None:
        return None
    from crossrank.scoring.cross_encoder import CrossEncoder

    model = CrossEncoder(name or None)

    def logits(pairs: list[tuple[str, str]]) -> Any:
        scored = model.score(pairs, show_progress_bar=False)
        if scored.relevance is None:
            raise InputError(f"{model.name!r} gives several scores for a pair. Choose a model with one score.")
        return scored.relevance

    return logits
