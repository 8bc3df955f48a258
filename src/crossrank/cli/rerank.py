"""``crossrank rerank QUERY FILE...``: documents in, the most relevant first."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crossrank.cli.options import Parser, add_scoring_options, open_model, positive
from crossrank.cli.output import Report, Row, limit_of, write_json, write_table, write_tabs
from crossrank.cli.terminal import complain, remark
from crossrank.data.streams import Document, read_documents
from crossrank.data.text_lines import TEXT_FIELDS
from crossrank.errors import InputError
from crossrank.pairs import PreparedId
from crossrank.scoring.aggregation import AGGREGATIONS
from crossrank.validation import check_threshold

if TYPE_CHECKING:
    from crossrank.ranking.ranked_documents import Ranking
    from crossrank.ranking.reranker import Reranker
    from crossrank.scoring.cross_encoder import CrossEncoder

# Options that go with --pipeline. All others are for one model, and the pipeline's file sets them.
_WITH_PIPELINE = frozenset(
    {"query", "files", "top_k", "threshold", "json", "field", "format", "skip_bad", "pipeline", "execute", "defaults"}
)

DESCRIPTION = "Order documents by their relevance to a query, best first."
EPILOG = f"""\
input:
  A text file has one document per line; blank lines are ignored. In a file that
  ends in .jsonl, .ndjson or .json, each line is a JSON object. Its text is the
  field named by --field, or else the first that exists of
  {", ".join(TEXT_FIELDS)}.
  With --prepared, the text may be missing: _id, id or docno then names the
  prepared document.
  Standard input is read as JSON lines if it starts with a brace.

output:
  On a terminal: rank, score, places moved (↑3 up, ↓1 down, = none), and the
  text, cut to the width. In a pipe: rank, score, places moved, file, line and
  text, separated by tabs; tabs and line ends in a text become spaces.
  With --json, one object per line with rank, score, kind (the scale of the
  score: logit, sigmoid, calibrated, ...), corpus_id (position in the input,
  from 0), moved, file, line, and the text or, from JSON lines, the whole object
  as document. --long-documents adds passage: the best window's offsets.
  With --pipeline the objects also have stage_scores, stage_kinds, details,
  degraded and reason. A document without a score has nan in a pipe, and null
  in JSON. If a ranking is incomplete, standard error says why.

examples:
  crossrank rerank "how do I undo a commit" notes.txt --top-k 3
  crossrank rerank "refund policy" docs.jsonl faq.jsonl --field body --json
  grep -rih timeout docs/ | crossrank rerank "how long is it kept" - --top-k 5
  crossrank rerank "refund policy" docs.jsonl --pipeline pipeline.toml
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("query", metavar="QUERY", help="the query")
    parser.add_argument("files", metavar="FILE", nargs="+", help="text or JSON lines; - reads standard input")
    parser.add_argument("--top-k", type=positive, metavar="K", help="how many documents to print (default: all)")
    parser.add_argument("--threshold", type=float, metavar="SCORE", help="leave out documents with a lower score")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    parser.add_argument("--field", metavar="NAME", help="JSON field with the text (default: see input)")
    parser.add_argument(
        "--format", choices=("lines", "jsonl"), help="format of the files (default: by name or content)"
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip lines that can't be used, and report how many")
    parser.add_argument("--pipeline", metavar="FILE", help="rank with the stages in a TOML file instead of one model")
    parser.add_argument(
        "--long-documents",
        choices=tuple(AGGREGATIONS),
        default="truncate",
        help="how to score documents longer than the model's limit: by their beginning (truncate; first ends it with a "
        "sentence), their best window (max), or their three best windows (mean_top_k) (default: truncate)",
    )
    parser.add_argument("--max-windows", type=positive, metavar="N", help="maximum windows per document (default: 32)")
    add_scoring_options(parser)
    parser.set_defaults(defaults=vars(parser.parse_args(["", ""])))


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    # 1) Check what can be checked before anything is read or loaded.
    if not args.query.strip():
        raise InputError(
            "QUERY is empty, so there is nothing to rank by. If it comes from a shell variable, check that."
        )
    if args.files.count("-") > 1:
        raise InputError("Standard input (-) is given more than once, but it can be read only once.")
    # 2) Make the pipeline: the stages of a file, or one model.
    model = None if args.pipeline else open_model(args)
    reranker = _from_file(args) if model is None else _of_one_model(model, args)
    # 3) Read the documents.
    report = Report()
    documents = _read(args, report, ids=reranker.takes_ids)
    if not documents:
        complain("warning", f"there are no documents in {', '.join(args.files)}.")
    elif model is not None and args.label is None and model.num_labels > 1:
        labels = model.info()["labels"]
        raise InputError(
            f"{model.name} has {len(labels)} labels ({', '.join(labels)}), so there is no single score to rank by. "
            f"Choose the one that means relevant: --label {labels[-1]}"
        )
    # 4) Rank them.
    with reranker:
        ranking = reranker.rank(args.query, [_given(document, args) for document in documents], top_k=args.top_k)
    # 5) Write the ranking, then warnings and facts.
    rows = [Row(ranked, documents[ranked.first_stage_position]) for ranked in ranking]
    if args.json:
        write_json(rows, ranking if args.pipeline else None)
    elif sys.stdout.isatty():
        write_table(rows, name_files=len(args.files) > 1)
    else:
        write_tabs(rows)
    sys.stdout.flush()
    report.tell_skipped()
    _tell(ranking, model)
    return 0


def _from_file(args: argparse.Namespace) -> Reranker:
    from crossrank.ranking.reranker import Reranker

    for name, default in args.defaults.items():
        if name not in _WITH_PIPELINE and getattr(args, name) != default:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} is for one model and can't be used with --pipeline. Set it in {args.pipeline!r}."
            )
    reranker = Reranker.from_file(args.pipeline)
    if args.threshold is not None:
        reranker.threshold = check_threshold(args.threshold)
    return reranker


