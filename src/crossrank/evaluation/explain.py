"""Explain a score: leave out each word or sentence, score again, and see how much the score falls.

This is occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014; of words: Li, Monroe
and Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016). A weight is what this
model's score of this pair loses without that span. It has limits:

- If the evidence occurs twice, each copy gets a small weight, because the other one still supports the score.
- Words that work only together each get the weight of all of them, so weights don't add up to the score.
- A text with a gap is not natural. Part of a weight may be an effect of the gap.
- Missing words have no weight: a document may rank low because a word is missing.
- A high weight does not mean that the span is true or that it is the right reason.
- If a document is too long for the model, the part that is cut off has weight 0, and leaving out an earlier span lets
  the model read further. :attr:`Explanation.tokens_cut` says how much was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from crossrank.errors import InputError
from crossrank.evaluation.spans import Offsets, runs, sentences, without, words
from crossrank.validation import check_text, is_positive_integer

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder

_Part = tuple[str, int, int]  # "pair", "query" or "document", and what of it is left out

UNITS = ("auto", "word", "sentence")
# Pairs scored for one explanation: a second or two of two cores at a length of 250 tokens.
BUDGET = 256
# Room for the pair itself, and for at least some spans of the query and the document.
LEAST_BUDGET = 8
# Documents of this many characters are hardly ever cut.
SHORT = 2000


@dataclass(frozen=True)
class Span:
    """A part of a text that was left out.

    :param start: Its first character; ``text == whole[start:end]``.
    :param weight: How much the raw logit falls without it; negative if it rises.
    """

    start: int
    end: int
    text: str
    weight: float


@dataclass(frozen=True)
class Explanation:
    """What each part of a query and a document adds to the raw logit of the pair.

    :param logit: The raw score of the pair.
    :param query_spans: The words of the query, in order.
    :param sentences: The sentences of the document, in order; empty with ``unit="word"`` or for a single sentence.
    :param words: Words of the document, in order: all, or with ``unit="auto"`` those of the sentences with the largest
        weights, as far as the budget allows; empty with ``unit="sentence"``.
    :param words_of: The number of sentences with words, and the number of all sentences.
    :param grain: How many neighbours were left out together: ``{"query": 1, "sentences": 1, "words": 1}``, or more if
        the budget was too small.
    :param tokens_cut: Tokens that were cut off because the pair is too long for the model.
    :param pairs: Number of pairs scored.
    :param seconds: Time for scoring; if several pairs are explained together, a share by number of pairs.
    """

    query: str
    document: str
    logit: float
    query_spans: tuple[Span, ...]
    sentences: tuple[Span, ...]
    words: tuple[Span, ...]
    words_of: tuple[int, int]
    grain: Mapping[str, int]
    tokens_cut: int
    pairs: int
    seconds: float

    def top(self, count: int = 3) -> tuple[Span, ...]:
        """The document's heaviest spans: sentences if there are any, else words."""
        spans = self.sentences or self.words
        return tuple(sorted(spans, key=lambda span: (-span.weight, span.start))[:count])


@dataclass(frozen=True)
class Contrast:
    """Two documents compared for one query.

    :param query_spans: The words of the query with what each adds to the margin ``first.logit - second.logit``.
    """

    first: Explanation
    second: Explanation
    query_spans: tuple[Span, ...]

    @property
    def margin(self) -> float:
        """By how many logits the first document is ahead."""
        return self.first.logit - self.second.logit


def segments(
    text: str, spans: Sequence[Span], underlined: Sequence[Span]
) -> Iterator[tuple[str, Span | None, float, bool]]:
    """Cut a text where a span begins or ends, to colour its parts.

    :param spans: Spans that do not overlap.
    :returns: Each piece, its span if it has one, the span's weight as a share of the largest, and whether to underline.
    """
    most = max((abs(span.weight) for span in spans), default=0.0) or 1.0
    cuts = sorted({0, len(text)} | {edge for span in (*spans, *underlined) for edge in (span.start, span.end)})
    left = iter(sorted(spans, key=lambda span: span.start))
    span = next(left, None)
    for start, end in pairwise(cuts):
        while span is not None and span.end <= start:
            span = next(left, None)
        here = span if span is not None and span.start <= start else None
        line = any(one.start <= start and end <= one.end for one in underlined)
        yield text[start:end], here, here.weight / most if here is not None else 0.0, line


