"""``crossrank compare RUN RUN... --qrels FILE``: finished rankings from anywhere, compared."""

from __future__ import annotations

import argparse
from pathlib import Path

from crossrank.cli.evaluate import add_measure_options
from crossrank.cli.options import Parser
from crossrank.cli.terminal import to_json

DESCRIPTION = "Compare finished rankings from any system, using relevance judgements."
EPILOG = """\
input:
  A run has a line for each ranked document: query Q0 document rank score tag.
  The score gives the order; of equal scores the lower rank goes first.
  Judgements are TREC's (query 0 document grade) or BEIR's (with a header:
  query-id, corpus-id, score). Every query with a relevant document counts; one
  that a run lacks counts 0 for it.

examples:
  crossrank compare bm25.run mine.run --qrels test.qrels
  crossrank compare runs/*.run --qrels test.qrels --measures nDCG@10 P@5 --json
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a TREC run; two or more")
    parser.add_argument("--qrels", metavar="FILE", required=True, help="the judgements")
    add_measure_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--per-query", metavar="FILE", help="values of each query: .csv, or .parquet with pyarrow")
    parser.add_argument("--report", metavar="FILE.html", help="write a report to look at")


def execute(args: argparse.Namespace) -> int:
    """Run the command.

    :raises CrossRankError: If something can't be used.
    """
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
