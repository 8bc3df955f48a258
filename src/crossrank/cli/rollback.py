"""``crossrank rollback FOLDER``: put the previous version into use again."""

from __future__ import annotations

import argparse

from crossrank.cli.options import Parser
from crossrank.cli.terminal import to_json

DESCRIPTION = """\
Switch a registry back to the version before. Run it twice to go back two
versions."""
EPILOG = """\
examples:
  crossrank rollback ./registry
  crossrank rollback ./registry --to 3
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("registry", metavar="FOLDER", help="the registry")
    parser.add_argument("--to", metavar="VERSION", help="a version's name or number (default: the one before)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.checkpoint.model_registry import ModelRegistry

    registry = ModelRegistry(args.registry)
    registry.must_be_there()
    was = registry.current()
    registry.rollback(args.to)
    current = registry.current()
    in_use, before = current.name if current else None, [version.name for version in registry.before()]
    if args.json:
        versions = [version.name for version in registry.versions()]
        print(to_json({"in_use": in_use, "was": was.name if was else None, "before": before, "versions": versions}))
    else:
        print(f"in use: {in_use}" + (f" (was {was.name})" if was is not None and was != current else ""))
    return 0
