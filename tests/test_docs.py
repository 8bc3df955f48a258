"""The documentation is true: its examples run as they are written, and its map of the code matches the code.

Every ``python`` block of README.md and of a page in docs/ runs, in order and in one namespace, except those after a
line ``<!-- no-run -->``. They run in a folder of their own. README.md's shell commands run in the project's folder.

A ``text`` block after a line ``<!-- output -->`` is what the block before it prints, Python or shell; shell blocks
without one run after a line ``<!-- run -->``. Shell blocks write to a terminal, as a reader's do. Numbers with decimals
may differ by 0.01, for processors round differently, and times may be any.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^(?P<mark>[^\n]*)\n+```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
NO_RUN, RUN, OUTPUT = "<!-- no-run -->", "<!-- run -->", "<!-- output -->"
ROUNDING = 0.01


class Block(NamedTuple):
    """A block of a page that runs; ``output`` is what the page says that it prints, ``None`` where it does not say."""

    line: int
    language: str
    code: str
    output: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that run."""
    text = "\n" + page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    running = []
    for match, after in itertools.zip_longest(found, found[1:]):
        mark, language = match["mark"].strip(), match["language"]
        shown = after is not None and after["mark"].strip() == OUTPUT
        if (language == "python" and mark != NO_RUN) or (language == "bash" and (shown or mark == RUN)):
            output = after["code"] if after is not None and shown else None
            running.append(Block(text[: match.start("code")].count("\n"), language, match["code"], output))
    return running


PAGES = [page for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))) if blocks(page)]


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na = 1\n```\n\ntext\n```python\nb = a\n```\n<!-- no-run -->\n```python\nc = ?\n```\n"
        "```bash\nleft out\n```\n```bash\nls\n```\n\n<!-- output -->\n```text\nx\n```\n<!-- run -->\n```bash\ncd\n```\n"
    )
    assert blocks(page) == [
        (2, "python", "a = 1\n", None),
        (7, "python", "b = a\n", None),
        (17, "bash", "ls\n", "x\n"),
        (26, "bash", "cd\n", None),
    ]
    assert {ROOT / "README.md", DOCS / "pipelines.md"} <= set(PAGES)


def environment() -> dict[str, str]:
    """Where ``crossrank`` is found, nothing is downloaded, and a terminal is 100 columns wide without colours."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "100"}


def on_a_terminal(code: str, folder: Path) -> str:
    """Run shell commands, and return what a terminal shows."""
    ours, theirs = pty.openpty()
    script = f"set -e\n{code}"
    with subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=environment(), stdout=theirs, stderr=theirs
    ) as running:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux' way to say that the other end is closed
            while read := os.read(ours, 65536):
                shown += read
        os.close(ours)
    text = re.sub(r"[^\n]*\r(?!\n)", "", shown.decode().replace("\r\n", "\n"))  # a progress bar writes over itself
    assert running.returncode == 0, text
    return text


def assert_alike(printed: str, shown: str) -> None:
    """Compare what was printed with what a page shows."""

    def words(text: str) -> list[str]:
        text = "\n".join(line.rstrip() for line in text.strip().splitlines())
        text = re.sub(r" \(\d+ per second\)", "", text)  # only on a slow machine
        return re.split(r"(\d+\.\d+)", re.sub(r"[\d.]+ (ms|s)\b", r"TIME \1", text))

    ours, theirs = words(printed), words(shown)
    assert ours[::2] == theirs[::2]
    assert [float(number) for number in ours[1::2]] == pytest.approx([float(n) for n in theirs[1::2]], abs=ROUNDING)


def test_what_is_printed_is_compared() -> None:
    assert_alike("a 0.513 in 12 ms \n", "a 0.51 in 9.5 ms")
    for wrong in ("a 0.56 in 9 ms", "b 0.51 in 9 ms", "a 0.51", "a 0.51 in 9 ms\nb"):
        with pytest.raises(AssertionError):
            assert_alike("a 0.513 in 12 ms", wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    for line, language, code, output in blocks(page):
        if language == "bash":
            printed = on_a_terminal(code, ROOT if page.parent == ROOT else tmp_path)
        else:
            with contextlib.redirect_stdout(io.StringIO()) as stream:
                # Blank lines before it, so that a traceback names the line of the page.
                exec(compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True), vars(module))
            printed = stream.getvalue()
        if output is not None:
            assert_alike(printed, output)


def commands_of_the_readme() -> list[str]:
    """The commands of its shell blocks, but for those that install or test the whole project."""
    found = re.findall(
        r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = [line.partition("  #")[0].strip() for block in found for line in block.splitlines()]
    return [line for line in lines if "crossrank" in line and not line.startswith("pip ")]


@pytest.mark.parametrize("command", commands_of_the_readme())
def test_a_command_of_the_readme_runs(command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
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


def test_the_list_of_pages_for_language_models_has_every_page() -> None:
    pages = importlib.import_module("scripts.site_pages")
    pages.write_pages()
    made = {"reference/cli.md", *(f"project/{name.lower()}" for name in pages.PROJECT)}
    here = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    lines = re.findall(
        r"^- \[(.+)\]\((\S+)\)(?:: (.+))?$", (DOCS / "llms.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    files = [address.removeprefix("https://crossrank.github.io/crossrank/") for _, address, _ in lines]
    assert {file.removesuffix(".html") + ".md" for file in files} == here
    assert made <= here
    assert len(set(files)) == len(files)
    assert [title for title, _, sentence in lines if not sentence] == ["Changelog"]


def test_the_page_of_the_configuration_names_each_setting_of_the_server() -> None:
    from crossrank.server.settings import Settings

    page = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8").partition("## The server")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (.*) \|$", page, re.MULTILINE))
    assert rows == {name: field.description for name, field in Settings.model_fields.items()}


def test_the_page_of_errors_names_each_error() -> None:
    from crossrank import errors

    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    abstract = {"CrossRankError", "ModelError"}
    known = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.CrossRankError)
    }
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == known - abstract


def test_the_python_api_has_all_that_is_public() -> None:
    """What the package and its rooms export is on the page."""
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    for room in ("crossrank", "crossrank.batch", "crossrank.data", "crossrank.evaluation", "crossrank.training"):
        names = importlib.import_module(room).__all__
        errors = {name for name in names if name.endswith(("Error", "Warning"))} | {"__version__"}
        assert {f"{room}.{name}" for name in names if name not in errors} <= shown, room
