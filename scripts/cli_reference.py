"""Write docs/reference/cli.md from the command line's own parser.

python scripts/cli_reference.py     # `make docs` runs it
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

# The width that argparse wraps to, the same on every terminal, and no colours from newer Pythons.
os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}

from crossrank.cli.main import build_parser

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
_HEAD = "# Command line\n\nEvery command and its options, as `crossrank COMMAND --help` prints them.\n"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser of each command, and of each command below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield command
                yield from commands(command)


def page() -> str:
    """The page's text."""
    parser = build_parser()
    parts = [f"```text\n{parser.format_help().rstrip()}\n```"]
    parts += [f"## {command.prog}\n\n```text\n{command.format_help().rstrip()}\n```" for command in commands(parser)]
    return _HEAD + "\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
