"""Write docs/reference/cli.md from the command line's own parser.

python scripts/cli_reference.py     # `make docs` runs it
"""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Iterator
from pathlib import Path

# The width that argparse wraps to, the same on every terminal, and no colours from newer Pythons.
os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}

from crossrank.cli.main import COMMANDS, overview, parser_of

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
_HEAD = "# Command line\n\nEvery command and its options, as `crossrank COMMAND --help` prints them.\n"


def with_subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command's parser, and the parser of each command below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from with_subcommands(command)


def page() -> str:
    """The page's text."""
    parts = [f"```text\n{overview(io.StringIO())}\n```"]
    parsers = (parser for name in COMMANDS for parser in with_subcommands(parser_of(name)))
    parts += [f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```" for parser in parsers]
    return _HEAD + "\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