def explain(model: CrossEncoder, query: str, document: str, *, unit: str = "auto", budget: int = BUDGET) -> Explanation:
    """Find the words of a query and a document that its score depends on, by leaving them out.

    :param unit: What to leave out of the document: ``"word"``, ``"sentence"``, or ``"auto"``: sentences, then the words
        of the sentences with the largest weights. In the query it is always words.
    :param budget: The most pairs to score, including the pair itself. If it is too small to leave out each span
        separately, neighbours are left out together.
    :raises InputError: If a text is not a string, ``unit`` is unknown, ``budget`` is below 8, or the model has several
        labels and none is named.
    """
    return explain_pairs(model, [(query, document)], unit=unit, budget=budget)[0]


def contrast(
    model: CrossEncoder, query: str, first: str, second: str, *, unit: str = "auto", budget: int = BUDGET
) -> Contrast:
    """Explain two documents for one query; see :func:`explain`.

    :param budget: The most pairs to score for each document.
    :raises InputError: As :func:`explain`.
    """
    left, right = explain_pairs(model, [(query, first), (query, second)], unit=unit, budget=budget)
    margins = tuple(
        Span(a.start, a.end, a.text, a.weight - b.weight)
        for a, b in zip(left.query_spans, right.query_spans, strict=True)
    )
    return Contrast(left, right, margins)


def explain_pairs(
    model: CrossEncoder, pairs: Sequence[tuple[str, str]], *, unit: str = "auto", budget: int = BUDGET
) -> list[Explanation]:
    """Explain several pairs together: one call of the model for all sentences, one for the words.

    For documents over 2000 characters, the pair itself is scored first, to find out where the model stops reading.

    :param budget: The most pairs to score for each.
    :raises InputError: As :func:`explain`.
    """
    if unit not in UNITS:
        raise InputError(f"unit={unit!r} is unknown. Give one of {', '.join(map(repr, UNITS))}.")
    if not is_positive_integer(budget) or budget < LEAST_BUDGET:
        raise InputError(f"budget={budget!r} is not an integer of at least {LEAST_BUDGET} pairs.")
    plans = [
        _Plan(check_text(query, f"pairs[{i}][0]"), check_text(document, f"pairs[{i}][1]"), unit, int(budget))
        for i, (query, document) in enumerate(pairs)
    ]
    while any(plan.todo for plan in plans):
        _score(model, plans)
        for plan in plans:
            plan.next_round(model.max_length)
    return [plan.explanation() for plan in plans]


