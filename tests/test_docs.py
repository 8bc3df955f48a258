"""The examples of the documentation: they run as they stand, a page in one go.

Every ``python`` block of a page in docs/ runs, in order and in one namespace, but for those that follow a line
``<!-- no-run -->``. They run in a folder of their own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^(?P<before>[^\n]*)\n+```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
NO_RUN = "<!-- no-run -->"


def blocks(page: Path) -> list[tuple[int, str]]:
    """The line and the code of each block that runs."""
    text = "\n" + page.read_text(encoding="utf-8")
    return [
        (text[: match.start("code")].count("\n"), match["code"])
        for match in _BLOCK.finditer(text)
        if match["before"].strip() != NO_RUN
    ]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if blocks(page)]


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\ntext\n```python\nb = a\n```\n<!-- no-run -->\n```python\nc = ?\n```\n")
    assert blocks(page) == [(2, "a = 1\n"), (7, "b = a\n")]
    assert DOCS / "pipelines.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    for line, code in blocks(page):
        # Blank lines before it, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True), vars(module))
