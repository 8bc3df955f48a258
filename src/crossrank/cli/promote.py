"""``crossrank promote CANDIDATE``: put a model into use only if it is shown to be better."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser, positive
from crossrank.cli.terminal import one_line, to_json
from crossrank.engines.settings import PRECISIONS

if TYPE_CHECKING:
    from crossrank.training.decision import Criteria, Decision

# Exit codes.
PROMOTED, NOT_PROMOTED = 0, 3

DESCRIPTION = """\
Compare a new model (the candidate) with the model in use. Switch to the
candidate if it is better on your held-out queries and not worse on general
ones."""
EPILOG = """\
examples:
  crossrank promote ./my-model --data held-out.jsonl
  crossrank promote ./my-model --data ./my-collection --registry ./registry
  crossrank promote ./my-model --against ./old --data d.jsonl --guard none

DATA has a format that 'crossrank evaluate' reads. Choose queries that the
candidate was not trained on.

exit codes:
  0 promoted; 3 not promoted; 1 error; 2 wrong usage
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("candidate", metavar="CANDIDATE", help="folder of the new model")
    parser.add_argument("--data", metavar="DATA", required=True, help="held-out queries to compare on")
    parser.add_argument(
        "--against", metavar="MODEL", help="model to compare with: hub name or folder (default: the version in use)"
    )
    parser.add_argument("--registry", metavar="FOLDER", help="where to add the candidate if it is better")
    parser.add_argument("--split", default="test", metavar="NAME", help="split of folders with qrels (default: test)")
    parser.add_argument(
        "--decision",
        metavar="FILE",
        type=Path,
        help="file for the decision and its figures (default: CANDIDATE.decision.json)",
    )
    parser.add_argument("--json", action="store_true", help="print the decision as one JSON object")
    add_decision_options(parser)


def add_decision_options(parser: Parser) -> None:
    """Add the options for deciding on a promotion."""
    group = parser.add_argument_group("the decision")
    group.add_argument(
        "--guard", default="bundled", metavar="DATA", help="general queries: bundled (default), none, or a dataset"
    )
    group.add_argument(
        "--margin",
        type=float,
        default=0.02,
        metavar="X",
        help="how much worse the candidate may be on general queries (default: 0.02)",
    )
    group.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        metavar="P",
        help="significance level: the p-value must be below this (default: 0.05)",
    )
    group.add_argument("--measure", default="nDCG@10", metavar="NAME", help="measure to compare (default: nDCG@10)")
    group.add_argument("--depth", type=positive, default=100, metavar="N", help="candidates per query (default: 100)")
    running = parser.add_argument_group("how both models run")
    running.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="number format to compute in (default: auto)"
    )
    parser.also("--precision", "--run-precision")
    running.add_argument("--num-threads", type=positive, metavar="N", help="number of threads (default: one per core)")


def criteria_of(args: argparse.Namespace) -> Criteria:
    """Read the criteria for a candidate.

    :raises InputError: If a value is out of range.
    """
    from crossrank.training.decision import Criteria

    return Criteria(alpha=args.alpha, margin=args.margin, measure=args.measure, depth=args.depth)


def running_of(args: argparse.Namespace) -> Mapping[str, Any]:
    """Read how the models run."""
    return {"precision": args.precision, "num_threads": args.num_threads}


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.checkpoint.model_registry import ModelRegistry
    from crossrank.cli.output_files import check_output
    from crossrank.training.promotion import promote

    candidate = Path(args.candidate)
    whole = candidate.resolve()
    file = args.decision or whole.with_name(f"{whole.name}.decision.json")
    check_output(file, [args.data, args.guard])
    decision = promote(
        candidate,
        data=args.data,
        against=args.against,
        guard=args.guard,
        registry=ModelRegistry(args.registry) if args.registry else None,
        criteria=criteria_of(args),
        split=args.split,
        settings=running_of(args),
        decision_file=file,
    )
    if args.json:
        print(to_json(decision.as_dict()))
    else:
        print_decision(decision)
        print(f"figures: {file}")
    return PROMOTED if decision.promoted else NOT_PROMOTED


def print_decision(decision: Decision) -> None:
    """Write a decision."""
    print("promoted" if decision.promoted else "not promoted")
    for reason in decision.reasons:
        print(one_line(f"  {reason}"))
    for what, count in decision.left_out.items():
        print(one_line(f"  {count} {what}"))
    if decision.version is not None:
        print(f"  in use now: {decision.version}")