def _of_one_model(model: CrossEncoder, args: argparse.Namespace) -> Reranker:
    # Imported here, so that --help stays fast.
    from crossrank.ranking.cross_encoder_stage import CrossEncoderStage
    from crossrank.ranking.reranker import Reranker
    from crossrank.scoring.long_documents import LongDocuments

    long_documents = LongDocuments(args.long_documents)
    if args.max_windows is not None:
        if args.long_documents in ("truncate", "first"):
            raise InputError(
                "--max-windows is for --long-documents max or mean_top_k. Give one of them, or leave it out."
            )
        long_documents = replace(long_documents, max_windows=args.max_windows)
    stage = CrossEncoderStage(model, batch_size=args.batch_size, long_documents=long_documents)
    return Reranker(stage, threshold=args.threshold)


def _given(document: Document, args: argparse.Namespace) -> Any:
    """The input of the stages: all fields of a JSON object, because a pipeline's template may use them."""
    if isinstance(document.text, PreparedId) or not (document.is_record and args.pipeline):
        return document.text
    record: dict[str, Any] = json.loads(document.line.text)
    # --field decides what "text" is; a template in the pipeline's file still applies.
    return {**record, "text": document.text} if args.field else record


def _read(args: argparse.Namespace, report: Report, *, ids: bool) -> list[Document]:
    documents: list[Document] = []
    for name in args.files:
        if name == "-" and sys.stdin is not None and sys.stdin.isatty():
            complain("note", "reading documents from the terminal, one per line; Ctrl-D ends the input.")
        for item in read_documents(name, args.format, args.field, ids=ids):
            if isinstance(item, Document):
                documents.append(item)
            elif args.skip_bad:
                report.skip(item)
            else:
                raise item
    return documents


def _tell(ranking: Ranking, model: CrossEncoder | None) -> None:
    """Warn about what is missing from a ranking; on a terminal, also print how it was made.

    :param model: The model, if there was only one; warnings mention its limits.
    """
    if ranking.degraded:
        complain("warning", f"the ranking is degraded: {ranking.reason}.")
    for note in ranking.notes:
        complain("warning", f"{note}.")
    for stage in ranking.stages:
        prepared = [note for note in stage.notes if note.startswith("prepared: ")]
        notes = [note for note in stage.notes if note not in prepared]
        for note in prepared:
            remark(note)
        if model is not None and notes:
            windows = "max_windows" in notes[0]
            remedy = "Set --max-windows to read more." if windows else limit_of(model)
            complain("warning", f"{'; '.join(notes)}. {remedy}")
        elif stage.pairs_cut:
            complain("warning", f"{stage.name}: {stage.pairs_cut} of {stage.documents} documents were cut.")
        facts = f"{stage.tokens} tokens, {stage.seconds * 1000:.0f} ms"
        if model is not None:
            speed = f" ({stage.scored / stage.seconds:.0f} per second)" if stage.seconds > 1 else ""
            remark(f"{stage.scored} document{'s' * (stage.scored != 1)}, {facts}{speed}")
            continue
        cost = "" if stage.cost is None else f", cost {stage.cost:g}"
        counts = f"{stage.scored} of {stage.documents} documents scored ({stage.kind}), {stage.kept} kept"
        remark(f"{stage.name}: {counts}, {facts}{cost}")
        for note in notes:
            remark(f"{stage.name}: {note}")
