"""The command ``crossrank``: finds the command, runs it, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from crossrank.cli.options import Parser
from crossrank.cli.terminal import (
    BOLD,
    aligned,
    complain,
    describe,
    drop_output,
    open_closed_streams,
    prepare_streams,
    styled,
)
from crossrank.errors import CrossRankError, CrossRankWarning, did_you_mean

# A command is the module of its name in this package, which is imported only when the command is chosen. It has
# DESCRIPTION, EPILOG (with examples), add_options(parser) and execute(args), which returns the exit code, or raises
# CrossRankError if something can't be used.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "rank": {
        "rerank": "order documents by their relevance to a query",
        "score": "score pairs of a query and a document",
        "batch": "score files of any size, in parts that can be resumed",
        "prepare": "process documents ahead of time, to rank them many times faster",
        "explain": "show which words a score depends on",
        "info": "describe a model and how it runs on this machine",
    },
    "measure": {
        "evaluate": "measure how much a model improves rankings, on judged queries",
        "compare": "compare ranking files (TREC runs) from any system",
        "calibrate": "turn scores into probabilities, and find a threshold",
    },
    "serve": {
        "serve": "serve models over HTTP, compatible with Cohere, Jina and others",
        "feedback": "show, export and delete users' feedback on rankings",
        "mcp": "offer ranking to agents as a tool (MCP)",
        "doctor": "check which search and RAG products work with a rerank server",
    },
    "train": {
        "train": "train a model on judged pairs",
        "mine": "find hard negatives to train on",
        "learn": "train on feedback, and switch to the new model if it is better",
        "promote": "switch to a new model if it is better than the current one",
        "rollback": "switch back to the previous version of a model",
        "registry": "list, show and delete the versions of a model",
    },
}
COMMANDS: Mapping[str, str] = {name: summary for group in GROUPS.values() for name, summary in group.items()}

EPILOG = """\
examples:
  crossrank info
  printf 'git log\\ngit revert\\n' | crossrank rerank "undo a commit" -
  printf 'undo a commit\\tgit revert\\n' | crossrank score -

'crossrank COMMAND --help' describes a command and its options.

exit codes:
  0 success; 1 error, described on standard error; 2 wrong usage;
  3 the command ran, but the model was not promoted, some rows were left out,
  or a product would not work; 130 stopped with Ctrl-C; 141 the program that
  reads the output has closed it, such as head
"""


def parser_of(command: str) -> Parser:
    """Build the parser of one command, which imports the command's module."""
    module = importlib.import_module(f"crossrank.cli.{command}")
    parser = Parser(prog=f"crossrank {command}", description=module.DESCRIPTION, epilog=module.EPILOG)
    module.add_options(parser)
    parser.set_defaults(execute=module.execute)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    :param argv: The arguments; by default the process's own.
    """
    prepare_streams()
    try:
        with _warnings_in_a_line():
            code = _run(sys.argv[1:] if argv is None else list(argv))
            sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        return 141  # as a shell reports a program that SIGPIPE ended
    except KeyboardInterrupt:
        return 130
    except CrossRankError as error:
        complain("error", str(error))
        return 1
    except OSError as error:
        complain("error", describe(error))
        drop_output()
        return 1
    return code


def run() -> NoReturn:
    """Run the command line of this process: the entry point."""
    open_closed_streams()
    sys.exit(main())


def _run(argv: list[str]) -> int:
    if not argv:
        print(overview(sys.stderr), file=sys.stderr)
        return 2
    first, *rest = argv
    if first in COMMANDS:
        try:
            args = parser_of(first).parse_args(rest)
        except SystemExit as exit:  # after --help (0) or wrong usage (2)
            return int(exit.code or 0)
        code: int = args.execute(args)
        return code
    if first in ("-h", "--help", "help"):
        print(overview(sys.stdout))
        return 0
    if first == "--version":
        from crossrank import __version__  # only here: nothing inside the package imports its root

        print(f"crossrank {__version__}")
        return 0
    what = "an option" if first.startswith("-") else "a command"
    complain("error", f"{first!r} is not {what} of crossrank.{did_you_mean(first, (*COMMANDS, '--help', '--version'))}")
    print("'crossrank --help' lists the commands.", file=sys.stderr)
    return 2


def overview(out: TextIO) -> str:
    """Return the help of the whole program, with colours if the stream shows them."""
    lines = ["usage: crossrank COMMAND ...", "", "Rerank search results with cross-encoders, on ordinary CPUs."]
    names = max(map(len, COMMANDS))
    for group, commands in GROUPS.items():
        rows = [[f"  {name:<{names}}", summary] for name, summary in commands.items()]
        lines += ["", styled(f"{group}:", BOLD, out), *aligned(rows)]
    rows = [["  -h, --help", "show this help"], ["  --version", "show the version"]]
    return "\n".join([*lines, "", styled("options:", BOLD, out), *aligned(rows), "", EPILOG.rstrip()])


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
