"""``crossrank learn``: turn feedback into a better model, in one command for a scheduler."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser, positive
from crossrank.cli.promote import NOT_PROMOTED, add_decision_options, criteria_of, running_of
from crossrank.cli.terminal import complain, one_line, to_json
from crossrank.cli.train import add_settings, settings_of
from crossrank.errors import CrossRankError, InputError

if TYPE_CHECKING:
    from crossrank.training.learning import Outcome

DESCRIPTION = """\
Train a new model (the candidate) on feedback, starting from the model in use.
Compare both on queries that were held out, and switch to the candidate if it is
better. Needs the extra 'train'."""
EPILOG = """\
feedback, one JSON object per line:
  {"query": "...", "documents": ["as shown", "from the top"], "clicked": [2]}
  {"query": "...", "documents": ["...", "..."], "stars": [4, null]}
  {"query": "...", "documents": ["...", "..."], "votes": ["up", "down"]}
and the other formats that 'crossrank train' reads.

examples:
  crossrank learn --feedback ./feedback --registry ./registry
  crossrank learn --feedback ./feedback --registry ./registry --dry-run
  crossrank learn --feedback ./feedback --registry ./r --data judged.jsonl
  crossrank learn --feedback sqlite:///f.db --registry ./registry --every 6h

exit codes:
  0 a better model is in use, or there was nothing to do; 3 not promoted;
  1 error, or another 'learn' is running in the registry; 2 wrong usage
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--feedback",
        metavar="WHERE",
        required=True,
        help="a file or folder of feedback, or the URL given to 'crossrank serve --feedback'",
    )
    parser.add_argument("--registry", metavar="FOLDER", required=True, help="the registry; created if missing")
    parser.add_argument("--base", metavar="MODEL", help="model for the first round (default: the bundled model)")
    parser.add_argument(
        "--min-judgements",
        type=positive,
        default=100,
        metavar="N",
        help="do nothing if there are fewer new judgements than this (default: 100)",
    )
    parser.add_argument(
        "--eval-share",
        type=float,
        default=0.2,
        metavar="X",
        help="share of the queries to hold out for the comparison (default: 0.2)",
    )
    parser.add_argument("--data", metavar="DATA", help="compare on these judged queries instead of held-out feedback")
    parser.add_argument("--mix", metavar="FILE", nargs="+", default=[], help="general pairs to mix in")
    parser.add_argument(
        "--click-bias",
        type=float,
        metavar="ETA",
        help="position bias of clicks: assume that a user looks at rank k with probability 1 / k ** ETA (default: "
        "estimated from shuffled rankings in the store if there are enough, else 1)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip lines that can't be used, and report how many")
    parser.add_argument(
        "--every", type=_duration, metavar="TIME", help="repeat at this interval, such as 30m, 6h or 2d, until stopped"
    )
    parser.add_argument("--dry-run", action="store_true", help="only read the feedback and count it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_decision_options(parser)
    about = "those of 'crossrank train', such as --loss, --lr and --freeze; its help\nlists them"
    add_settings(parser.add_argument_group("training options", about), without="precision", hidden=True)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.every is None:
        return _round(args)
    for number in itertools.count():
        started = time.monotonic()
        try:
            _round(args)
        except (CrossRankError, OSError) as error:
            # A database or a disk may be back by the next round; a wrong option stays wrong.
            if number == 0 and isinstance(error, InputError):
                raise
            complain("error", str(error))
        sys.stdout.flush()
        time.sleep(max(0.0, started + args.every - time.monotonic()))
    return 0


def _round(args: argparse.Namespace) -> int:
    from crossrank.checkpoint.model_registry import ModelRegistry
    from crossrank.data.judgements import ReadSettings
    from crossrank.training.held_out_feedback import ETA
    from crossrank.training.learning import REFUSED, Rules, learn

    feedback, eta = args.feedback, args.click_bias
    if "://" in args.feedback:
        feedback, estimated = _stored(args.feedback)
        eta = estimated if eta is None else eta
    outcome = learn(
        feedback,
        ModelRegistry(args.registry),
        base=args.base,
        rules=Rules(args.min_judgements, args.eval_share, ETA if eta is None else eta),
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


def _stored(url: str) -> tuple[list[dict[str, Any]], float | None]:
    """Rows of a store; and how fast attention falls, if its shuffled rankings tell."""
    from crossrank.feedback.propensity import estimate
    from crossrank.feedback.rows import ranking_rows
    from crossrank.feedback.store import Store

    judged = list(Store(url, read_only=True).judged())
    found = estimate(judged)
    if not found.enough or found.eta is None:
        return list(ranking_rows(judged)), None
    _tell(f"One in k ** {found.eta.value:.2f} looks at place k, by {found.clicks} clicks in shuffled rankings")
    return list(ranking_rows(judged)), found.eta.value


def _duration(text: str) -> float:
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86_400}.get(text[-1:])
    try:
        seconds = float(text[:-1]) * (unit or 0)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 366 * 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time between 1s and 366d, such as 30m, 6h or 2d")
    return seconds


def print_outcome(outcome: Outcome) -> None:
    """Write what a round did."""
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
