"""``crossrank registry list|show|prune FOLDER``: the versions of a model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser
from crossrank.cli.terminal import one_line, to_json
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.checkpoint.model_registry import ModelRegistry, Version

DESCRIPTION = """\
List the versions in a model registry, show the history of one, or delete old
ones."""
EPILOG = """\
examples:
  crossrank registry list ./registry
  crossrank registry show ./registry 3
  crossrank registry prune ./registry --keep 5 --dry-run

'prune' keeps the version in use, the --keep versions in use before it, and
all newer versions.
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("action", metavar="ACTION", choices=("list", "show", "prune"), help="list, show or prune")
    parser.add_argument("registry", metavar="FOLDER", help="the registry")
    parser.add_argument(
        "version", metavar="VERSION", nargs="?", help="for show: a version's name or number (default: the one in use)"
    )
    parser.add_argument(
        "--keep", type=int, default=5, metavar="N", help="for prune: how many earlier versions to keep (default: 5)"
    )
    parser.add_argument("--dry-run", action="store_true", help="for prune: only print what would be deleted")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.checkpoint.model_registry import ModelRegistry

    registry = ModelRegistry(args.registry)
    registry.must_be_there()
    if args.action == "prune":
        old = registry.prune(args.keep, dry_run=args.dry_run)
        if args.json:
            print(to_json({"deleted": [one.name for one in old], "dry_run": args.dry_run}))
        else:
            names = ", ".join(one.name for one in old) or "nothing"
            print(f"{'would delete' if args.dry_run else 'deleted'}: {names}")
    elif args.action == "show":
        current = registry.current()
        if args.version is None and current is None:
            raise InputError(f"{args.registry!r} has no version in use. Name one.")
        version = registry.find(args.version if args.version is not None else current.name if current else "")
        _show(registry, version, as_json=args.json)
    else:
        facts = [_facts(registry, version) for version in registry.versions()]
        if args.json:
            print(to_json({"versions": facts}))
        else:
            for one in facts:
                size = f"{one['bytes'] / 1e6:.0f} MB"
                print(
                    one_line(f"{one['name']}  {one['published'] or 'unknown':25}  {size:>8}  {one['state']}").rstrip()
                )
    return 0


def _facts(registry: ModelRegistry, version: Version) -> dict[str, Any]:
    events = [one for one in registry.history() if one.get("version") == version.name]
    current, before = registry.current(), registry.before()
    state = "in use" if version == current else "in use before" if version in before else ""
    published = next((one.get("time") for one in events if one.get("event") == "publish"), None)
    size = sum(file.stat().st_size for file in version.folder.rglob("*") if file.is_file())
    return {"name": version.name, "state": state, "published": published, "bytes": size, "folder": str(version.folder)}


def _show(registry: ModelRegistry, version: Version, *, as_json: bool) -> None:
    events = [one for one in registry.history() if one.get("version") == version.name]
    facts = _facts(registry, version)
    if as_json:
        print(to_json({**facts, "history": events}))
        return
    print(f"{version.name}  {facts['state']}".rstrip())
    print(one_line(f"  {facts['bytes'] / 1e6:.0f} MB in {facts['folder']}"))
    for event in events:
        print(one_line(f"  {event.get('time')}  {event.get('event')}"))
        for reason in (event.get("decision") or {}).get("reasons", ()):
            print(one_line(f"    {reason}"))
