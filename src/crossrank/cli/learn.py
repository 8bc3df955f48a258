"""``crossrank learn``: from feedback to a better model in use, in one command that a scheduler can call."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser, positive
from crossrank.cli.promote import NOT_PROMOTED, add_decision_options, criteria_of, running_of
from crossrank.cli.terminal import complain, one_line, to_json
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.training.learn import Outcome
    from crossrank.training.settings import Settings

DESCRIPTION = """\
Read feedback, train a candidate from the model in use, and compare the two on
queries that were not trained on. The candidate goes into use if it is better.
Needs the extra 'train'."""
EPILOG = """\
feedback, a JSON object a line:
  {"query": "...", "documents": ["as shown", "from the top"], "clicked": [2]}
  {"query": "...", "documents": ["...", "..."], "stars": [4, null]}
  {"query": "...", "documents": ["...", "..."], "votes": ["up", "down"]}
and all else that 'crossrank train' reads.

examples:
  crossrank learn --feedback ./feedback --registry ./registry
  crossrank learn --feedback ./feedback --registry ./registry --dry-run
  crossrank learn --feedback ./feedback --registry ./r --data judged.jsonl

exit codes:
  0 a better model is in use, or there was nothing to do; 3 not promoted;
  1 something can't be used, or another 'learn' is at it; 2 wrong usage
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("--feedback", metavar="FOLDER", required=True, help="a folder of feedback, or one file")
    parser.add_argument("--registry", metavar="FOLDER", required=True, help="where the versions are; it is made")
    parser.add_argument("--base", metavar="MODEL", help="what to start from at first (default: the model in the box)")
    parser.add_argument("--min-judgements", type=positive, default=100, metavar="N", help="new ones (default: 100)")
    parser.add_argument("--eval-share", type=float, default=0.2, metavar="X", help="of the queries (default: 0.2)")
    parser.add_argument("--data", metavar="DATA", help="decide on these judged queries instead of on held-out feedback")
    parser.add_argument("--mix", metavar="FILE", nargs="+", default=[], help="general pairs to mix in")
    parser.add_argument(
        "--click-bias", type=float, default=1.0, metavar="ETA", help="place k is seen by one in k ** ETA (default: 1)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the training")
    parser.add_argument("--skip-bad", action="store_true", help="go on at lines that can't be used, and count them")
    parser.add_argument("--dry-run", action="store_true", help="only read and count")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_decision_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command.

    :raises CrossRankError: If something can't be used.
    """
    from crossrank.checkpoint.model_registry import ModelRegistry
    from crossrank.data.judgements import ReadSettings
    from crossrank.training.learn import REFUSED, Rules, learn

    outcome = learn(
        args.feedback,
        ModelRegistry(args.registry),
        base=args.base,
        rules=Rules(args.min_judgements, args.eval_share, args.click_bias),
        training=training_settings(args.set),
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


def training_settings(given: Sequence[str]) -> Settings:
    """Read ``NAME=VALUE``, each a setting of :class:`~crossrank.training.settings.Settings`.

    :raises InputError: If a name is not known or a value can't be read.
    """
    from crossrank.training.settings import Settings

    # "float | None" as the class states it; numbers first, for there is no setting of both.
    kinds = {one.name: str(one.type).partition(" ")[0] for one in fields(Settings)}
    readers: dict[str, Any] = {"int": int, "float": float, "str": str}
    values: dict[str, Any] = {}
    for one in given:
        name, mark, text = one.partition("=")
        name = name.strip().replace("-", "_")
        if not mark or name not in kinds:
            raise InputError(f"--set {one!r} is not NAME=VALUE of a setting. Settings: {', '.join(kinds)}.")
        try:
            values[name] = readers[kinds[name]](text.strip())
        except ValueError as error:
            raise InputError(f"--set {one!r}: the value is not of the kind {kinds[name]}.") from error
    return Settings(**values)


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
