"""``crossrank info [MODEL]``: what a model is, and what it runs with here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from crossrank.cli.options import MODEL, Parser, add_model_options, open_model
from crossrank.cli.terminal import aligned, one_line, to_json
from crossrank.errors import InputError

DESCRIPTION = "Show what a model is, and how it runs on this machine."
EPILOG = """\
examples:
  crossrank info
  crossrank info cross-encoder/ms-marco-MiniLM-L6-v2
  crossrank info ./my-model --precision float32 --json
"""

# Names that people read, where they differ from those in JSON.
_TITLES: Mapping[str, str] = {"folder": "files", "max_length": "length in use", "activation": "scores are"}
_UNITS: Mapping[str, str] = {"usable_length": "tokens", "max_length": "tokens"}


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("named", metavar="MODEL", nargs="?", help=MODEL)
    parser.add_argument("--model", metavar="NAME", help="the same as MODEL, as in other commands")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.named and args.model:
        raise InputError(f"Two models are given, {args.named!r} and --model {args.model!r}. Give one.")
    args.model = args.model or args.named
    info = dict(open_model(args).info())
    if args.json:
        print(to_json(info))
        return 0
    rows = [
        (_TITLES.get(key, key.replace("_", " ")), f"{one_line(_shown(value))} {_UNITS.get(key, '')}")
        for key, value in info.items()
        if value is not None
    ]
    for line in aligned(rows):
        print(line)
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
