"""``crossrank train DATA...``: train a model on judged pairs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser
from crossrank.cli.terminal import complain, one_line, to_json
from crossrank.errors import InputError
from crossrank.optional import require
from crossrank.training.settings import Settings, kind_of

if TYPE_CHECKING:
    from crossrank.data.judgements import ReadSettings
    from crossrank.evaluation.result import PairedComparison
    from crossrank.training.checks import DataReport
    from crossrank.training.held_out import HeldOutComparison

DESCRIPTION = "Train a model on judged pairs. Needs the extra 'train'."
EPILOG = """\
data:
  Files ending in .jsonl, .csv, .tsv or .parquet, and BEIR folders. A row is
    query, document, label            a label from 0 to 1
    query, positive, negative         or lists of positives and negatives
    query, documents, and one of label, stars, votes, clicked (feedback)
  Other common names work too (sentence1, anchor, passage, score, ...).
  The data is checked first. With --dry-run, nothing else happens.

examples:
  crossrank train pairs.jsonl --output ./my-model
  crossrank train judged.jsonl --base BAAI/bge-reranker-base --output ./m
  crossrank train triplets.jsonl --loss mnrl --output ./m --resume
  crossrank train pairs.csv --dry-run
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("data", metavar="DATA", nargs="+", help="files or BEIR folders with judgements")
    parser.add_argument("--base", metavar="MODEL", help="hub name or folder to start from (default: the bundled model)")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, help="folder for the trained model (not needed with --dry-run)"
    )
    parser.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    parser.add_argument("--dry-run", action="store_true", help="only check the data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the result: owner/name")
    group = parser.add_argument_group("data")
    group.add_argument("--eval", metavar="DATA", nargs="+", default=[], help="held-out data (default: a part of DATA)")
    group.add_argument(
        "--mix", metavar="DATA", nargs="+", default=[], help="general pairs to mix in, so that the model forgets less"
    )
    group.add_argument(
        "--teacher-scores", metavar="FILE", help="distillation: file with query, document and teacher_score"
    )
    group.add_argument("--eval-split", default="test", metavar="NAME", help="split of --eval folders (default: test)")
    add_reading_options(group)
    add_settings(parser.add_argument_group("training"))


def add_reading_options(group: Any) -> None:
    """Add the options for how judgements are read."""
    group.add_argument(
        "--split", default="train", metavar="NAME", help="for BEIR folders: read qrels/NAME.tsv (default: train)"
    )
    group.add_argument(
        "--max-label", type=float, default=1.0, metavar="N", help="label that means fully relevant (default: 1)"
    )
    group.add_argument(
        "--columns",
        type=columns,
        default={},
        metavar="ROLE=NAME,...",
        help="names of the columns, such as query=question",
    )
    group.add_argument("--skip-bad", action="store_true", help="skip lines that can't be used, and report how many")


def reading_of(args: argparse.Namespace) -> ReadSettings:
    """Read the options that :func:`add_reading_options` added."""
    from crossrank.data.judgements import ReadSettings

    return ReadSettings(args.split, args.max_label, args.skip_bad, args.columns)


def add_settings(group: Any, *, without: str = "", hidden: bool = False) -> None:
    """Add an option for each setting except one. Settings without a value keep the default of :class:`Settings`.

    :param hidden: Whether the help leaves them out.
    """
    for one in fields(Settings):
        text, choices, option = (one.metadata[key] for key in ("text", "choices", "option"))
        if option == "" or one.name == without:
            continue
        names = dict.fromkeys(f"--{name.replace('_', '-')}" for name in (option or one.name, one.name))
        kind = kind_of(one)
        more: dict[str, Any] = {"type": kind, "metavar": "NAME" if kind is str else "N"}
        if choices:
            # Listed in the help text, because argparse does not wrap them in the usage line.
            more = {"choices": choices, "metavar": "NAME"}
            text += f": {', '.join(choices)}"
        text += "" if one.default is None else f" (default: {one.default})"
        shown = argparse.SUPPRESS if hidden else text.replace("%", "%%")
        group.add_argument(*names, dest=one.name, default=argparse.SUPPRESS, help=shown, **more)


def settings_of(args: argparse.Namespace) -> Settings:
    """Read the options that :func:`add_settings` added.

    :raises InputError: If a value is out of range.
    """
    given = {one.name: getattr(args, one.name) for one in fields(Settings) if hasattr(args, one.name)}
    if given.get("precision") == "int8":  # for comparing models; training does not support it
        given["precision"] = "auto"
    return Settings(**given)


