"""``crossrank rollback FOLDER``: put the version before to use again."""

from __future__ import annotations

import argparse
from typing import Any

from crossrank.cli.output import one_line, to_json

EPILOG = """\
examples:
  crossrank rollback ./registry
  crossrank rollback ./registry --to 3
  crossrank rollback ./registry --list
"""


def add(commands: Any) -> None:
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "rollback",
        help="put the version before to use again",
        description="Put the version that was in use before to use again; twice goes back twice.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("registry", metavar="FOLDER", help="the registry")
    parser.add_argument("--to", metavar="VERSION", help="a version's name or number (default: the one before)")
    parser.add_argument("--list", action="store_true", help="only say which versions there are")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Run the command.

    :raises CrossRankError: If there is nothing to go back to.
    """
    from crossrank.checkpoint.model_registry import ModelRegistry

    registry = ModelRegistry(args.registry)
    registry.must_be_there()
    was = registry.current()
    if not args.list:
        registry.rollback(args.to)
    current = registry.current()
    in_use, before = current.name if current else None, [version.name for version in registry.before()]
    if args.json:
        versions = [version.name for version in registry.versions()]
        print(to_json({"in_use": in_use, "was": was.name if was else None, "before": before, "versions": versions}))
    elif args.list:
        for version in registry.versions():
            note = "in use" if version == current else "in use before" if version.name in before else ""
            print(one_line(f"{version.name}  {note}").rstrip())
    else:
        print(f"in use: {in_use}" + (f" (was {was.name})" if was is not None and was != current else ""))
    return 0
