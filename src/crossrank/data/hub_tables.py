"""Convert a test collection in Parquet tables, such as NanoBEIR's, to files in BEIR's layout."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrank.errors import InputError
from crossrank.optional import require

# Table -> required columns. NanoBEIR's judgements have no score, because all of them are relevant.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "corpus": ("_id", "text"),
    "queries": ("_id", "text"),
    "qrels": ("query-id", "corpus-id"),
}


_SHARD = re.compile(r"(\D.*?)(?:-\d+-of-\d+)?\.parquet")


def nano_tables(listed: Sequence[str], split: str) -> dict[str, list[str]]:
    """Find the Parquet files of ``corpus/``, ``queries/`` and ``qrels/``; empty if one of the three has none.

    Only the files of the split are used from ``qrels/``. If there is only one split, as NanoBEIR's "train", it is used
    whatever its name.

    :raises InputError: If there are several splits and none has this name.
    """
    found = {
        table: sorted(name for name in listed if name.startswith(f"{table}/") and name.endswith(".parquet"))
        for table in _COLUMNS
    }
    if not all(found.values()):
        return {}
    splits = {name: _split_of(name) for name in found["qrels"]}
    if len(there := sorted(set(splits.values()))) > 1:
        found["qrels"] = [name for name in found["qrels"] if splits[name] == split]
        if not found["qrels"]:
            raise InputError(
                f"There are no judgements for the split {split!r}, only for {', '.join(there)}. Choose one of them."
            )
    return found


def _split_of(name: str) -> str:
    """The split of ``qrels/test-00000-of-00001.parquet`` or ``qrels/test/0000.parquet``."""
    _, *folders, file = name.split("/")
    shard = _SHARD.fullmatch(file)
    return folders[0] if folders else shard[1] if shard else ""


def plain(tables: Mapping[str, Sequence[Path]], download: Path, split: str) -> Path:
    """Write the tables as ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``, once, and return the folder.

    :param download: The folder of the download. The new folder gets the same parent.
    :raises MissingExtraError: If pyarrow is not installed.
    :raises InputError: If a table lacks a column.
    """
    folder = download.with_name(f"{download.name}-plain-{split}")
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "qrels").mkdir(parents=True)
    for table in ("corpus", "queries"):
        with (part / f"{table}.jsonl").open("w", encoding="utf-8") as stream:
            for row in _rows(table, tables[table]):
                stream.write(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")
    with (part / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("query-id\tcorpus-id\tscore\n")
        for row in _rows("qrels", tables["qrels"]):
            stream.write(f"{row['query-id']}\t{row['corpus-id']}\t{row.get('score', 1)}\n")
    part.rename(folder)
    return folder


def _rows(table: str, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    parquet = require("pyarrow.parquet", extra="parquet", purpose="A dataset of Parquet tables")
    for path in paths:
        file = parquet.ParquetFile(path)
        missing = [name for name in _COLUMNS[table] if name not in file.schema_arrow.names]
        if missing:
            raise InputError(
                f"{path.name} of {table} has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}. "
                "Save the dataset in BEIR's layout and give its folder."
            )
        for batch in file.iter_batches():
            yield from batch.to_pylist()
