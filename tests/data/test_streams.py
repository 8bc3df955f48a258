"""Lines out of bytes: ends, marks, blocks, and files that are none."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from crossrank import InputError
from crossrank.data import streams
from crossrank.data.streams import (
    Document,
    Line,
    Pair,
    Pause,
    count_lines,
    read_documents,
    read_lines,
    read_pairs,
)
from crossrank.data.text_lines import RowError


def texts_of(path: Path) -> list[str]:
    return [line.text for line in read_lines(str(path)) if isinstance(line, Line)]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 16])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b"\xef\xbb\xbfone\n\xef\xbb\xbftwo", ["one", "\ufefftwo"]),
        ("é\u2028漢\x0c\x85\n\n字".encode(), ["é\u2028漢\x0c\x85", "", "字"]),  # only \n ends a line
        (b"a\rb\n", ["a\rb"]),
    ],
)
def test_lines(content: bytes, lines: list[str], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert texts_of(path) == lines
    assert [line.number for line in read_lines(str(path)) if isinstance(line, Line)] == list(range(1, len(lines) + 1))


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "disk.img"
    path.write_bytes(b"x" * (3 << 20))
    with pytest.raises(InputError, match=r"disk\.img has a line of more than 1 MB. Give one document or pair per line"):
        list(read_lines(str(path)))


def test_a_pipe_that_pauses_says_so(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb") as stream:
            stream.write(b"a\tb\nc")
            stream.flush()
            time.sleep(0.2)
            stream.write(b"\td\n")

    writer = threading.Thread(target=write)
    writer.start()
    got = list(read_pairs(str(pipe), None, "query", "document"))
    writer.join()
    kept = [item for item in got if not isinstance(item, Pause)]
    assert kept == [Pair(1, "a", "b"), Pair(2, "c", "d")]
    assert any(isinstance(item, Pause) for item in got[got.index(kept[0]) : got.index(kept[1])])


def test_a_file_never_pauses(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n\n" * 50_000)
    got = list(read_pairs(str(path), None, "query", "document"))
    assert len(got) == count_lines(str(path)) == 100_000
    assert not any(isinstance(item, (Pause, RowError)) for item in got)


def test_a_misspelt_field_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "b", "title": "t"}\n')
    [bad] = read_documents(str(path), None, "bodi")
    assert isinstance(bad, RowError)
    assert "it has no field 'bodi'; its fields: 'body', 'title'. Did you mean 'body'?" in str(bad)


def test_documents_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "A.JSONL"
    path.write_text('{"content": "c", "text": "t"}\n\nnull\n{"content": "c"}\n')
    first, bad, last = read_documents(str(path), None, None)
    assert isinstance(first, Document)
    assert isinstance(last, Document)
    assert (first.text, first.is_record, last.text, last.line.number) == ("t", True, "c", 4)
    assert isinstance(bad, RowError)
    assert bad.place == f"{path}, line 3"
    assert bad.reason == "'null' is null, not an object"
