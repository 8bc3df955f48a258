"""``crossrank mcp``: ranking as a tool of agents, over the Model Context Protocol."""

from __future__ import annotations

import argparse

from crossrank.cli.options import MODEL, Parser, add_model_options, open_model
from crossrank.optional import require

DESCRIPTION = """\
Give agents the tools 'rerank' and 'explain', over the Model Context Protocol on
standard input and output."""
EPILOG = """\
In an agent's settings:
  {"mcpServers": {"crossrank": {"command": "crossrank",
                                "args": ["mcp", "--folder", "/path/to/texts"]}}}

examples:
  crossrank mcp
  crossrank mcp --folder docs --model cross-encoder/ms-marco-MiniLM-L6-v2
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--folder",
        metavar="FOLDER",
        default=".",
        help="agents may read files in this folder only (default: the current folder)",
    )
    parser.add_argument("--model", metavar="NAME", help=MODEL)
    add_model_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command, until the agent closes standard input."""
    require("mcp", extra="mcp", purpose="crossrank mcp")
    from crossrank.integrations.mcp_server import make_server

    make_server(open_model(args), args.folder).run()
    return 0
