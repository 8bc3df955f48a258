"""Python out of documents that were written for people.

A document with code fences gives the text of each ``python`` fence. A document without any has lost them, and its
indentation with them: there a snippet begins at a line ``from ... import ...`` and goes on for as long as it is Python.

Three repairs are made, and no others:

1. A footnote mark in code, ``x[^4_1]``, was an index before a converter took it for one: it becomes ``x[1]``.
2. Lost indentation is put back by the rules of :func:`indent`.
3. ``from sentence_transformers import CrossEncoder`` names the library that is asked for: what a reader changes.
"""

from __future__ import annotations

import ast
import re
import textwrap
import tokenize
from io import StringIO

_FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_FOOTNOTE = re.compile(r"\[\^\d+_(\d+)\]")
_IMPORT = re.compile(r"^from sentence_transformers import CrossEncoder\b", re.MULTILINE)


def snippets(document: str, library: str = "crossrank") -> list[str]:
    """The snippets of a document, repaired, in order."""
    found = _FENCE.findall(document) or _unfenced(document)
    return [_IMPORT.sub(f"from {library} import CrossEncoder", _FOOTNOTE.sub(r"[\1]", code)) for code in found]


def indent(lines: list[str]) -> list[str]:
    """Put back indentation that was lost.

    A line that ends in a colon opens a block. Lines inside brackets or a docstring stay as they are. A comment ends the
    loops that are open, and ``return`` ends the function.
    """
    indented: list[str] = []
    blocks: list[str] = []  # the keyword that opened each
    for line in lines:
        inside = _is_open(indented)
        if not inside and line.startswith("#"):
            while blocks and blocks[-1] in ("for", "while"):
                blocks.pop()
        indented.append(textwrap.indent(line, "    " * len(blocks)))
        if inside or _is_open(indented):
            continue
        if line.endswith(":"):
            blocks.append(line.split()[0])
        elif line.split(maxsplit=1)[:1] == ["return"]:
            while blocks and blocks.pop() != "def":
                pass
    return indented


def _unfenced(document: str) -> list[str]:
    lines = document.splitlines()
    found: list[str] = []
    start = 0
    while start < len(lines):
        taken = 0
        if re.match(r"from \S+ import \S+$", lines[start]):
            ends = range(start + 1, min(len(lines), start + 60) + 1)
            taken = max((end - start for end in ends if _is_python(indent(lines[start:end]))), default=0)
        if taken:
            found.append("\n".join(indent(lines[start : start + taken])) + "\n")
        start += max(1, taken)
    return found


def _is_python(lines: list[str]) -> bool:
    try:
        ast.parse("\n".join(lines))
    except SyntaxError:
        return False
    return True


def _is_open(lines: list[str]) -> bool:
    """Whether the code so far ends inside a bracket or a string."""
    try:
        list(tokenize.generate_tokens(StringIO("\n".join(lines) + "\n").readline))
    except tokenize.TokenError:
        return True
    except (IndentationError, SyntaxError):
        return False
    return False
