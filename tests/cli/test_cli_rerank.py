"""``crossrank rerank``, from files and standard input, in pipes and on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder
from crossrank.scoring.long_documents import LongDocuments, score_long

QUERY = "how are values sorted"
NOTES = [passage[:120] for _, passage in texts.pairs(7)]
EXAMPLE = Path(__file__).parents[2] / "examples" / "git-notes.txt"

Run = Callable[..., Any]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("".join(f"{note}\n" for note in NOTES), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def expected(tiny_bert: Path) -> list[dict[str, Any]]:
    return CrossEncoder(tiny_bert).rank(QUERY, NOTES, return_documents=True)


def records(ran: Any) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.lines]


# ---- what comes out


def test_a_pipe_gets_tabs(crossrank: Run, notes: Path, tiny_bert: Path, expected: list[dict[str, Any]]) -> None:
    ran = crossrank("rerank", QUERY, notes, "--model", tiny_bert)
    assert (ran.code, ran.err) == (0, "")
    for rank, (line, row) in enumerate(zip(ran.lines, expected, strict=True), start=1):
        position = row["corpus_id"] + 1
        cells = [str(rank), repr(row["score"]), _signed(position - rank), str(notes), str(position), row["text"]]
        assert line.split("\t") == cells


def _signed(number: int) -> str:
    return f"+{number}" if number > 0 else str(number)


def test_json_is_an_object_a_line(crossrank: Run, notes: Path, tiny_bert: Path, expected: list[dict[str, Any]]) -> None:
    got = records(crossrank("rerank", QUERY, notes, "--model", tiny_bert, "--json", "--top-k", "3"))
    assert got == [
        {
            "rank": rank,
            "score": row["score"],
            "kind": "sigmoid",
            "corpus_id": row["corpus_id"],
            "moved": row["corpus_id"] + 1 - rank,
            "file": str(notes),
            "line": row["corpus_id"] + 1,
            "text": row["text"],
        }
        for rank, row in enumerate(expected[:3], start=1)
    ]


def test_raw_scores_and_a_threshold(
    crossrank: Run, notes: Path, tiny_bert: Path, expected: list[dict[str, Any]]
) -> None:
    logits = CrossEncoder(tiny_bert, activation_fn="identity").rank(QUERY, NOTES)
    got = records(crossrank("rerank", QUERY, notes, "--model", tiny_bert, "--raw", "--json"))
    assert [(row["corpus_id"], row["score"]) for row in got] == [(row["corpus_id"], row["score"]) for row in logits]
    least = expected[2]["score"]
    got = records(crossrank("rerank", QUERY, notes, "--model", tiny_bert, "--json", f"--threshold={least}"))
    assert [row["score"] for row in got] == [row["score"] for row in expected[:3]]


def test_one_label_of_several(crossrank: Run, notes: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "three", "bert", num_labels=3)
    ran = crossrank("rerank", QUERY, notes, "--model", folder)
    assert (ran.code, ran.out) == (1, "")
    assert "3 labels (LABEL_0, LABEL_1, LABEL_2)" in ran.err
    assert "--label LABEL_2" in ran.err
    expected = CrossEncoder(folder, label="LABEL_1").rank(QUERY, NOTES)
    for label in ("LABEL_1", "1"):
        got = records(crossrank("rerank", QUERY, notes, "--model", folder, "--label", label, "--json"))
        assert [(row["corpus_id"], row["score"]) for row in got] == [(r["corpus_id"], r["score"]) for r in expected]


# ---- what goes in


def test_json_lines_keep_the_whole_object(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    given = [{"id": i, "text": note, "nested": {"é": [1, None]}} for i, note in enumerate(NOTES)]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n\n".join(map(json.dumps, given)), encoding="utf-8")  # blank lines between, none at the end
    got = records(crossrank("rerank", QUERY, path, "--model", tiny_bert, "--json"))
    assert [row["document"] for row in got] == [given[row["corpus_id"]] for row in got]
    assert [row["line"] for row in got] == [2 * row["corpus_id"] + 1 for row in got]
    assert "text" not in got[0]


def test_the_text_of_an_object(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.ndjson"
    path.write_text('{"body": "b", "content": "c", "page_content": "p"}\n{"text": null, "passage": "q", "own": "o"}\n')
    ran = crossrank("rerank", "q", path, "--model", tiny_bert)
    assert sorted(line.rpartition("\t")[2] for line in ran.lines) == ["c", "q"]
    ran = crossrank("rerank", "q", path, "--model", tiny_bert, "--field", "own", "--skip-bad")
    assert [line.rpartition("\t")[2] for line in ran.lines] == ["o"]
    assert "1 line that can't be used was left out" in ran.err
    assert "line 1: it has no field 'own'; its fields: 'body', 'content', 'page_content'." in ran.err


@pytest.mark.parametrize(
    ("given", "args", "out"),
    [
        ('{"text": "one"}\n{"text": "two"}\n', (), ["one", "two"]),
        ('\n  {"text": "one"}', (), ["one"]),
        ("one\n{two}\n", (), ["one", "{two}"]),
        ('{"text": "one"}\n', ("--format", "lines"), ['{"text": "one"}']),
    ],
)
def test_standard_input(given: str, args: tuple[str, ...], out: list[str], crossrank: Run, tiny_bert: Path) -> None:
    ran = crossrank("rerank", QUERY, "-", "--model", tiny_bert, *args, stdin=given)
    assert sorted(line.rpartition("\t")[2] for line in ran.lines) == out
    assert all(line.split("\t")[3] == "-" for line in ran.lines)


def test_several_files_count_as_one_list(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeff" + f"{NOTES[0]}\r\n\r\n   \r\n{NOTES[1]}\r\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": NOTES[2]}))
    args = ("a.txt", "-", "b.jsonl", "--model", tiny_bert, "--json")
    got = records(crossrank("rerank", QUERY, *args, stdin=f"{NOTES[3]}\n"))
    by_index = sorted(got, key=lambda row: row["corpus_id"])
    places = [(row["corpus_id"], row["file"], row["line"]) for row in by_index]
    assert places == [(0, "a.txt", 1), (1, "a.txt", 4), (2, "-", 1), (3, "b.jsonl", 1)]
    assert [row.get("text") for row in by_index] == [NOTES[0], NOTES[1], NOTES[3], None]


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_nothing_to_rank_is_told_and_needs_no_model(content: str, crossrank: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(content)
    ran = crossrank("rerank", QUERY, "empty.txt", "--model", "./no-such-model")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "crossrank: warning: there are no documents in empty.txt.\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--threshold", "nan"), "threshold=nan is not a finite number"),
        (("--max-windows", "3"), "--max-windows is for --long-documents max or mean_top_k"),
        (("--max-windows", "3", "--long-documents", "first"), "--max-windows is for --long-documents"),
    ],
)
def test_no_option_is_lost_without_a_word(options: tuple[str, ...], says: str, crossrank: Run) -> None:
    ran = crossrank("rerank", QUERY, "-", *options, stdin="one\n")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert says in ran.err


@pytest.mark.parametrize("query", ["", " \t"])
def test_an_empty_query_is_an_error(query: str, crossrank: Run) -> None:
    ran = crossrank("rerank", query, "-", stdin="one\n")
    assert (ran.code, ran.out) == (1, "")
    assert "QUERY is empty" in ran.err


def test_any_text_comes_out_again(crossrank: Run, tiny_bert: Path) -> None:
    odd = ["\ud800 lone", "tab\tand\nline", "漢字 🇩🇪 \u202eabc", "\x1b[31mred", "\x00"]
    given = "".join(json.dumps({"text": text}) + "\n" for text in odd)
    got = records(crossrank("rerank", QUERY, "-", "--model", tiny_bert, "--json", stdin=given))
    assert sorted(row["document"]["text"] for row in got) == sorted(odd)
    ran = crossrank("rerank", QUERY, "-", "--model", tiny_bert, stdin=given)
    assert len(ran.lines) == len(odd)
    assert all(line.count("\t") == 5 for line in ran.lines)
    assert "\x1b" not in ran.out


# ---- what can't be used


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"text": "x"}\n\nnot json\n', ["a.jsonl, line 3: 'not json' is not JSON", "one JSON object"]),
        ("a.jsonl", b'{"text": "x"}\n{"te', ["a.jsonl, line 2: '{\"te' is not JSON"]),
        ("a.jsonl", b'["x"]\n', ["line 1: '[\"x\"]' is an array, not an object", "jq -c '.[]'"]),
        ("a.json", b'[\n{"text": "x"}]\n', ["line 1: '[' is not JSON", "jq -c '.[]'"]),
        ("a.jsonl", b'{"text": 7}\n', ["line 1: its field 'text' is a number, not a string", "--field"]),
        ("a.jsonl", b'{"id": 7, "t": ""}\n', ["no field 'text', 'content',", "its fields: 'id', 't'", "--field"]),
        ("a.jsonl", b"[" * 100_000, ["line 1: '[[[[", "is not JSON"]),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b"}", ["line 1:", "is not JSON"]),
        ("a.txt", b"x\n\x89PNG\r\n", ["a.txt, line 2: byte 1 (0x89) is not UTF-8", "iconv"]),
        ("a.txt", b"x\nab\x00c", ["a.txt, line 2: byte 3 is NUL, so this looks like a binary file"]),
        ("a.txt", "é".encode("utf-16"), ["a.txt, line 1: the file is UTF-16", "iconv -f UTF-16 -t UTF-8"]),
    ],
)
def test_bad_lines(name: str, content: bytes, says: list[str], crossrank: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    ran = crossrank("rerank", QUERY, name)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("crossrank: error: ")
    assert ran.err.count("\n") == 1
    assert "--skip-bad" in ran.err
    for part in says:
        assert part in ran.err


def test_bad_lines_can_be_skipped(crossrank: Run, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'oops\n{"text": "one"}\n\xff\n{"text": "two"}\n{"text": 2}\n')
    ran = crossrank("rerank", QUERY, "a.jsonl", "--model", tiny_bert, "--skip-bad", "--json")
    got = sorted(records(ran), key=lambda row: row["corpus_id"])
    assert [(row["corpus_id"], row["line"]) for row in got] == [(0, 2), (1, 4)]
    assert ran.err.startswith("crossrank: warning: 3 bad lines were left out; the first is a.jsonl, line 1: 'oops' is")


def test_bad_files(crossrank: Run, notes: Path, tmp_path: Path) -> None:
    for args, says in (
        (("nothing.txt",), f"There is no file 'nothing.txt' (seen from '{tmp_path}'). Check the path"),
        ((notes, tmp_path), f"'{tmp_path}' is a folder. Name the files in it, such as {tmp_path}/*.txt."),
        (("-", "-"), "Standard input (-) is given more than once"),
    ):
        ran = crossrank("rerank", QUERY, *args)
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
        assert ran.err.startswith(f"crossrank: error: {says}")


def test_cut_documents_are_reported(crossrank: Run, tiny_bert: Path) -> None:
    given = "short\n" + "word " * 30 + "\n" + "word " * 600 + "\n"
    ran = crossrank("rerank", "a query", "-", "--model", tiny_bert, "--max-length", "20", stdin=given)
    assert ran.code == 0
    # 17 tokens of text, two of them the query's.
    assert ran.err == (
        "crossrank: warning: 2 of 3 documents were cut at the end, by 600 tokens in all. "
        "The model reads 20 tokens: --max-length goes up to 512.\n"
    )
    ran = crossrank("rerank", "word " * 300, "-", "--model", tiny_bert, stdin=given)
    assert "in 1 the query was cut, by up to 46 tokens. The model reads 512 tokens: split long texts" in ran.err


# ---- on a terminal


def test_a_terminal_gets_a_table(terminal: Run, notes: Path, tiny_bert: Path, expected: list[dict[str, Any]]) -> None:
    ran = terminal("rerank", QUERY, notes, "--model", tiny_bert, columns=60)
    assert ran.code == 0
    *rows, facts = ran.lines
    assert len(rows) == len(NOTES)
    assert "\x1b[1m" in rows[0]
    for rank, (line, row) in enumerate(zip(rows, expected, strict=True), start=1):
        line = re.sub(r"\x1b\[\d+m", "", line)
        places = row["corpus_id"] + 1 - rank
        moved = f"↑{places}" if places > 0 else f"↓{-places}" if places else "="
        start = f"{rank}  {row['score']:.4f}  {moved:<2}  "
        left = 60 - len(start)
        assert line == start + (row["text"] if len(row["text"]) <= left else row["text"][: left - 1].rstrip() + "…")
    assert any(line.endswith("…") for line in rows)
    assert re.fullmatch(r"\x1b\[2m7 documents, \d+ tokens, \d+ ms\x1b\[0m", facts)


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(env: dict[str, str], terminal: Run, notes: Path, tiny_bert: Path) -> None:
    ran = terminal("rerank", QUERY, notes, "--model", tiny_bert, env=env)
    assert ran.code == 0
    assert "\x1b" not in ran.out


def test_wide_and_wild_text_on_a_terminal(terminal: Run, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("漢字" * 50 + "\n\x1b[31mred\x07\tand \u202egnol\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("e\u0301" * 40 + "\n", encoding="utf-8")
    ran = terminal("rerank", QUERY, "a.txt", "b.txt", "--model", tiny_bert, columns=50, env={"NO_COLOR": "1"})
    rows = {line.split()[3]: line for line in ran.lines[:3] if "a.txt" in line or "b.txt" in line}
    assert set(rows) == {"a.txt", "b.txt"}  # with several files, each line names its own
    assert "\x1b" not in ran.out
    assert "\x07" not in ran.out
    assert "\u202e" not in ran.out
    assert "[31mred  and gnol" in ran.out
    wide = next(line for line in ran.lines if "漢" in line)
    assert len(wide) + wide.count("漢") + wide.count("字") in (49, 50)
    accents = next(line for line in ran.lines if "e\u0301" in line)
    assert len(accents.replace("\u0301", "")) == 50


def test_standard_error_on_a_terminal_leaves_the_pipe_plain(terminal: Run, notes: Path, tiny_bert: Path) -> None:
    ran = terminal("rerank", QUERY, notes, "--model", tiny_bert, piped=True)
    assert len(ran.lines) == len(NOTES)
    assert all(line.count("\t") == 5 for line in ran.lines)
    assert "\x1b" not in ran.out
    assert "7 documents" in ran.err


# ---- the bundled model


def test_the_demo_runs_with_the_model_in_the_box(crossrank: Run) -> None:
    query = "which commit introduced the bug"  # the one of `make demo`
    got = records(crossrank("rerank", query, EXAMPLE, "--top-k", "5", "--json"))
    assert [row["rank"] for row in got] == [1, 2, 3, 4, 5]
    assert "git bisect" in got[0]["text"]


# ---- long documents


def test_windows_of_long_documents(crossrank: Run, tmp_path: Path, tiny_bert: Path) -> None:
    long = [" ".join(" ".join(texts.passages()[i : i + 4]).split()) for i in (0, 4)]
    (tmp_path / "long.txt").write_text("".join(f"{text}\n" for text in [*long, NOTES[0]]), encoding="utf-8")
    settings = ("--model", tiny_bert, "--max-length", "64", "--json")
    model = CrossEncoder(tiny_bert, max_length=64)
    expected = score_long(model, [(QUERY, text) for text in [*long, NOTES[0]]], LongDocuments("max", max_windows=3))
    ran = crossrank("rerank", QUERY, "long.txt", *settings, "--long-documents", "max", "--max-windows", "3")
    got = records(ran)
    assert [row["corpus_id"] for row in got] == list(expected.order)
    assert [row["passage"] for row in got] == [list(expected.passages[i]) for i in expected.order]
    assert [row["score"] for row in got] == pytest.approx(list(expected.scores[expected.order]), abs=1e-5)
    left_out = expected.windows_left_out.sum()
    assert ran.err == (
        f"crossrank: warning: {left_out} windows of 2 documents were not read (max_windows). "
        "Set --max-windows to read more.\n"
    )
