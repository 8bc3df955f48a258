"""Write the pages of the site that are made from something else.

python scripts/site_pages.py     # `make docs` runs it

- docs/reference/cli.md, from the command line's own parser
- docs/project/, from CHANGELOG.md, CONTRIBUTING.md and SECURITY.md
- docs/llms.txt (https://llmstxt.org), from the navigation in zensical.toml and the first sentence of each page
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# The width that argparse wraps to, the same on every terminal, and no colours from newer Pythons.
os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}

from crossrank.cli.main import COMMANDS, overview, parser_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_CLI = "# Command line\n\nEvery command and its options, as `crossrank COMMAND --help` prints them.\n"
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def with_subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A command's parser, and the parser of each command below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from with_subcommands(command)


def command_line() -> str:
    """The page of all commands."""
    parts = [f"```text\n{overview(io.StringIO())}\n```"]
    parsers = (parser for name in COMMANDS for parser in with_subcommands(parser_of(name)))
    parts += [f"## {parser.prog}\n\n```text\n{parser.format_help().rstrip()}\n```" for parser in parsers]
    return _CLI + "\n" + "\n\n".join(parts) + "\n"


def navigation(site: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each section of the navigation with its pages, as title and file."""
    for entry in site["nav"]:
        for section, pages in entry.items():
            if isinstance(pages, str):
                yield section, [(section, pages)]
            else:
                yield section, [(title, file) for page in pages for title, file in page.items()]


def first_sentence(page: str) -> str:
    """The first sentence of a page's first paragraph, without its markup; nothing for a page of lists."""
    text = re.sub(r"^```.*?^```$|^<!--.*?-->$", "", page, flags=re.DOTALL | re.MULTILINE)
    paragraphs = (part.strip() for part in text.split("\n\n"))
    found = next((part for part in paragraphs if part and part[0] not in "#|:-*"), "")
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(found.split()))
    return re.split(r"(?<=[.:])\s(?=[A-Z`])", plain, maxsplit=1)[0].rstrip(":")


def llms_txt() -> str:
    """A line for each page: its title, its address, and its first sentence."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    parts = [f"# {site['site_name']}\n\n> {site['site_description']}\n"]
    for section, pages in navigation(site):
        parts.append(f"## {section}\n")
        for title, file in pages:
            address = site["site_url"] + file.removesuffix(".md") + ".html"
            sentence = first_sentence((DOCS / file).read_text(encoding="utf-8"))
            parts.append(f"- [{title}]({address})" + (f": {sentence}" if sentence else ""))
        parts.append("")
    return "\n".join(parts)


def write_pages() -> None:
    """Write them all; the list of pages last, for it reads the others."""
    pages = {"reference/cli.md": command_line}
    pages |= {
        f"project/{name.lower()}": lambda name=name: (ROOT / name).read_text(encoding="utf-8") for name in PROJECT
    }
    pages["llms.txt"] = llms_txt
    for name, text in pages.items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    write_pages()
