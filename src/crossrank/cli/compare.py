"""``crossrank compare RUN RUN... --qrels FILE``: compare finished rankings from any system."""

from __future__ import annotations

import argparse
from pathlib import Path

from crossrank.cli.evaluate import add_file_options, add_measure_options
from crossrank.cli.options import Parser
from crossrank.cli.terminal import to_json

DESCRIPTION = "Compare finished rankings from any system, using relevance judgements."
EPILOG = """\
input:
  A run has one line per ranked document: query Q0 document rank score tag.
  Documents are ordered by score; of equal scores the lower rank comes first.
  Judgements are in TREC's format (query 0 document grade) or BEIR's (with the
  header query-id, corpus-id, score). Every query with a relevant document
  counts. A query that is missing from a run counts as 0.

examples:
  crossrank compare bm25.run mine.run --qrels test.qrels
  crossrank compare runs/*.run --qrels test.qrels --measures nDCG@10 P@5 --json
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="two or more TREC runs")
    parser.add_argument("--qrels", metavar="FILE", required=True, help="judgements, in TREC or BEIR format")
    add_measure_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_file_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.cli.evaluation_files import check_outputs, write_per_query, write_report
    from crossrank.cli.tables import write_evaluation
    from crossrank.evaluation.compare_runs import compare
    from crossrank.evaluation.measures import DEFAULT

    check_outputs(args, [*args.runs, args.qrels])
    evaluation = compare(args.runs, args.qrels, measures=args.measures or DEFAULT, seed=args.seed)
    if args.json:
        print(to_json(evaluation.to_dict()))
    else:
        write_evaluation(evaluation)
    if args.per_query:
        write_per_query(Path(args.per_query), [evaluation])
    if args.report:
        write_report(Path(args.report), [evaluation])
    return 0
