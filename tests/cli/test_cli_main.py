"""What holds for all commands: help, version, usage errors, what is imported."""

from __future__ import annotations

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
from crossrank.cli.main import EPILOG, build_parser


def test_the_installed_command_says_its_version() -> None:
    command = Path(sys.executable).with_name("crossrank")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"crossrank {package.__version__}\n"


COMMANDS = {
    name: module for name, module in vars(assembled).items() if getattr(module, "__name__", "").endswith(f".cli.{name}")
}


@pytest.mark.parametrize("args", [("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_has_examples_and_fits_a_terminal(args: tuple[str, ...], crossrank: Callable[..., Any]) -> None:
    ran = crossrank(*args, env={"COLUMNS": "80"})
    assert ran.code == 0
    assert "examples:\n  crossrank" in ran.out
    assert not ran.err
    assert max(map(len, ran.lines)) <= 80


def test_help_and_version_do_not_load_the_engine() -> None:
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "crossrank", option], capture_output=True, text=True, check=True
        )
        for heavy in ("openvino", "torch", "transformers", "huggingface_hub", "tqdm"):
            assert not re.search(rf"\| +{heavy}\b", done.stderr), heavy


EXAMPLES = [
    line.strip().rpartition("| ")[2].partition(" > ")[0]
    for text in (EPILOG, *(module.EPILOG for module in COMMANDS.values()))
    for line in re.sub(r"\\\n\s*", "", text).splitlines()
    if re.match(r"  (\S.* \| )?crossrank ", line)
]


def test_each_command_has_examples() -> None:
    assert len(COMMANDS) >= 12
    shown = {words[1] for words in map(shlex.split, EXAMPLES)}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_right_usage(example: str) -> None:
    words = shlex.split(example)
    assert build_parser().parse_args(words[1:]).execute


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "COMMAND"),
        (("rank",), "'rank'"),
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
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(args)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_wrong_usage_of_the_process_is_code_2(crossrank: Callable[..., Any]) -> None:
    ran = crossrank("rerank")
    assert (ran.code, ran.out) == (2, "")
    assert "usage: crossrank rerank" in ran.err


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--device", "gpu", "device='gpu' is not known: give one of cpu, cuda, mps"),
        ("--model", "./no-such-model", "There is no folder 'no-such-model'"),
        ("--max-length", "513", "max_length=513 is more than this model's 512 tokens. Leave it out"),
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
