"""``crossrank info [MODEL]``: what a model is, and what it runs with here."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from crossrank.cli.options import add_model_options, open_model
from crossrank.cli.output import one_line, to_json

EPILOG = """\
examples:
  crossrank info
  crossrank info cross-encoder/ms-marco-MiniLM-L6-v2
  crossrank info ./my-model --precision float32 --json
"""

_TITLES: Mapping[str, str] = {
    "model": "model",
    "folder": "files",
    "revision": "revision",
    "architecture": "architecture",
    "layers": "layers",
    "hidden_size": "hidden size",
    "usable_length": "usable length",
    "max_length": "length in use",
    "identity": "identity",
    "labels": "labels",
    "activation": "scores are",
    "engine": "engine",
    "device": "device",
    "precision": "precision",
    "threads": "threads",
}
_UNITS: Mapping[str, str] = {"usable_length": "tokens", "max_length": "tokens"}


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "info",
        help="say what a model is and what it runs with",
        description="Say what a model is and what it runs with on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a name on the Hugging Face hub, or a folder (default: the model in the box)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_model_options(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the command.

    :raises CrossRankError: If the model can't be loaded.
    """
    info = dict(open_model(args).info())
    if args.json:
        print(to_json(info))
        return 0
    width = max(map(len, _TITLES.values()))
    for key, value in info.items():
        if value is not None:
            print(f"{_TITLES.get(key, key):<{width}}  {one_line(_shown(value))} {_UNITS.get(key, '')}".rstrip())
    return 0


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
