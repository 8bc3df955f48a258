"""The documentation is true: its examples run as they are written, and its map of the code matches the code.

Every ``python`` block of README.md and of a page in docs/ runs, in order and in one namespace, except those after a
line ``<!-- no-run -->``. They run in a folder of their own. README.md's shell commands run in the project's folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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


PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))) if blocks(page)]


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\ntext\n```python\nb = a\n```\n<!-- no-run -->\n```python\nc = ?\n```\n")
    assert blocks(page) == [(2, "a = 1\n"), (7, "b = a\n")]
    assert {ROOT / "README.md", DOCS / "pipelines.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    for line, code in blocks(page):
        # Blank lines before it, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True), vars(module))


def commands_of_the_readme() -> list[str]:
    """The commands of its shell blocks, but for those that install or test the whole project."""
    found = re.findall(
        r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = [line.partition("  #")[0].strip() for block in found for line in block.splitlines()]
    return [line for line in lines if "crossrank" in line and not line.startswith("pip ")]


@pytest.mark.parametrize("command", commands_of_the_readme())
def test_a_command_of_the_readme_runs(command: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_readme_starts_with_a_ranking() -> None:
    assert len(commands_of_the_readme()) >= 3
    assert commands_of_the_readme()[0].startswith("crossrank rerank")


def test_the_map_of_rooms_matches_the_folders_and_the_layers() -> None:
    mapped = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    folders = {path.parent.name for path in (ROOT / "src" / "crossrank").glob("*/__init__.py")}
    assert set(mapped) == folders
    assert len(mapped) == len(folders)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    layers = [re.findall(r"crossrank\.(\w+)", layer) for layer in contract["layers"]]
    height = {room: -row for row, rooms in enumerate(layers) for room in rooms}
    assert folders <= set(height)
    assert mapped == sorted(mapped, key=lambda room: height[room])
