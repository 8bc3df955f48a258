"""Explain a score: leave out each word or sentence, score again, and see how much the score falls.

This is occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014; of words: Li, Monroe
and Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016). A weight is what this
model's score of this pair loses without that span. It has limits:

- If the evidence occurs twice, each copy gets a small weight, because the other one still supports the score.
- Words that work only together each get the weight of all of them, so weights don't add up to the score.
- A text with a gap is unnatural. Part of a weight may be an effect of the gap.
- Missing words have no weight: a document may rank low because a word is missing.
- A high weight does not mean that the span is true or that it is the right reason.
- If a document is too long for the model, the part that is cut off has weight 0, and leaving out an earlier span lets
  the model read further. :attr:`Explanation.tokens_cut` says how much was cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from crossrank.errors import InputError
from crossrank.evaluation.spans import Offsets, runs, sentences, without, words
from crossrank.validation import check_text, is_positive_integer

if TYPE_CHECKING:
    from crossrank.scoring.cross_encoder import CrossEncoder

_Part = tuple[str, int, int]  # "query" or "document", and what of it is left out
T = TypeVar("T")
# Yields pairs to score; receives each one's logit, and the tokens cut from its query and its document.
_Steps = Generator[list[tuple[str, str]], list[tuple[float, int, int]], T]

UNITS = ("auto", "word", "sentence")
# Pairs scored for one explanation: one or two seconds on two cores, at a length of 250 tokens.
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
    """Explain several pairs together: one call of the model for the pairs, one for their sentences, one for words.

    :param budget: The most pairs to score for each.
    :raises InputError: As :func:`explain`.
    """
    if unit not in UNITS:
        raise InputError(f"unit={unit!r} is unknown. Give one of {', '.join(map(repr, UNITS))}.")
    if not is_positive_integer(budget) or budget < LEAST_BUDGET:
        raise InputError(f"budget={budget!r} is not an integer of at least {LEAST_BUDGET} pairs.")
    running = [
        _explaining(
            model, check_text(query, f"pairs[{i}][0]"), check_text(document, f"pairs[{i}][1]"), unit, int(budget)
        )
        for i, (query, document) in enumerate(pairs)
    ]
    wanted = [next(one) for one in running]
    seconds = [0.0] * len(running)
    explanations: dict[int, Explanation] = {}
    while any(wanted):
        result = model.score([pair for some in wanted for pair in some], activation_fn="identity")
        if result.relevance is None:
            raise InputError(
                f"The model has {result.logits.shape[1]} labels, so there is no single score to explain. "
                "Name the label that means relevant: CrossEncoder(..., label=...)."
            )
        columns = (result.relevance, result.query_tokens_cut, result.document_tokens_cut)
        scored = list(zip(*(column.tolist() for column in columns), strict=True))
        for i, some in enumerate(wanted):
            if some:
                seconds[i] += result.seconds * len(some) / len(result.relevance)
                here, scored = scored[: len(some)], scored[len(some) :]
                try:
                    wanted[i] = running[i].send(here)
                except StopIteration as end:
                    wanted[i], explanations[i] = [], replace(end.value, seconds=seconds[i])
    return [explanations[i] for i in range(len(running))]


def _explaining(model: CrossEncoder, query: str, document: str, unit: str, budget: int) -> _Steps[Explanation]:
    """Explain one pair: yield the pairs to score, receive their scores, return the explanation without its time."""
    # 1) Score the pair itself, which shows how much of the document the model reads.
    [(logit, query_cut, document_cut)] = yield [(query, document)]
    tokens_cut = query_cut + document_cut
    reach = needed = len(document)
    if tokens_cut and len(document) > SHORT:
        # Estimate how many characters the model reads, rather too many. The exact number would need the tokenizer's
        # offsets, which scores do not include. The rest is left out in one piece; a weight other than 0 shows that
        # the estimate was wrong.
        reach = int(1.25 * len(document) * model.max_length / (model.max_length + tokens_cut))
        # Without a part, the model reads further. Text far beyond the limit would only take time.
        needed = min(len(document), 2 * reach + SHORT)
    weights: dict[_Part, float] = {}
    pairs = 1

    def leave_out(parts: list[_Part]) -> _Steps[None]:
        """Score the pair without each part."""
        nonlocal needed, pairs
        while parts:
            again = []
            scored = yield [_without(query, document, needed, *part) for part in parts]
            pairs += len(parts)
            for part, (without_it, _, cut) in zip(parts, scored, strict=True):
                if needed < len(document) and part[2] < needed and not cut:
                    again.append(part)  # the model read everything it was given, so it might have read further
                else:
                    weights[part] = logit - without_it
            parts = again
            if again:
                needed = len(document)

    # 2) Leave out the words of the query, and the sentences of the document, or all its words.
    found = words(query)
    # At most a quarter of the budget is for the query, because the document is longer.
    query_parts = runs(found, budget // 4)
    room = budget - 1 - len(query_parts)
    grain = {"query": _grain(found, query_parts), "sentences": 1, "words": 1}
    all_sentences = [] if unit == "word" else sentences(document)
    sentence_parts: list[Offsets] = []
    word_parts: list[Offsets] = []
    words_of = (1, 1)
    # A single sentence is the whole document, so only its words are useful.
    if len(all_sentences) > 1 or unit == "sentence":
        most = room if unit == "sentence" else max(1, 2 * room // 3)
        sentence_parts, grain["sentences"] = _within(all_sentences, reach, most)
        words_of = (0, len(sentence_parts))
    else:
        word_parts, grain["words"] = _within(words(document), reach, room)
    yield from leave_out(
        [("query", *part) for part in query_parts] + [("document", *part) for part in sentence_parts + word_parts]
    )
    # 3) Leave out the words of the sentences with the largest weights, as many as the budget allows.
    if sentence_parts and unit == "auto":
        room -= len(sentence_parts)
        taken = 0
        for start, end in sorted(sentence_parts, key=lambda at: -abs(weights["document", at[0], at[1]])):
            inside = [(start + a, start + b) for a, b in words(document[start:end])]
            if len(inside) > room:
                if taken or room < 2:
                    break
                # The first sentence is always split, if necessary into groups of words.
                whole, inside = inside, runs(inside, room)
                grain["words"] = _grain(whole, inside)
            # A sentence of one word is scored already.
            inside = [part for part in inside if part != (start, end)]
            room -= len(inside)
            taken += 1
            word_parts += inside
        word_parts.sort()
        words_of = (taken, len(sentence_parts))
        yield from leave_out([("document", *part) for part in word_parts])

    def spans(what: str, text: str, parts: list[Offsets]) -> tuple[Span, ...]:
        return tuple(Span(*part, text[slice(*part)], weights[what, part[0], part[1]]) for part in parts)

    return Explanation(
        query=query,
        document=document,
        logit=logit,
        query_spans=spans("query", query, query_parts),
        sentences=spans("document", document, sentence_parts),
        words=spans("document", document, word_parts),
        words_of=words_of,
        grain=grain,
        tokens_cut=tokens_cut,
        pairs=pairs,
        seconds=0.0,
    )


def _without(query: str, document: str, needed: int, what: str, start: int, end: int) -> tuple[str, str]:
    """The pair without a part, and without what comes after the ``needed`` characters of the document."""
    if what == "query":
        return without(query, start, end), document[:needed]
    return query, without(document[: max(needed, end)], start, end)


def _within(found: list[Offsets], reach: int, most: int) -> tuple[list[Offsets], int]:
    """Join spans until there are at most ``most``; those after ``reach`` become one. Also give how many were joined."""
    head = [span for span in found if span[0] < reach]
    tail = found[len(head) :]
    parts = runs(head, most - 1 if tail and most > 1 else most)
    grain = _grain(head, parts)
    return parts + ([(tail[0][0], tail[-1][1])] if tail else []), grain


def _grain(found: Sequence[Offsets], parts: Sequence[Offsets]) -> int:
    return -(-len(found) // len(parts)) if parts else 1
