"""The parts of a folder in BEIR's layout (Thakur et al. 2021): corpus, queries, judgements."""

from __future__ import annotations

from pathlib import Path

from crossrank.data.corpus import Corpus, read_corpus, read_texts
from crossrank.data.text_lines import Notes
from crossrank.errors import InputError

_ENDINGS = (".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz")


def folder_files(folder: Path) -> list[Path]:
    """List the files of a folder that belong to the layout."""
    patterns = ("corpus.*", "queries*.*", "candidates.tsv", "source_documents.tsv", "qrels/*")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]


def folder_corpus(folder: Path, notes: Notes) -> Corpus:
    """Open ``corpus.jsonl``, which may also be gzipped or a TSV.

    :raises InputError: If it is missing, or a line can't be used.
    """
    for path in (folder / f"corpus{ending}" for ending in _ENDINGS):
        if path.is_file():
            return read_corpus(path, notes)
    raise _missing(folder, "corpus.jsonl")


def folder_queries(folder: Path, notes: Notes) -> dict[str, str]:
    """Read ``queries.jsonl`` and files such as ``queries-train.jsonl``: id -> text.

    :raises InputError: If there is none, or a line can't be used.
    """
    files = [path for path in sorted(folder.glob("queries*")) if path.name.endswith(_ENDINGS)]
    if not files:
        raise _missing(folder, "queries.jsonl")
    return read_texts(files, notes, "query")


def folder_qrels(folder: Path, split: str) -> Path:
    """Find ``qrels/<split>.tsv``.

    :raises InputError: If there is none. The message names the existing splits.
    """
    names = [path.name for path in sorted((folder / "qrels").glob("*")) if path.name.endswith((".tsv", ".tsv.gz"))]
    if found := next((name for name in (f"{split}.tsv", f"{split}.tsv.gz") if name in names), None):
        return folder / "qrels" / found
    if not names:
        raise _missing(folder, f"qrels/{split}.tsv")
    there = ", ".join(name.partition(".")[0] for name in names)
    raise InputError(f"There is no {folder / 'qrels' / split}.tsv. The splits are: {there}. Choose one with --split.")


def _missing(folder: Path, file: str) -> InputError:
    return InputError(
        f"{folder} has no {file}. BEIR's layout is: corpus.jsonl, queries.jsonl, qrels/test.tsv and, optionally, "
        "candidates.tsv."
    )
