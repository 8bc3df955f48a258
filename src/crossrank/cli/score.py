"""``crossrank score FILE``: pairs in, their scores out in the same order, in bounded memory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from crossrank.cli.options import Parser, add_scoring_options, open_model
from crossrank.cli.output import Report
from crossrank.cli.terminal import to_json
from crossrank.data.streams import Line, Pair, Pause, count_lines, read_pairs
from crossrank.data.text_lines import RowError
from crossrank.progress import progress_of

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder

# The most lines and characters in memory at a time.
CHUNK_LINES = 2048
CHUNK_CHARACTERS = 1 << 20

DESCRIPTION = "Score pairs of a query and a document, in the order of the input."
EPILOG = """\
input:
  Each line is a query, a tab and a document. In a file that ends in .jsonl,
  .ndjson or .json each line is a JSON object with a query and a document.
  Standard input is read as JSON lines if it starts with a brace.
  Files can be of any length: scores are printed while the input is read.

output:
  One score per line, in the order of the input. A model with several labels
  gives one score per label, separated by tabs. Line 7 of the output is for
  line 7 of the input: a blank line gives an empty line, and with --skip-bad so
  does a line that can't be used.
  With --json: {"line": 7, "score": 0.98, "kind": "sigmoid"}; "scores" by label
  for several labels; {"line": 7, "error": "..."} for a line that can't be used;
  nothing for a blank line.

examples:
  crossrank score pairs.tsv > scores.txt
  crossrank score pairs.jsonl --query-field question --json
  paste queries.txt documents.txt | crossrank score - --raw
"""

Item = Pair | Line | RowError  # a Line is a blank one


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("file", metavar="FILE", help="tab-separated lines, or JSON lines; - reads standard input")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    parser.add_argument(
        "--query-field", default="query", metavar="NAME", help="JSON field with the query (default: query)"
    )
    parser.add_argument(
        "--document-field", default="document", metavar="NAME", help="JSON field with the document (default: document)"
    )
    parser.add_argument("--format", choices=("tsv", "jsonl"), help="format of the file (default: by name or content)")
    parser.add_argument("--skip-bad", action="store_true", help="skip lines that can't be used (see output)")
    add_scoring_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    model = open_model(args)
    pairs = read_pairs(args.file, args.format, args.query_field, args.document_field)
    report = Report()
    with progress_of(count_lines(args.file), sys.stderr.isatty(), unit=" pairs") as advance:
        for chunk in _chunks(pairs, args.skip_bad):
            lines = _scored(model, chunk, args, report, advance)
            with _without_bar():
                sys.stdout.writelines(lines)
                sys.stdout.flush()
    report.tell(model)
    return 0


def _chunks(items: Iterable[Pair | Line | RowError | Pause], skip_bad: bool) -> Iterator[list[Item]]:
    """Collect lines into chunks; a pause in the input ends a chunk.

    :raises RowError: At a line that can't be used, after the lines before it, unless ``skip_bad``.
    """
    chunk: list[Item] = []
    size = 0
    for item in items:
        if isinstance(item, RowError) and not skip_bad:
            if chunk:
                yield chunk
            raise item
        if not isinstance(item, Pause):
            chunk.append(item)
            size += len(item.query) + len(item.document) if isinstance(item, Pair) else 0
        if chunk and (isinstance(item, Pause) or len(chunk) >= CHUNK_LINES or size >= CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _scored(
    model: CrossEncoder, chunk: list[Item], args: argparse.Namespace, report: Report, advance: Callable[[int], object]
) -> list[str]:
    """Score a chunk, and return its lines of output."""
    pairs = [(item.query, item.document) for item in chunk if isinstance(item, Pair)]
    scores: Iterator[Any] = iter(())
    labels: list[str] = []
    kind = ""
    if pairs:
        result = model.score(pairs, batch_size=args.batch_size, show_progress_bar=advance)
        report.add(result)
        scores = iter(result.scores)
        kind = result.kind
        labels = model.info()["labels"] if result.scores.ndim > 1 else []
    lines = []
    for item in chunk:
        if isinstance(item, Pair):
            lines.append(_line_of(item.number, next(scores), labels, kind, args.json))
        elif isinstance(item, RowError):
            report.skip(item)
            lines.append(to_json({"line": item.number, "error": item.reason}) if args.json else "")
        elif not args.json:
            lines.append("")
    advance(len(chunk) - len(pairs))
    return [line + "\n" for line in lines]


def _line_of(number: int, scores: Any, labels: list[str], kind: str, as_json: bool) -> str:
    # repr writes all digits, so that different scores stay different.
    values = [float(value) for value in np.atleast_1d(scores)]
    if not as_json:
        return "\t".join(map(repr, values))
    value = {"scores": dict(zip(labels, values, strict=True))} if labels else {"score": values[0]}
    return to_json({"line": number, **value, "kind": kind})


def _without_bar() -> AbstractContextManager[None]:
    """Hide the progress bar while scores are written to the same terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from tqdm.auto import tqdm

    hidden: AbstractContextManager[None] = tqdm.external_write_mode()
    return hidden
