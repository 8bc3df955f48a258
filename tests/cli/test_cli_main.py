"""What holds for all commands: help, version, usage errors, what is imported."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crossrank as package
from crossrank.cli import main as assembled
from crossrank.cli.main import COMMANDS, EPILOG, main, parser_of
from crossrank.cli.terminal import aligned, to_json
from crossrank.errors import did_you_mean


def test_the_installed_command_says_its_version() -> None:
    command = Path(sys.executable).with_name("crossrank")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"crossrank {package.__version__}\n"


@pytest.mark.parametrize("args", [("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_has_examples_and_fits_a_terminal(args: tuple[str, ...], crossrank: Callable[..., Any]) -> None:
    ran = crossrank(*args, env={"COLUMNS": "80"})
    assert ran.code == 0
    assert "examples:\n  crossrank" in ran.out
    assert not ran.err
    assert max(map(len, ran.lines)) <= 80


def test_help_and_version_import_no_command_and_nothing_heavy() -> None:
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "crossrank", option], capture_output=True, text=True, check=True
        )
        for heavy in ("numpy", "openvino", "tokenizers", "torch", "huggingface_hub", "tqdm", *COMMANDS):
            assert not re.search(rf"\| +(crossrank\.cli\.)?{heavy}$", done.stderr, re.MULTILINE), heavy


def test_each_command_is_in_the_help_and_each_module_is_a_command(crossrank: Callable[..., Any]) -> None:
    shown = crossrank("--help").out
    for name, summary in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", shown, re.MULTILINE)
    modules = [path for path in Path(assembled.__file__).parent.glob("*.py") if "def execute(" in path.read_text()]
    assert {path.stem for path in modules} == set(COMMANDS)


def examples_of(text: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", text).splitlines()
    lines = [line for line in joined if re.match(r"  (\S.* \| )?crossrank ", line)]
    return [line.strip().rpartition("| ")[2].partition(" > ")[0] for line in lines]


EXAMPLES = [
    example for text in (EPILOG, *(parser_of(name).epilog or "" for name in COMMANDS)) for example in examples_of(text)
]


def test_each_command_has_examples() -> None:
    assert {shlex.split(example)[1] for example in EXAMPLES} == set(COMMANDS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_right_usage(example: str) -> None:
    _, command, *words = shlex.split(example)
    assert parser_of(command).parse_args(words).execute


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "usage: crossrank COMMAND"),
        (("renk",), "'renk' is not a command of crossrank. Did you mean 'rerank'?"),
        (("--versoin",), "'--versoin' is not an option of crossrank. Did you mean '--version'?"),
        (("rerank", "q", "f", "--treshold", "3"), "has no option --treshold. Did you mean '--threshold'?"),
        (("calibrate", "data", "--outptu=c.json"), "has no option --outptu. Did you mean '--output'?"),
        (("rerank", "q", "f", "--zzz"), "crossrank rerank has no option --zzz.\n"),
        (("rerank", "a query"), "FILE"),
        (("rerank", "q", "f", "--top-k", "0"), "'0' is not a positive integer"),
        (("rerank", "q", "f", "--top-k", "two"), "'two' is not a positive integer"),
        (("rerank", "q", "f", "--precision", "int3"), "'int3'"),
        (("rerank", "q", "f", "--activation", "relu"), "'relu'"),
        (("rerank", "q", "f", "--raw", "--activation", "tanh"), "not allowed with"),
        (("score", "f", "--batch-size", "-1"), "'-1' is not a positive integer"),
        (("score", "f", "--format", "csv"), "'csv'"),
    ],
)
def test_wrong_usage_is_code_2(
    args: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(args) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert not said.out


def test_wrong_usage_of_the_process_is_code_2(crossrank: Callable[..., Any]) -> None:
    ran = crossrank("rerank")
    assert (ran.code, ran.out) == (2, "")
    assert "usage: crossrank rerank" in ran.err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--device", "gpu", "device='gpu' is not known: give one of cpu, cuda, mps"),
        ("--model", "./no-such-model", "There is no folder 'no-such-model'"),
        ("--max-length", "4", "max_length=4 is too short"),
        ("--label", "relevant", "label='relevant' is not one of this model's labels: LABEL_0. Give one of these names"),
        ("--activation", "softmax", "here each pair has a single score. Give 'sigmoid' or 'identity'"),
    ],
)
def test_what_the_model_refuses_is_one_line_and_code_1(
    option: str, value: str, says: str, crossrank: Callable[..., Any], tiny_bert: Path
) -> None:
    ran = crossrank("score", "-", "--model", tiny_bert, option, value, stdin="a query\ta document\n")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("crossrank: error: ")
    assert says in ran.err
    assert ran.err.count("\n") == 1


def test_the_same_option_under_its_old_name_and_in_both_places(crossrank: Callable[..., Any], tiny_bert: Path) -> None:
    old = parser_of("promote").parse_args(["m", "--data", "d", "--run-precision", "float32"])
    assert old == parser_of("promote").parse_args(["m", "--data", "d", "--precision", "float32"])
    assert "--run-precision" not in parser_of("promote").format_help()
    assert crossrank("info", "--model", tiny_bert).out == crossrank("info", tiny_bert).out != ""
    assert "Two models are given" in crossrank("info", "--model", tiny_bert, tiny_bert).err


# ---- streams that are closed or full

TO_RANK = "rerank 'undo a commit' docs.txt --top-k 1"


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (f"{TO_RANK} 2>&-", 0, "1\t", ""),
        ("score pairs.tsv 2>&-", 0, "0.", ""),
        ("explain 'undo a commit' @docs.txt 2>&-", 0, "raw score", ""),
        ("rerank q nothing.txt 2>&-", 1, "", ""),
        ("rerank --nothing 2>&-", 2, "", ""),
        (f"{TO_RANK} >&-", 1, "", "is closed"),
        ("--help >&-", 1, "", "is closed"),
        ("rerank q nothing.txt >&-", 1, "", "There is no file 'nothing.txt'"),
        ("score - <&-", 1, "", "is closed"),
        ("explain q - <&-", 1, "", "can't be read"),
        ("rerank q - <&-", 1, "", "is closed"),
        ("score pairs.tsv <&-", 0, "0.", ""),
        ("rerank q nothing.txt <&- >&- 2>&-", 1, "", ""),
    ],
)
def test_closed_streams(words: str, code: int, out: str, err: str, tmp_path: Path) -> None:
    ran = _in_a_shell(words, tmp_path)
    assert (ran.returncode, ran.stderr.count("\n")) == (code, 1 if err else 0), ran.stderr
    assert err in ran.stderr
    assert "crossrank:" not in ran.stdout
    assert out.strip() in ran.stdout
    assert bool(out) == bool(ran.stdout)


@pytest.mark.proc
@pytest.mark.parametrize("words", ["--version", "--help", "rerank --help", "score pairs.tsv", TO_RANK])
def test_a_full_disk_is_one_line_and_code_1(words: str, tmp_path: Path) -> None:
    ran = _in_a_shell(f"{words} >/dev/full", tmp_path)
    assert ran.returncode == 1
    assert ran.stderr == "crossrank: error: Can't use a standard stream: No space left on device.\n"
    assert _in_a_shell(f"{words} 2>/dev/full", tmp_path).returncode == 0


def _in_a_shell(words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "docs.txt").write_text("git reset --soft HEAD~1 undoes the last commit.\ngit log shows the history.\n")
    (folder / "pairs.tsv").write_text("undo a commit\tgit reset undoes a commit.\n")
    command = f"{shlex.quote(sys.executable)} -m crossrank {words}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, check=False)


# ---- what commands share


def test_columns_are_aligned_for_wide_letters_too() -> None:
    assert aligned([["a", "10", "x"], ["日本", "9", ""]], right=[1]) == ["a     10  x", "日本   9"]


def test_json_is_one_line_that_cannot_steer_a_terminal() -> None:
    text = "é \u202e\x9b31m\x1b \ud800 日 \U000e0001"
    written = to_json({"text": text})
    assert written.isprintable()
    assert "é" in written
    assert "日" in written
    assert json.loads(written) == {"text": text}


def test_suggestions() -> None:
    assert did_you_mean("quary", ("query", "documents")) == " Did you mean 'query'?"
    assert did_you_mean("stars", ("query", "documents")) == ""
