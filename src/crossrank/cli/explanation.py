"""Explanations -> terminals and pipes: coloured text, or the same with marks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

from crossrank.cli.terminal import for_eyes, is_plain
from crossrank.evaluation.bm25_overlap import matches
from crossrank.evaluation.explain import Contrast, Explanation, Span

_PLAIN = "\x1b[0m"
_BOLD, _DIM, _UNDERLINE = "\x1b[1m", "\x1b[2m", "\x1b[4m"
# Strong and faint, for and against: the letters themselves are coloured, so that any background will do.
_COLOURS = {(1, 2): "\x1b[1;32m", (1, 1): "\x1b[32m", (-1, 2): "\x1b[1;31m", (-1, 1): "\x1b[31m"}
# Shares of the greatest weight from which a span is strong, or is shown at all.
_STRONG, _FAINT = 0.5, 0.15
_LISTED = 5
_LONGEST = 60


def write_explanation(found: Explanation, title: str = "") -> None:
    """Write one document with what carries its score."""
    print(_styled(f"{title}raw score {found.logit:.3f}", _BOLD))
    print(f"\n{_heading('query')}\n{_marked(found.query, found.query_spans, ())}")
    _write_document(found)


def write_contrast(both: Contrast) -> None:
    """Write two documents, and what of the query sets them apart."""
    ahead = "first" if both.margin > 0 else "second"
    print(_styled(f"the {ahead} document is ahead by {abs(both.margin):.3f}", _BOLD))
    print(f"\n{_heading('query: what speaks for the first document, and against it')}")
    print(_marked(both.first.query, both.query_spans, ()))
    _write_list(both.query_spans)
    for number, each in enumerate((both.first, both.second), start=1):
        print(_styled(f"\ndocument {number}: raw score {each.logit:.3f}", _BOLD))
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
    most = max((abs(span.weight) for span in spans), default=0.0)
    edges = {0, len(text)} | {edge for span in (*spans, *underlined) for edge in (span.start, span.end)}
    cuts = sorted(edges)
    pieces = []
    for start, end in pairwise(cuts):
        piece = _lines(text[start:end])
        span = next((each for each in spans if each.start <= start and end <= each.end), None)
        sign, strength = _level(span.weight, most) if span else (0, 0)
        line = any(each.start <= start and end <= each.end for each in underlined)
        if plain:
            pieces.append(f"[{'+' if sign > 0 else '-'}{piece}]" if strength else piece)
        else:
            style = _COLOURS.get((sign, strength), "") + (_UNDERLINE if line else "")
            pieces.append(f"{style}{piece}{_PLAIN}" if style else piece)
    return "".join(pieces)


def _level(weight: float, most: float) -> tuple[int, int]:
    share = abs(weight) / most if most else 0.0
    return (1 if weight > 0 else -1), (2 if share >= _STRONG else 1 if share >= _FAINT else 0)


def _lines(text: str) -> str:
    # White space at the ends of a piece stands between words, and the line ends of a document are its own.
    return "\n".join(" ".join(for_eyes(word) for word in line.split(" ")) for line in text.split("\n"))


def _heading(text: str) -> str:
    return _styled(text, _DIM)


def _styled(text: str, style: str) -> str:
    return text if is_plain(sys.stdout) else f"{style}{text}{_PLAIN}"
