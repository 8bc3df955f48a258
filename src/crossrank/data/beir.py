"""The parts of a folder in BEIR's layout (Thakur et al. 2021): corpus, queries, judgements.

They are text files, or Parquet files in folders of these names, as NanoBEIR and other collections on the hub have them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from crossrank.data.corpus import Corpus, MemoryCorpus, read_corpus, read_texts
from crossrank.data.text_lines import Notes
from crossrank.errors import InputError

_ENDINGS = (".jsonl", ".jsonl.gz", ".tsv", ".tsv.gz")
_SHARD = re.compile(r"(\D.*?)(?:-\d+-of-\d+)?\.parquet")


def folder_files(folder: Path) -> list[Path]:
    """List the files of a folder that belong to the layout."""
    patterns = ("corpus.*", "queries*.*", "candidates.tsv", "source_documents.tsv", "qrels/**/*")
    parquet = ("corpus/**/*.parquet", "queries/**/*.parquet")
    return [path for pattern in (*patterns, *parquet) for path in sorted(folder.glob(pattern)) if path.is_file()]


def folder_corpus(folder: Path, notes: Notes) -> Corpus:
    """Open ``corpus.jsonl``, which may also be gzipped, a TSV or Parquet.

    :raises InputError: If it is missing, or a line can't be used.
    """
    for path in (folder / f"corpus{ending}" for ending in _ENDINGS):
        if path.is_file():
            return read_corpus(path, notes)
    if files := sorted(folder.glob("corpus/**/*.parquet")):
        return MemoryCorpus(read_texts(files, notes, "document"))
    raise _missing(folder, "corpus.jsonl")


def folder_queries(folder: Path, notes: Notes) -> dict[str, str]:
    """Read ``queries.jsonl`` and files such as ``queries-train.jsonl``: id -> text.

    :raises InputError: If there is none, or a line can't be used.
    """
    files = [path for path in sorted(folder.glob("queries*")) if path.name.endswith(_ENDINGS)]
    files = files or sorted(folder.glob("queries/**/*.parquet"))
    if not files:
        raise _missing(folder, "queries.jsonl")
    return read_texts(files, notes, "query")


def folder_qrels(folder: Path, split: str) -> list[Path]:
    """Find ``qrels/<split>.tsv``, or the Parquet files of the split.

    :raises InputError: If there is none. The message names the existing splits.
    """
    names = [path.name for path in sorted((folder / "qrels").glob("*")) if path.name.endswith((".tsv", ".tsv.gz"))]
    if found := next((name for name in (f"{split}.tsv", f"{split}.tsv.gz") if name in names), None):
        return [folder / "qrels" / found]
    if names:
        there = ", ".join(name.partition(".")[0] for name in names)
        missing = folder / "qrels" / split
        raise InputError(f"There is no {missing}.tsv. The splits are: {there}. Choose one with --split.")
    parquet = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("qrels/**/*.parquet"))]
    if not parquet:
        raise _missing(folder, f"qrels/{split}.tsv")
    return [folder / name for name in parquet_of_split(parquet, split)]


def parquet_of_split(names: Sequence[str], split: str) -> list[str]:
    """Choose the files with the judgements of a split, such as ``qrels/test-00000-of-00001.parquet``.

    If there is only one split, as NanoBEIR's "train", it is used whatever its name.

    :raises InputError: If there are several splits and none has this name.
    """
    splits = {name: _split_of(name) for name in names}
    there = sorted(set(splits.values()))
    if len(there) <= 1:
        return list(names)
    if split not in there:
        raise InputError(
            f"There are no judgements for the split {split!r}, only for {', '.join(there)}. Choose one of them."
        )
    return [name for name in names if splits[name] == split]


def _split_of(name: str) -> str:
    """The split of ``qrels/test-00000-of-00001.parquet`` or ``qrels/test/0000.parquet``."""
    _, *folders, file = name.split("/")
    shard = _SHARD.fullmatch(file)
    return folders[0] if folders else shard[1] if shard else ""


def _missing(folder: Path, file: str) -> InputError:
    return InputError(
        f"{folder} has no {file}. BEIR's layout is: corpus.jsonl, queries.jsonl, qrels/test.tsv and, optionally, "
        "candidates.tsv."
    )
