"""The command ``crossrank``: assembles the subcommands, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from crossrank.cli import (
    calibrate,
    compare,
    evaluate,
    explain,
    info,
    learn,
    mine,
    promote,
    rerank,
    rollback,
    score,
    train,
)
from crossrank.cli.output import complain, prepare_streams
from crossrank.errors import CrossRankError, CrossRankWarning

EPILOG = """\
examples:
  crossrank rerank "how do I undo a commit" notes.txt
  crossrank score pairs.tsv > scores.txt
  crossrank info

'crossrank COMMAND --help' says more about each.

exit codes:
  0 done; 1 something can't be used, standard error says what; 2 wrong usage;
  130 interrupted; 141 nobody reads the output any more
"""


def build_parser() -> argparse.ArgumentParser:
    """Assemble the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="crossrank",
        description="Rerank search results with cross-encoders, on a plain CPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (rerank, score, evaluate, compare, explain, calibrate, mine, train, learn, promote, rollback, info):
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    :param argv: The arguments; by default the process's own.
    """
    args = build_parser().parse_args(argv)
    prepare_streams()
    try:
        with _warnings_in_a_line():
            code: int = args.execute(args)
            sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has enough. What is still buffered goes nowhere, so that the exit does not fail on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell reports of a program that SIGPIPE ended
    except KeyboardInterrupt:
        return 130
    except (CrossRankError, OSError) as error:
        complain("error", str(error))
        return 1
    return code


def run() -> NoReturn:
    """Run the command line of this process: the entry point."""
    sys.exit(main())


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        # The version stands in the package's root, which nothing else in here imports.
        from crossrank import __version__

        print(f"crossrank {__version__}")
        parser.exit()


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, CrossRankWarning):
            complain("warning", str(message))
        else:
            usual(message, category, *rest, **more)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.showwarning = show
        yield
