"""``crossrank learn``: from feedback to a better model in use, in one command that a scheduler can call."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from crossrank.cli.options import Parser, positive
from crossrank.cli.promote import NOT_PROMOTED, add_decision_options, criteria_of, running_of
from crossrank.cli.terminal import complain, one_line, to_json
from crossrank.cli.train import add_settings, settings_of

if TYPE_CHECKING:
    from crossrank.training.learning import Outcome

DESCRIPTION = """\
Read feedback, train a candidate from the model in use, and compare the two on
queries that were not trained on. The candidate goes into use if it is better.
Needs the extra 'train'."""
EPILOG = """\
feedback, a JSON object a line:
  {"query": "...", "documents": ["as shown", "from the top"], "clicked": [2]}
  {"query": "...", "documents": ["...", "..."], "stars": [4, null]}
  {"query": "...", "documents": ["...", "..."], "votes": ["up", "down"]}
and everything else that 'crossrank train' reads.

examples:
  crossrank learn --feedback ./feedback --registry ./registry
  crossrank learn --feedback ./feedback --registry ./registry --dry-run
  crossrank learn --feedback ./feedback --registry ./r --data judged.jsonl

exit codes:
  0 a better model is in use, or there was nothing to do; 3 not promoted;
  1 error, or another 'learn' is running in the registry; 2 wrong usage
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--feedback", metavar="FOLDER", required=True, help="a folder of feedback, or one file")
    parser.add_argument("--registry", metavar="FOLDER", required=True, help="the registry; created if it is not there")
    parser.add_argument("--base", metavar="MODEL", help="model for the first round (default: the bundled model)")
    parser.add_argument(
        "--min-judgements",
        type=positive,
        default=100,
        metavar="N",
        help="do nothing with fewer new judgements than this (default: 100)",
    )
    parser.add_argument(
        "--eval-share", type=float, default=0.2, metavar="X", help="share of the queries to decide on (default: 0.2)"
    )
    parser.add_argument("--data", metavar="DATA", help="decide on these judged queries instead of on held-out feedback")
    parser.add_argument("--mix", metavar="FILE", nargs="+", default=[], help="general pairs to mix in")
    parser.add_argument(
        "--click-bias",
        type=float,
        default=1.0,
        metavar="ETA",
        help="assume that one user in k ** ETA looks at place k (default: 1)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip and count lines that can't be used")
    parser.add_argument("--dry-run", action="store_true", help="only read and count")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_decision_options(parser)
    add_settings(parser.add_argument_group("training"), without="precision")


def execute(args: argparse.Namespace) -> int:
    """Run the command.

    :raises CrossRankError: If something can't be used.
    """
    from crossrank.checkpoint.model_registry import ModelRegistry
    from crossrank.data.judgements import ReadSettings
    from crossrank.training.learning import REFUSED, Rules, learn

    outcome = learn(
        args.feedback,
        ModelRegistry(args.registry),
        base=args.base,
        rules=Rules(args.min_judgements, args.eval_share, args.click_bias),
        training=settings_of(args),
        criteria=criteria_of(args),
        guard=args.guard,
        data=args.data,
        general=args.mix,
        reading=ReadSettings(skip_bad=args.skip_bad),
        settings=running_of(args),
        dry_run=args.dry_run,
        tell=_tell,
    )
    if args.json:
        print(to_json(outcome.as_dict()))
    else:
        print_outcome(outcome)
    return NOT_PROMOTED if outcome.state == REFUSED else 0


def print_outcome(outcome: Outcome) -> None:
    """Write what a round did, for eyes."""
    print(outcome.state)
    for reason in outcome.reasons:
        print(one_line(f"  {reason}"))
    print(f"  {outcome.rows} rows in {outcome.files} files, {outcome.new_rows} of them new")
    print(f"  {outcome.judgements} judgements to learn from or hold out, {outcome.new_judgements} of them new")
    by_clicks = f" ({outcome.by_clicks} by clicks)" if outcome.by_clicks else ""
    print(f"  {outcome.train_queries} queries to learn from, {outcome.decided_on} to decide on{by_clicks}")
    for what, count in outcome.notes.items():
        print(one_line(f"  {count} {what}"))
    print(f"  in use: {outcome.version or 'no version yet'}")


def _tell(message: str) -> None:
    if sys.stderr.isatty():
        complain("note", message)