class _Plan:
    """The parts to leave out of one pair, and their scores. ``todo`` lists what is still to be scored."""

    def __init__(self, query: str, document: str, unit: str, budget: int) -> None:
        self.query, self.document, self.unit = query, document, unit
        found = words(query)
        # At most a quarter of the budget is for the query, because the document is longer.
        self.query_parts = runs(found, budget // 4)
        self.room = budget - 1 - len(self.query_parts)
        self.grain = {"query": _grain(found, self.query_parts), "sentences": 1, "words": 1}
        self.sentence_parts: list[Offsets] = []
        self.word_parts: list[Offsets] = []
        self.words_of = (0, 0)
        self.logit = self.seconds = 0.0
        self.weights: dict[_Part, float] = {}
        self.tokens_cut = self.pairs = 0
        self.needed = len(document)  # characters of the document that the model may read
        self.todo: list[_Part] = [("pair", 0, 0)]
        self.rounds = [self._lay_out, self._look_closer]
        if len(document) <= SHORT:
            # It is hardly ever cut, so all can be scored in one call.
            self.rounds.pop(0)(len(document))

    def _lay_out(self, reach: int) -> None:
        """Choose parts of the query, and sentences of the document, or all its words.

        :param reach: The model reads nothing of the document after this character.
        """
        self.todo += [("query", *part) for part in self.query_parts]
        found = [] if self.unit == "word" else sentences(self.document)
        # A single sentence is the whole document, so only its words are useful.
        if len(found) > 1 or self.unit == "sentence":
            most = self.room if self.unit == "sentence" else max(1, 2 * self.room // 3)
            self.sentence_parts, self.grain["sentences"] = _within(found, reach, most)
            self.words_of = (0, len(self.sentence_parts))
            self.todo += [("document", *part) for part in self.sentence_parts]
            self.rounds = self.rounds if self.unit == "auto" else []
            return
        self.rounds = []
        self.word_parts, self.grain["words"] = _within(words(self.document), reach, self.room)
        self.words_of = (1, 1)
        self.todo += [("document", *part) for part in self.word_parts]

    def _look_closer(self, reach: int) -> None:
        """Choose the words of the sentences with the largest weights, as many as the budget allows."""
        room = self.room - len(self.sentence_parts)
        taken = 0
        for start, end in sorted(self.sentence_parts, key=lambda at: -abs(self.weights["document", at[0], at[1]])):
            inside = [(start + a, start + b) for a, b in words(self.document[start:end])]
            if len(inside) > room:
                if taken or room < 2:
                    break
                # The first sentence is always split, if necessary into groups of words.
                whole, inside = inside, runs(inside, room)
                self.grain["words"] = _grain(whole, inside)
            # A sentence of one word is scored already.
            inside = [part for part in inside if part != (start, end)]
            room -= len(inside)
            taken += 1
            self.word_parts += inside
        self.word_parts.sort()
        self.words_of = (taken, len(self.sentence_parts))
        self.todo += [("document", *part) for part in self.word_parts]

    def pair_of(self, what: str, start: int, end: int) -> tuple[str, str]:
        """Give the pair to score, complete or with a part left out."""
        query, document = self.query, self.document[: max(self.needed, end if what == "document" else 0)]
        if what == "query":
            return without(query, start, end), document
        return query, without(document, start, end) if what == "document" else document

    def take(self, item: _Part, logit: float, query_cut: int, document_cut: int) -> None:
        """Store a score, or put the part into ``todo`` if it must be scored again."""
        self.pairs += 1
        if item[0] == "pair":
            self.logit, self.tokens_cut = logit, query_cut + document_cut
        elif self.needed < len(self.document) and item[2] < self.needed and not document_cut:
            # The model read everything it was given, so it might have read further.
            self.todo.append(item)
        else:
            self.weights[item] = self.logit - logit

    def next_round(self, max_length: int) -> None:
        """Decide what to leave out next."""
        if self.todo:
            self.needed = len(self.document)
        elif self.rounds:
            self.rounds.pop(0)(self._reach(max_length) if self.tokens_cut else len(self.document))

    def _reach(self, max_length: int) -> int:
        """Estimate how many characters the model reads of a document that was cut; the estimate is rather too high.

        The exact place would need the tokenizer's offsets, which scores do not include. The rest is left out in one
        piece, so that a wrong estimate shows in its weight.
        """
        reach = int(1.25 * len(self.document) * max_length / (max_length + self.tokens_cut))
        # Leaving out a part moves the rest up. Text far beyond the limit would only cost time.
        self.needed = min(len(self.document), 2 * reach + SHORT)
        return reach

    def explanation(self) -> Explanation:
        def spans(what: str, text: str, parts: list[Offsets]) -> tuple[Span, ...]:
            return tuple(Span(*part, text[slice(*part)], self.weights[what, part[0], part[1]]) for part in parts)

        return Explanation(
            query=self.query,
            document=self.document,
            logit=self.logit,
            query_spans=spans("query", self.query, self.query_parts),
            sentences=spans("document", self.document, self.sentence_parts),
            words=spans("document", self.document, self.word_parts),
            words_of=self.words_of,
            grain=self.grain,
            tokens_cut=self.tokens_cut,
            pairs=self.pairs,
            seconds=self.seconds,
        )


def _score(model: CrossEncoder, plans: Sequence[_Plan]) -> None:
    """Score the parts of all plans in one call."""
    todo = [(plan, item) for plan in plans for item in plan.todo]
    result = model.score([plan.pair_of(*item) for plan, item in todo], activation_fn="identity")
    if result.relevance is None:
        raise InputError(
            f"The model has {result.logits.shape[1]} labels, so there is no single score to explain. "
            "Name the label that means relevant: CrossEncoder(..., label=...)."
        )
    for plan in plans:
        plan.seconds += result.seconds * len(plan.todo) / len(todo)
        plan.todo = []
    columns = (result.relevance, result.query_tokens_cut, result.document_tokens_cut)
    for (plan, item), logit, query_cut, document_cut in zip(todo, *columns, strict=True):
        plan.take(item, float(logit), int(query_cut), int(document_cut))


def _within(found: list[Offsets], reach: int, most: int) -> tuple[list[Offsets], int]:
    """Join spans until there are at most ``most``; those after ``reach`` become one. Also give how many were joined."""
    head = [span for span in found if span[0] < reach]
    tail = found[len(head) :]
    parts = runs(head, most - 1 if tail and most > 1 else most)
    grain = _grain(head, parts)
    return parts + ([(tail[0][0], tail[-1][1])] if tail else []), grain


def _grain(found: Sequence[Offsets], parts: Sequence[Offsets]) -> int:
    return -(-len(found) // len(parts)) if parts else 1
