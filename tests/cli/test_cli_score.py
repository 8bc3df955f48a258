"""``crossrank score``: in the order of the input, while it is still coming, in bounded memory."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder

PAIRS = [(query, passage[:200]) for query, passage in texts.pairs(20)]
TABBED = "".join(f"{query}\t{document}\n" for query, document in PAIRS)

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def expected(tiny_bert: Path) -> list[float]:
    return CrossEncoder(tiny_bert).score(PAIRS).scores.tolist()


# ---- what comes out


def test_a_score_a_line_in_the_order_of_the_input(
    crossrank: Run, tiny_bert: Path, tmp_path: Path, expected: list[float]
) -> None:
    (tmp_path / "pairs.tsv").write_text(TABBED)
    ran = crossrank("score", "pairs.tsv", "--model", tiny_bert)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "".join(f"{score!r}\n" for score in expected)


@pytest.mark.parametrize("names", [("query", "document"), ("question", "passage")])
def test_json_lines(
    names: tuple[str, str], crossrank: Run, tiny_bert: Path, tmp_path: Path, expected: list[float]
) -> None:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(dict(zip(names, p, strict=True))) + "\n" for p in PAIRS))
    options = () if names[0] == "query" else ("--query-field", names[0], "--document-field", names[1])
    ran = crossrank("score", "pairs.jsonl", "--model", tiny_bert, "--json", *options)
    got = [json.loads(line) for line in ran.lines]
    assert got == [{"line": i, "score": score, "kind": "sigmoid"} for i, score in enumerate(expected, start=1)]


def test_standard_input_of_either_kind(crossrank: Run, tiny_bert: Path, expected: list[float]) -> None:
    as_json = "".join(json.dumps({"query": query, "document": document}) + "\n" for query, document in PAIRS)
    for given in ("\ufeff" + TABBED.replace("\n", "\r\n"), as_json):
        ran = crossrank("score", "-", "--model", tiny_bert, stdin=given)
        # A pipe that pauses is scored in other chunks, and the last bits depend on the shape of a batch.
        np.testing.assert_allclose([float(line) for line in ran.lines], expected, atol=1e-3)


def test_raw_scores(crossrank: Run, tiny_bert: Path) -> None:
    logits = CrossEncoder(tiny_bert, precision="float32").score(PAIRS).logits[:, 0]
    ran = crossrank("score", "-", "--model", tiny_bert, "--raw", "--precision", "float32", stdin=TABBED)
    np.testing.assert_allclose([float(line) for line in ran.lines], logits, atol=1e-5)


def test_several_labels(crossrank: Run, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "three", "bert", num_labels=3)
    (tmp_path / "pairs.tsv").write_text(TABBED)
    expected = CrossEncoder(folder).score(PAIRS).scores.tolist()
    ran = crossrank("score", "pairs.tsv", "--model", folder)
    assert ran.lines == ["\t".join(map(repr, row)) for row in expected]
    ran = crossrank("score", "pairs.tsv", "--model", folder, "--json")
    names = ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert json.loads(ran.lines[1]) == {
        "line": 2,
        "scores": dict(zip(names, expected[1], strict=True)),
        "kind": "logit",
    }
    ran = crossrank("score", "pairs.tsv", "--model", folder, "--label", "LABEL_1")
    assert [float(line) for line in ran.lines] == CrossEncoder(folder, label=1).score(PAIRS).scores.tolist()


def test_line_7_is_about_line_7(crossrank: Run, tiny_bert: Path, expected: list[float]) -> None:
    lines = [f"{query}\t{document}" for query, document in PAIRS[:4]]
    given = (
        "\n".join([lines[0], "", lines[1], "one column", lines[2], "a\tb\tc", "  ", lines[3]]).encode() + b"\n\xff\tx\n"
    )
    ran = crossrank("score", "-", "--model", tiny_bert, "--skip-bad", stdin=given)
    assert ran.code == 0
    assert [position for position, line in enumerate(ran.lines) if line] == [0, 2, 4, 7]
    np.testing.assert_allclose([float(line) for line in ran.lines if line], expected[:4], atol=1e-3)
    assert len(ran.lines) == 9
    assert ran.err == (
        "crossrank: warning: 3 bad lines were left out; "
        "the first is standard input, line 4: 'one column' has 1 column, not 2.\n"
    )
    ran = crossrank("score", "-", "--model", tiny_bert, "--skip-bad", "--json", stdin=given)
    got = [json.loads(line) for line in ran.lines]
    assert [row["line"] for row in got] == [1, 3, 4, 5, 6, 8, 9]
    assert [row["line"] for row in got if "error" in row] == [4, 6, 9]
    assert got[4]["error"] == "'a\\tb\\tc' has 3 columns, not 2"


@pytest.mark.parametrize(
    ("name", "bad", "says"),
    [
        ("p.tsv", "a\tb\tc", "p.tsv, line 3: 'a\\tb\\tc' has 3 columns, not 2. Give a query, a tab and a document"),
        ("p.tsv", "a b", "p.tsv, line 3: 'a b' has 1 column, not 2"),
        ("p.jsonl", "a b", "p.jsonl, line 3: 'a b' is not JSON"),
        (
            "p.jsonl",
            '{"query": "q"}',
            "line 3: it has no field 'document'; its fields: 'query'. Name the field to read",
        ),
        ("p.jsonl", '{"query": 1, "document": "d"}', "line 3: its field 'query' is a number, not a string"),
    ],
)
def test_it_stops_at_a_bad_line_after_the_scores_before_it(
    name: str, bad: str, says: str, crossrank: Run, tiny_bert: Path, tmp_path: Path, expected: list[float]
) -> None:
    good = [json.dumps({"query": q, "document": d}) if name == "p.jsonl" else f"{q}\t{d}" for q, d in PAIRS]
    (tmp_path / name).write_text("\n".join([*good[:2], bad, *good[2:]]))
    ran = crossrank("score", name, "--model", tiny_bert)
    assert ran.code == 1
    np.testing.assert_allclose([float(line) for line in ran.lines], expected[:2], atol=1e-3)
    assert ran.err.startswith("crossrank: error: ")
    assert says in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_nothing_to_score_is_no_error(content: str, crossrank: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text(content)
    ran = crossrank("score", "empty.tsv")
    assert (ran.code, ran.out, ran.err) == (0, content, "")


def test_cut_pairs_are_reported(crossrank: Run, tiny_bert: Path) -> None:
    given = "short\tshort\n" + "short\t" + "word " * 30 + "\n"
    ran = crossrank("score", "-", "--model", tiny_bert, "--max-length", "20", stdin=given)
    assert "1 of 2 pairs were cut at the end, by 14 tokens in all. The model reads 20 tokens: --max-length" in ran.err


# ---- while the input is still coming


def start(tiny_bert: Path, *args: str, **pipes: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "crossrank", "score", *args, "--model", str(tiny_bert)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **pipes,
    )


def test_scores_come_before_the_input_ends(tiny_bert: Path) -> None:
    with start(tiny_bert, "-", stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for count in (3, 1):
            process.stdin.write(TABBED.split("\n")[0] + "\n" + "a query\ta document\n" * (count - 1))
            process.stdin.flush()
            for _ in range(count):
                assert 0 < float(process.stdout.readline()) < 1
        process.stdin.close()
        assert process.stdout.read() == ""
        assert process.wait() == 0


def test_an_interrupt_is_quiet(tiny_bert: Path) -> None:
    with start(tiny_bert, "-", stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write("a query\ta document\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == ""


def test_a_reader_that_has_enough_is_no_error(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "long.tsv").write_text("a query\ta document\n" * 20_000)
    with start(tiny_bert, str(tmp_path / "long.tsv")) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""


# What the process itself knows of its peak: a parent's large memory would count into the child's resource usage.
PEAK = """
import sys
from pathlib import Path
from crossrank.cli.main import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.proc
def test_memory_does_not_grow_with_the_file(tiny_bert: Path, tmp_path: Path) -> None:
    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.tsv"
        path.write_text(("a query of some words\t" + "a document of some more words " * 20 + "\n") * lines)
        command = [sys.executable, "-c", PEAK, "score", str(path), "--model", str(tiny_bert)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.count("\n") == lines
        return int(done.stderr)

    # 50000 lines are 30 MB of text; the same pair is scored once a chunk, so this takes no time.
    assert peak(50_000) - peak(5_000) < 8_000  # kB


# ---- on a terminal


def test_a_terminal_gets_a_progress_bar(terminal: Run, tiny_bert: Path, tmp_path: Path, expected: list[float]) -> None:
    (tmp_path / "pairs.tsv").write_text(TABBED)
    ran = terminal("score", "pairs.tsv", "--model", tiny_bert, piped=True)
    assert ran.code == 0
    assert [float(line) for line in ran.lines] == expected
    assert re.search(r"\r +0%\|.* 0/20 ", ran.err)
    assert re.search(r"20 pairs, \d+ tokens, \d+ ms", ran.err)
    # Bar and scores on one terminal: the bar makes way, so that each score has its line.
    ran = terminal("score", "pairs.tsv", "--model", tiny_bert)
    shown = [line.rpartition("\r")[2] for line in ran.lines]
    assert [float(line) for line in shown if re.fullmatch(r"0\.\d+", line)] == expected
