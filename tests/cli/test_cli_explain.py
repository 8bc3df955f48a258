"""``crossrank explain``: colours on a terminal, marks in a pipe, offsets in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossrank import CrossEncoder
from crossrank.evaluation.explain import contrast, explain

QUERY = "how long are backups kept"
DOCUMENT = "Logs are read every morning. Backups are kept for thirty days.\nThe office is in Lyon."
OTHER = "Backups run at night."
Run = Callable[..., Any]
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def test_json_is_what_python_gives(crossrank: Run) -> None:
    ran = crossrank("explain", QUERY, DOCUMENT, "--json", "--precision", "float32")
    assert (ran.code, ran.err) == (0, "")
    got = json.loads(ran.out)
    expected = explain(CrossEncoder(precision="float32"), QUERY, DOCUMENT)
    assert got["logit"] == pytest.approx(expected.logit, abs=1e-4)
    for name in ("query_spans", "sentences", "words"):
        spans = getattr(expected, name)
        assert [(s["start"], s["end"], s["text"]) for s in got[name]] == [(s.start, s.end, s.text) for s in spans]
        assert [s["weight"] for s in got[name]] == pytest.approx([s.weight for s in spans], abs=1e-3)
    assert {match["term"] for match in got["bm25"]} == {"are", "backups", "kept"}
    assert got["pairs"] == expected.pairs


def test_in_a_pipe_marks_and_lists(crossrank: Run) -> None:
    ran = crossrank("explain", QUERY, DOCUMENT)
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert "[+Backups]" in ran.out
    assert re.search(r"\+\d\.\d{3}  Backups are kept for thirty days\.", ran.out)
    assert "are ×2" in ran.out


def test_on_a_terminal_the_same_in_colour(terminal: Run, crossrank: Run) -> None:
    ran = terminal("explain", QUERY, DOCUMENT, "--precision", "float32", piped=False)
    assert ran.code == 0
    assert "\x1b[1;32m" in ran.out
    assert "pairs scored in" in ran.err
    bare = _STYLE.sub("", ran.out)
    plain = crossrank("explain", QUERY, DOCUMENT, "--precision", "float32").out
    assert re.sub(r"\[[+-](.*?)\]", r"\1", plain) in bare.replace("\r", "")
    ran = terminal("explain", QUERY, DOCUMENT, env={"NO_COLOR": "1"})
    assert "\x1b" not in ran.out
    assert "[+Backups]" in ran.out


def test_two_documents(crossrank: Run, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(OTHER)
    ran = crossrank("explain", QUERY, "-", "@other.txt", "--json", "--precision", "float32", stdin=DOCUMENT)
    got = json.loads(ran.out)
    expected = contrast(CrossEncoder(precision="float32"), QUERY, DOCUMENT, OTHER)
    assert got["margin"] == pytest.approx(expected.margin, abs=1e-3)
    assert [each["document"] for each in got["documents"]] == [DOCUMENT, OTHER]
    ran = crossrank("explain", QUERY, DOCUMENT, OTHER)
    assert ran.lines[0].startswith("the first document is ahead by ")


def test_a_document_cannot_steer_the_terminal(crossrank: Run) -> None:
    ran = crossrank("explain", "a \x1b[31m b", "c\x1b[2J \u202e d\te\nf", "--unit", "word")
    assert ran.code == 0
    assert not {"\x1b", "\u202e", "\t"} & set(ran.out)


def test_what_the_model_does_not_read_is_said(crossrank: Run) -> None:
    ran = crossrank("explain", "a b", "word " * 2000, "--budget", 10)
    assert ran.code == 0
    assert re.search(r"warning: The document was cut by \d+ tokens: the model reads at most \d+", ran.err)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a", "@nowhere.txt"), "There is no file 'nowhere.txt'"),
        (("a", "-", "-"), "named twice"),
        (("a", "b", "--budget", "3"), "budget=3 is not an integer of at least 8"),
        (("a", "@bytes"), "byte 3 is not UTF-8"),
    ],
)
def test_what_cannot_be_used(arguments: tuple[str, ...], says: str, crossrank: Run, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"ab\xff")
    ran = crossrank("explain", *arguments)
    assert ran.code == 1
    assert ran.out == ""
    assert says in ran.err
