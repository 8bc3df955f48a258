"""Write explanations: coloured text on a terminal, text with marks in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from crossrank.cli.terminal import BOLD, DIM, GREEN, RED, for_eyes, is_plain, styled
from crossrank.evaluation.bm25_overlap import matches
from crossrank.evaluation.explain import Contrast, Explanation, Span, segments

_UNDERLINE = "\x1b[4m"
# Strong and faint, for and against. Only the letters are coloured, so that any background works.
_COLOURS = {("+", 2): "\x1b[1;32m", ("+", 1): GREEN, ("-", 2): "\x1b[1;31m", ("-", 1): RED}
# Shares of the largest weight from which a span is shown, and shown as strong.
_LEVELS = (0.15, 0.5)
_LISTED = 5
_LONGEST = 60


def write_explanation(found: Explanation) -> None:
    """Write one document with the parts that its score depends on."""
    print(styled(f"raw score {found.logit:.3f}", BOLD, sys.stdout))
    print(f"\n{_heading('query')}\n{_marked(found.query, found.query_spans, ())}")
    _write_document(found)


def write_contrast(both: Contrast) -> None:
    """Write two documents, and the words of the query that make the difference."""
    ahead = "first" if both.margin > 0 else "second"
    print(styled(f"the {ahead} document is ahead by {abs(both.margin):.3f}", BOLD, sys.stdout))
    print(f"\n{_heading('query: words for and against the first document')}")
    print(_marked(both.first.query, both.query_spans, ()))
    _write_list(both.query_spans)
    for number, each in enumerate((both.first, both.second), start=1):
        print(styled(f"\ndocument {number}: raw score {each.logit:.3f}", BOLD, sys.stdout))
        _write_document(each)


def _write_document(found: Explanation) -> None:
    print(f"\n{_heading('document')}")
    print(_marked(found.document, found.words or found.sentences, found.top(1) if found.sentences else ()))
    for name, spans in (("sentences", found.sentences), ("words", found.words)):
        if spans:
            grain = found.grain[name]
            of = ""
            if name == "words" and found.words_of[0] < found.words_of[1]:
                of = f" of {found.words_of[0]} of {found.words_of[1]} sentences"
            together = f", {grain} at a time" if grain > 1 else ""
            print(f"\n{_heading(f'{name}{of}{together}: drop in raw score without them')}")
            _write_list(spans)
    matched = matches(found.query, found.document)
    shown = ", ".join(f"{for_eyes(match.term)} ×{match.count}" for match in matched) or "nothing"
    print(f"\n{_heading('BM25 matches')}\n{shown}")


def _write_list(spans: Sequence[Span]) -> None:
    for span in sorted(spans, key=lambda span: -abs(span.weight))[:_LISTED]:
        text = " ".join(for_eyes(span.text).split())
        cut = text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
        print(f"{span.weight:+8.3f}  {cut}")


def _marked(text: str, spans: Sequence[Span], underlined: Sequence[Span]) -> str:
    """Colour spans by their weight, or put marks around them."""
    plain = is_plain(sys.stdout)
    pieces = []
    for part, _, share, underline in segments(text, spans, underlined):
        piece = _lines(part)
        sign, strength = "+" if share > 0 else "-", sum(abs(share) >= least for least in _LEVELS)
        if plain:
            pieces.append(f"[{sign}{piece}]" if strength else piece)
        else:
            style = _COLOURS.get((sign, strength), "") + (_UNDERLINE if underline else "")
            pieces.append(styled(piece, style, sys.stdout))
    return "".join(pieces)


def _lines(text: str) -> str:
    # White space at the ends of a piece separates words, and the line ends of a document are kept.
    return "\n".join(" ".join(for_eyes(word) for word in line.split(" ")) for line in text.split("\n"))


def _heading(text: str) -> str:
    return styled(text, DIM, sys.stdout)
