"""``crossrank rerank QUERY FILE...``: documents in, the most relevant first."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from crossrank.cli.options import Parser, add_scoring_options, open_model, positive
from crossrank.cli.output import Report, Row, write_json, write_table, write_tabs
from crossrank.cli.terminal import complain
from crossrank.data.streams import Document, read_documents
from crossrank.data.text_lines import TEXT_FIELDS
from crossrank.errors import InputError
from crossrank.scoring.aggregation import AGGREGATIONS

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder
    from crossrank.types import PairScores

DESCRIPTION = "Order documents by their relevance to a query, best first."
EPILOG = f"""\
input:
  A text file has a document a line; blank lines are passed over. In a file that
  ends in .jsonl, .ndjson or .json each line is a JSON object; its text is the
  field that --field names, else the first there is of
  {", ".join(TEXT_FIELDS)}.
  Standard input is JSON lines if it starts with a brace.

output:
  On a terminal: rank, score, places moved (↑3 up, ↓1 down, = none), and the
  text, cut to the width. In a pipe: rank, score, places moved, file, line and
  text, with tabs between; tabs and line ends in a text become spaces.
  With --json an object a line: rank, score, kind (what the score is: logit,
  sigmoid, calibrated, ...), corpus_id (the position in the input, from 0),
  moved, file, line, and the text or, from JSON lines, the whole object as
  document.
  With --pipeline the objects also carry stage_scores, stage_kinds, passage,
  details, degraded and reason; without a score, score and kind are null, and
  in a pipe nan. Why a ranking is less than what was
  asked for is said on standard error.

examples:
  crossrank rerank "how do I undo a commit" notes.txt
  crossrank rerank "refund policy" docs.jsonl faq.jsonl --field body --json
  grep -rih timeout docs/ | crossrank rerank "how long is it kept" - --top-k 5
  crossrank rerank "refund policy" docs.jsonl --pipeline pipeline.toml
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("query", metavar="QUERY", help="what is asked")
    parser.add_argument("files", metavar="FILE", nargs="+", help="text or JSON lines; - is standard input")
    parser.add_argument("--top-k", type=positive, metavar="K", help="how many to show (default: all)")
    parser.add_argument("--threshold", type=float, metavar="SCORE", help="leave out documents that score less")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--field", metavar="NAME", help="the field of a JSON object that holds the text")
    parser.add_argument("--format", choices=("lines", "jsonl"), help="what the files are, whatever their names")
    parser.add_argument("--skip-bad", action="store_true", help="leave out lines that can't be used, and count them")
    parser.add_argument(
        "--pipeline", metavar="FILE", help="rank by the stages that a TOML file names, instead of by one model"
    )
    parser.add_argument(
        "--long-documents",
        choices=tuple(AGGREGATIONS),
        default="truncate",
        help="of what the model can't read at once, read the beginning (truncate, first), or all of it in windows, "
        "and count the best (max) or the mean of the three best (mean_top_k)",
    )
    parser.add_argument(
        "--max-windows", type=positive, metavar="N", help="the most windows of a document (default: 32)"
    )
    add_scoring_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command.

    :raises CrossRankError: If something can't be used.
    """
    report = Report("documents")
    if args.pipeline is not None:
        # Only here: its import takes time, and most rankings need no pipeline.
        from crossrank.cli.pipeline import open_pipeline, rank

        reranker = open_pipeline(args)
        return rank(reranker, args, _read(args, report), report)
    model = open_model(args)
    documents = _read(args, report)
    if not documents:
        report.tell(model)
        return 0
    info = model.info()
    if len(info["labels"]) > 1 and args.label is None:
        raise InputError(
            f"{info['model']} has {len(info['labels'])} labels ({', '.join(info['labels'])}), so there is no one score "
            f"to rank by. Name the one that means relevant: --label {info['labels'][-1]}"
        )
    result, passages = _score(model, args, documents)
    report.add(result)
    order = [int(i) for i in result.order if args.threshold is None or result.scores[i] >= args.threshold]
    rows = [
        Row(rank, float(result.scores[i]), i, documents[i], passages[i] if passages else None)
        for rank, i in enumerate(order[: args.top_k], start=1)
    ]
    if args.json:
        write_json(rows, result.kind)
    elif sys.stdout.isatty():
        write_table(rows, name_files=len(args.files) > 1)
    else:
        write_tabs(rows)
    sys.stdout.flush()
    report.tell(model)
    return 0


def _score(
    model: CrossEncoder, args: argparse.Namespace, documents: Sequence[Document]
) -> tuple[PairScores, Sequence[tuple[int, int]] | None]:
    """Scores, and each document's best passage where windows were asked for."""
    pairs = [(args.query, document.text) for document in documents]
    if args.long_documents == "truncate":
        return model.score(pairs, batch_size=args.batch_size), None
    from crossrank.scoring.long_documents import LongDocuments, score_long

    settings = LongDocuments(args.long_documents)
    if args.max_windows is not None:
        settings = replace(settings, max_windows=args.max_windows)
    result = score_long(model, pairs, settings, batch_size=args.batch_size)
    left_out = int(result.windows_left_out.sum())
    if args.long_documents == "first" or not left_out:
        return result, result.passages
    documents_left = int((result.windows_left_out > 0).sum())
    some = "1 document" if documents_left == 1 else f"{documents_left} documents"
    complain("warning", f"{left_out} windows of {some} were not read; --max-windows sets how many are.")
    # That says it; the report would call it a cut at the end.
    return replace(result, document_tokens_cut=0 * result.document_tokens_cut), result.passages


def _read(args: argparse.Namespace, report: Report) -> list[Document]:
    if args.files.count("-") > 1:
        raise InputError("Standard input (-) is named more than once. It can be read once; name it once.")
    documents: list[Document] = []
    for name in args.files:
        for item in read_documents(name, args.format, args.field):
            if isinstance(item, Document):
                documents.append(item)
            elif args.skip_bad:
                report.skip(item)
            else:
                raise item
    return documents