def columns(text: str) -> dict[str, str]:
    """Read ``role=name,...``, for argparse.

    :raises argparse.ArgumentTypeError: If it has another form or names no known role.
    """
    from crossrank.data.columns import ROLES

    found: dict[str, str] = {}
    for part in text.split(","):
        role, mark, name = part.partition("=")
        if not mark or role.strip() not in ROLES:
            raise argparse.ArgumentTypeError(f"{part!r} is not ROLE=NAME; roles are {', '.join(ROLES)}")
        found[role.strip()] = name.strip()
    return found


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.checkpoint.source import resolve
    from crossrank.training.data_split import count_long, split_data
    from crossrank.training.push import check_repository, push

    settings = settings_of(args)
    if args.output is None and not args.dry_run:
        raise InputError("There is no folder for the model. Give --output FOLDER, or --dry-run to only check the data.")
    if args.push_to_hub:
        check_repository(args.push_to_hub)
    # Before the slow import of torch, so that a mistake in the data is reported at once.
    split = split_data(
        args.data,
        settings,
        evaluation=args.eval,
        general=args.mix,
        teacher_scores=args.teacher_scores,
        reading=reading_of(args),
        evaluation_split=args.eval_split,
    )
    count_long(split, resolve(args.base).folder, settings)
    if not args.json:
        print_report(split.report)
    if args.dry_run:
        if args.json:
            print(to_json({"data": split.report.as_dict()}))
        return 0
    for module in ("torch", "sentence_transformers", "datasets", "accelerate"):
        require(module, extra="train", purpose="Training")
    from crossrank.training.trainer import train

    try:
        with _bar() as (progress, tell):
            result = train(
                split, args.output, settings, base=args.base, resume=args.resume, progress=progress, tell=tell
            )
    except KeyboardInterrupt:
        complain("interrupted", "Continue from the last save point with the same command and --resume.")
        raise
    url = push(args.output, args.push_to_hub) if args.push_to_hub else None
    if args.json:
        facts = {key: value for key, value in vars(result).items() if key not in ("output", "comparison")}
        comparison = result.comparison.as_dict() if result.comparison else None
        whole = {
            "output": str(args.output),
            **facts,
            "data": split.report.as_dict(),
            "held_out": comparison,
            "url": url,
        }
        print(to_json(whole))
        return 0
    stopped = " (stopped early: no further improvement)" if result.stopped_early else ""
    print(f"\n{args.output}: {result.steps} steps{stopped} in {result.seconds:.0f} s")
    _print_comparison(result.comparison)
    if url:
        print(f"uploaded to {url}")
    return 0


def print_report(report: DataReport) -> None:
    """Write what the check of the data found."""
    print(f"{report.rows} rows: {report.pairs} pairs of {report.queries} queries")
    share = f"{report.positives / report.pairs:.0%}" if report.pairs else "none"
    print(f"{report.positives} relevant, {report.negatives} not ({share} relevant); ", end="")
    print(f"{report.queries_that_rank} queries have documents with different labels")
    if report.teacher_scores:
        print(f"{report.teacher_scores} pairs have a teacher score")
    rows = [(str(one.count), one.what, one.done if one.count else "", one.examples) for one in report.findings]
    width = max((len(count) for count, *_ in rows), default=0)
    for count, what, done, examples in rows:
        where = f" ({'; '.join(examples)}, ...)" if examples else ""
        print(one_line(f"{count.rjust(width)}  {what}{': ' if done else ''}{done}{where}"))


def _print_comparison(found: HeldOutComparison | None) -> None:
    if found is None:
        print("Nothing was held out, so its quality is unknown. Evaluate it before you use it.")
        return
    if not found.queries:
        print(
            "No held-out query has documents with different labels, so its quality is unknown. Evaluate it before you "
            "use it."
        )
        return
    # Imported here, because --help needs no torch.
    from crossrank.training.held_out import LEARNT

    print(f"on {found.queries} held-out queries, nDCG@10:")
    for name, one in found.systems.items():
        low, high = one.interval or (0.0, 0.0)
        gain = f"  result {_gain(one.comparison)}" if one.comparison is not None else ""
        print(f"  {name:<6}  {one.mean:.4f} ({low:.4f} to {high:.4f}){gain}")
    if LEARNT in found.parts:
        for name, part in found.parts.items():
            which = "with a document that was also relevant in training" if name == LEARNT else "without one"
            print(f"  on {part.queries} of them {which}: {_gain(part)} against the base")


def _gain(one: PairedComparison) -> str:
    return "{:+.4f} ({:+.4f} to {:+.4f}, p {:.4f})".format(one.difference, *one.interval, one.p)


@contextmanager
def _bar() -> Iterator[tuple[Callable[[int, int, dict[str, float]], object] | None, Callable[[str], object]]]:
    """Give functions that report steps and messages, with a progress bar on a terminal."""
    if not sys.stderr.isatty():
        yield None, lambda message: complain("note", message)
        return
    from tqdm import tqdm

    with tqdm(unit=" steps", leave=False) as bar:

        def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
            bar.total = steps
            shown = {key: figures[key] for key in ("loss", "held_out_ndcg@10") if key in figures}
            if shown:
                bar.set_postfix(shown)
            bar.update(step - bar.n)

        def tell(message: str) -> None:
            bar.clear()
            complain("note", message)

        yield progress, tell
