"""``crossrank serve``: an HTTP server that search and RAG products use as their reranker."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser
from crossrank.cli.terminal import aligned, to_json
from crossrank.optional import require

if TYPE_CHECKING:
    from crossrank.server.settings import Settings

DESCRIPTION = """\
Serve models over HTTP, in the formats of Cohere, Jina, TEI, vLLM, Voyage,
NVIDIA and Weaviate."""
EPILOG = """\
examples:
  crossrank serve
  crossrank serve --model mini=cross-encoder/ms-marco-MiniLM-L6-v2 --port 8080
  crossrank serve --model live=registry:models/live --keys-file keys.txt
  crossrank serve --config server.toml --print-config

Every option is also an environment variable (CROSSRANK_PORT=8080) and a key of
the --config file (port = 8080). Options override variables, and variables
override the file.
"""
# Settings with several values: their option can be repeated.
_REPEATED = {"models": "--model", "pipelines": "--pipeline"}


def add_options(parser: Parser) -> None:
    """Add the command's options: one for each setting of the server."""
    parser.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    parser.add_argument(
        "--print-config", action="store_true", help="print each setting and where it comes from, then exit"
    )
    parser.add_argument("--json", action="store_true", help="with --print-config: one JSON object")
    for name, field in _settings().model_fields.items():
        option = _REPEATED.get(name, f"--{name.replace('_', '-')}")
        kind: dict[str, Any] = {"metavar": "VALUE"}
        if field.annotation is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif name in _REPEATED:
            kind = {"action": "append", "metavar": "NAME=WHERE"}
        shown = f" (default: {field.default})" if isinstance(field.default, (str, int, float)) and field.default else ""
        parser.add_argument(option, dest=name, default=argparse.SUPPRESS, help=f"{field.description}{shown}", **kind)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.server.settings import read_settings

    flags = {name: value for name, value in vars(args).items() if name in _settings().model_fields}
    settings, origins = read_settings(flags, args.config)
    if not args.print_config:
        from crossrank.server.run import run

        return run(settings)
    values = settings.model_dump(mode="json")
    if args.json:
        print(to_json({name: {"value": value, "from": origins[name]} for name, value in values.items()}))
    else:
        rows = [(name, "" if value is None else to_json(value), origins[name]) for name, value in values.items()]
        print("\n".join(aligned(rows)))
    return 0


def _settings() -> type[Settings]:
    require("pydantic_settings", extra="server", purpose="crossrank serve")
    from crossrank.server.settings import Settings

    return Settings
