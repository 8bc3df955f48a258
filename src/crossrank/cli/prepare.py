"""``crossrank prepare FILE... -o FOLDER``: read documents once, for any number of queries."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossrank.cli.options import MODEL, Parser, positive
from crossrank.cli.terminal import complain, remark, to_json
from crossrank.errors import InputError

DESCRIPTION = """\
Run the model's document layers ahead of time and store the result, so that
ranking these documents takes a fraction of the time. This works with the
bundled model and models trained from it."""
EPILOG = """\
input:
  Text files with one document per line, JSON lines, Parquet, or folders in
  BEIR's layout, where a document is its title and its text. A document's id is
  its field _id, id or docno, or else its file and line number.

output:
  A folder. Run the same command again to continue after an interruption, or to
  add new and changed documents.

examples:
  crossrank prepare docs.jsonl -o prepared/
  crossrank rerank "refund policy" docs.jsonl --prepared prepared/
  crossrank prepare ./scifact -o prepared/ --prune
"""
_FILES = (".jsonl", ".ndjson", ".json", ".txt", ".parquet")


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    from crossrank.engines.settings import PRECISIONS
    from crossrank.prepared.rows import STORAGE

    parser.add_argument("files", metavar="FILE", nargs="*", help="documents: files, or folders of them")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="folder for the prepared documents")
    parser.add_argument("--field", metavar="NAME", help="field of JSON lines or column of Parquet with the text")
    parser.add_argument("--id", metavar="NAME", help="field or column with the id (default: _id, id or docno)")
    parser.add_argument("--prune", action="store_true", help="remove documents that are not in FILE")
    parser.add_argument(
        "--repair", action="store_true", help="check every stored document, and prepare damaged ones again"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--storage",
        choices=STORAGE,
        help="number format on disk: int8 (default), float16 (twice the space) or int4 (about half)",
    )
    group = parser.add_argument_group("how the model runs")
    group.add_argument("--model", metavar="NAME", help=MODEL)
    group.add_argument("--max-length", type=positive, metavar="N", help="maximum tokens of a document")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="number format to compute in; ranking must use the same (default: auto)",
    )
    group.add_argument("--num-threads", type=positive, metavar="N", help="number of threads (default: one per core)")


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    from crossrank.prepared.documents import Added, PreparedDocuments
    from crossrank.progress import progress_of

    if not args.files and (args.prune or not args.repair):
        raise InputError("No FILE is given. Name the documents: crossrank prepare docs.jsonl -o prepared/")
    documents = PreparedDocuments(
        args.output,
        args.model,
        storage=args.storage,
        precision=args.precision,
        max_length=args.max_length,
        num_threads=args.num_threads,
    )
    damaged = documents.repair() if args.repair else []
    if damaged:
        shown = ", ".join(map(repr, damaged[:3])) + (", ..." if len(damaged) > 3 else "")
        complain("warning", f"{len(damaged)} damaged documents were removed: {shown}")
    found = dict(_documents(args))
    added = Added(0, 0, 0, 0.0)
    if found:  # --repair alone needs no model
        with progress_of(len(found), None, unit="document") as progress:
            added = documents.add(found, found.values(), progress=progress)
    removed = documents.prune(found) if args.prune else 0
    if args.json:
        done = {"read": added.read, "unchanged": added.unchanged, "removed": removed, "damaged": len(damaged)}
        work = {"tokens_read": added.tokens, "seconds": round(added.seconds, 3)}
        print(to_json({**done, **work, **documents.stats()}))
        return 0
    facts = documents.stats()
    size = facts.get("bytes", 0) / 1e6
    print(f"{args.output}: {len(documents)} documents, {size:.1f} MB ({added.read} read, {added.unchanged} unchanged)")
    if removed:
        print(f"{removed} documents that are gone were removed", file=sys.stderr)
    remark(f"{added.tokens} tokens read in {added.seconds:.1f} s")
    return 0


def _documents(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Ids and texts of all files.

    :raises InputError: If a line can't be used, or an id stands for two texts.
    """
    seen: dict[str, str] = {}
    for name in args.files:
        path = Path(name)
        if path.is_dir() and not any((*path.glob("corpus.*"), *path.glob("corpus/**/*.parquet"))):
            files = sorted(file for file in path.rglob("*") if file.suffix in _FILES and file.is_file())
            if not files:
                raise InputError(f"{name} holds no file that ends in {', '.join(_FILES)}. Name the files.")
        else:
            files = [path]
        for file in files:
            for identifier, text in _of_file(file, args):
                if seen.setdefault(identifier, text) != text:
                    raise InputError(
                        f"{file}: document {identifier!r} has another text than before. Give each document an id of "
                        "its own, or name the field of the ids with --id."
                    )
                yield identifier, text


def _of_file(path: Path, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from crossrank.data.streams import Document, read_documents
    from crossrank.data.text_lines import Notes, Place, record

    if path.is_dir():
        from crossrank.data.beir import folder_corpus

        corpus = folder_corpus(path, Notes())
        for i, identifier in enumerate(corpus.ids):
            yield identifier, corpus.text(i)
    elif path.suffix == ".parquet":
        yield from _of_parquet(path, args)
    else:
        for item in read_documents(str(path), None, args.field):
            if not isinstance(item, Document):
                raise item
            row = record(Place(path, item.line.number), item.line.text) if item.is_record else {}
            yield _identifier(row, args.id, f"{path}:{item.line.number}"), item.text


def _of_parquet(path: Path, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    from crossrank.data.text_lines import TEXT_FIELDS, parquet_rows

    for place, row in parquet_rows(path):
        text = args.field or next((name for name in TEXT_FIELDS if name in row), "text")
        if text not in row:
            raise InputError(f"{path} has no column {text!r}; it has {', '.join(row)}. Name it with --field.")
        if not isinstance(row[text], str):
            raise InputError(f"{path}, row {place.number}: {text!r} is {row[text]!r}, not a string. Leave the row out.")
        yield _identifier(row, args.id, f"{path}:{place.number}"), row[text]


def _identifier(row: Any, field: str | None, otherwise: str) -> str:
    from crossrank.data.text_lines import document_id

    found = document_id(row, (field,)) if field else document_id(row)
    if found is None and field:
        raise InputError(f"{otherwise}: there is no id in the field {field!r}. Give each document one.")
    return found or otherwise
