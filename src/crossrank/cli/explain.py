"""``crossrank explain QUERY DOC [DOC2]``: the words that a score depends on."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossrank.cli.explanation import write_contrast, write_explanation
from crossrank.cli.options import MODEL, Parser, add_model_options, open_model, positive
from crossrank.cli.terminal import complain, remark, remark_prepared, to_json
from crossrank.errors import InputError
from crossrank.evaluation.bm25_overlap import matches
from crossrank.evaluation.explain import BUDGET, UNITS, Explanation, contrast, explain

DESCRIPTION = """\
Show which words and sentences a score depends on, by leaving each out and
scoring again."""
EPILOG = """\
input:
  A document is its text, @FILE for the text of a file, or - for standard input.

output:
  The raw score, the query and the document. Words that raise the score are
  green, words that lower it are red, and the most important sentence is
  underlined. Without colours, they are marked [+words] and [-words].
  Below them are the weights: a part's weight is how much the raw score falls
  when that part alone is left out. Last come the words that BM25 would match.
  With two documents: both, and the words of the query that make the difference.
  With --json: one object with all parts and their character offsets.

what it can and cannot show:
  Weights describe this model's score of this pair, and nothing else. If a
  document has the same evidence twice, each copy gets a small weight. If words
  only count together, each gets the weight of all, so weights don't add up. A
  text with a gap is not natural text, and the model may react to that. A word
  that the document lacks has no weight.

examples:
  crossrank explain "how long is it kept" "We keep logs. Backups stay 30 days."
  crossrank explain "refund policy" @terms.txt --unit sentence
  crossrank explain "capital of France" "Paris is it." "Lyon is a city." --json
"""


def add_options(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument("query", metavar="QUERY", help="the query")
    parser.add_argument("document", metavar="DOC", help="the text, @FILE to read a file, or - for standard input")
    parser.add_argument("other", metavar="DOC2", nargs="?", help="a second document, to compare with the first")
    parser.add_argument(
        "--unit",
        choices=UNITS,
        default="auto",
        help="what to leave out at a time; auto means sentences, then words of the most important ones (default: auto)",
    )
    parser.add_argument(
        "--budget", type=positive, default=BUDGET, metavar="N", help=f"maximum pairs to score (default: {BUDGET})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", metavar="NAME", help=MODEL)
    add_model_options(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.document == args.other == "-":
        raise InputError("Standard input (-) is named twice. It can be read only once; put the other text into a file.")
    document = _text_of(args.document)
    model = open_model(args)
    if args.other is None:
        found = explain(model, args.query, document, unit=args.unit, budget=args.budget)
        explained, value = [found], _as_json(found)
    else:
        both = contrast(model, args.query, document, _text_of(args.other), unit=args.unit, budget=args.budget)
        explained = [both.first, both.second]
        value = {
            "margin": both.margin,
            "query_spans": [asdict(span) for span in both.query_spans],
            "documents": [_as_json(each) for each in explained],
        }
    if args.json:
        print(to_json(value))
    elif args.other is None:
        write_explanation(found)
    else:
        write_contrast(both)
    sys.stdout.flush()
    for number, each in enumerate(explained, start=1):
        if each.tokens_cut:
            which = "The document" if len(explained) == 1 else f"Document {number}"
            cut = f"{which} was cut by {each.tokens_cut} tokens: the model reads at most {model.max_length}."
            complain("warning", f"{cut} The rest has no weight.")
    pairs, seconds = sum(each.pairs for each in explained), sum(each.seconds for each in explained)
    remark_prepared(model)
    remark(f"{pairs} pairs scored in {seconds:.2f} s")
    return 0


def _as_json(found: Explanation) -> dict[str, Any]:
    return {**asdict(found), "bm25": [asdict(match) for match in matches(found.query, found.document)]}


def _text_of(given: str) -> str:
    """Read the text itself, a file's, or standard input's.

    :raises InputError: If there is no such file, or it is not UTF-8.
    """
    if given != "-" and not given.startswith("@"):
        return given
    name = "standard input" if given == "-" else given[1:]
    try:
        raw = sys.stdin.buffer.read() if given == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(
            f"There is no file {name!r} (seen from {str(Path.cwd())!r}). Check the path. Use standard input (-) "
            "for a text that starts with @."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: byte {error.start + 1} is not UTF-8. Give a text file in UTF-8.") from error
    except OSError as error:
        raise InputError(f"{name!r} can't be read: {error.strerror}. Give a text file.") from error
