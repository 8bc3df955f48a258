"""Which words made the model say so: leave them out, one after the other, and see what the score loses.

This is occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014; of words: Li, Monroe
and Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016). What it shows: the score of this
pair, by this model, falls by so much when this span alone is not there. That is a fact about the model, measured on the
model itself. What it can't show:

- Evidence that stands there twice hides itself: leave out one, and the other still carries the score.
- Words that work only together each get the weight of all, so weights don't add up to the score.
- A text with a hole is not a text that anyone wrote. Some of a weight may be surprise at the hole.
- What is not there has no weight: a document may rank low because a word is missing.
- That a span weighs much says nothing on whether it is true, or the right reason.
- Of a document too long for the model, the part behind the cut weighs 0, and leaving out something before the cut lets
  in what was behind it. :attr:`Explanation.tokens_cut` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
# Below this a query's words, the document's spans and the pair itself have no room.
LEAST_BUDGET = 8
# Documents of so many characters are not cut by any usual model, or hardly.
SHORT = 2000


@dataclass(frozen=True)
class Span:
    """A part of a text that was left out.

    :param start: Its first character; ``text == whole[start:end]``.
    :param weight: How much the raw logit falls without it; below 0 where it rises.
    """

    start: int
    end: int
    text: str
    weight: float


@dataclass(frozen=True)
class Explanation:
    """What each part of a query and of a document adds to the raw logit of their pair.

    :param logit: The raw score of the pair as it is.
    :param query_spans: The query's words, in order.
    :param sentences: The document's sentences, in order; empty where only words were asked for, or there is one.
    :param words: Words of the document, in order: of all of it, or with ``unit="auto"`` of the sentences that weigh
        most, as far as the budget goes; empty with ``unit="sentence"``.
    :param words_of: Of how many sentences there are words, and of how many there are.
    :param grain: How many neighbours were left out at a time: ``{"query": 1, "sentences": 1, "words": 1}``, more where
        the budget was too small to take each on its own.
    :param tokens_cut: Tokens that the pair lost because it is too long for the model.
    :param pairs: Pairs scored for it.
    :param seconds: What scoring took; of several explained at once, the share by pairs.
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
        """The document's heaviest spans: sentences where there are some, else words."""
        return _heaviest(self.sentences or self.words, count)


@dataclass(frozen=True)
class Contrast:
    """Two documents side by side.

    :param query_spans: The query's words with what each adds to the margin ``first.logit - second.logit``.
    """

    first: Explanation
    second: Explanation
    query_spans: tuple[Span, ...]

    @property
    def margin(self) -> float:
        """How far the first document is ahead, in logits."""
        return self.first.logit - self.second.logit


def explain(model: CrossEncoder, query: str, document: str, *, unit: str = "auto", budget: int = BUDGET) -> Explanation:
    """Say which words of a query and a document its score rests on, by leaving them out.

    :param unit: What is left out of the document: ``"word"``, ``"sentence"``, or ``"auto"``: sentences, then the words
        of those that weigh most. Of the query it is always words.
    :param budget: The most pairs to score, the pair itself included. Where it is too small to leave out each span on
        its own, neighbours are left out together.
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
    """Explain several pairs together: a batched call of the model for all their sentences, one for the words.

    Of documents over 2000 characters the pair itself is scored before: to know where the model stops to read.

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
    """What is left out of one pair, and what came of it. ``todo`` holds what is still to be scored."""

    def __init__(self, query: str, document: str, unit: str, budget: int) -> None:
        self.query, self.document, self.unit = query, document, unit
        found = words(query)
        # At most a quarter goes to the query: the document is what has more to say.
        self.query_parts = runs(found, budget // 4)
        self.room = budget - 1 - len(self.query_parts)
        self.grain = {"query": _grain(found, self.query_parts), "sentences": 1, "words": 1}
        self.sentence_parts: list[Offsets] = []
        self.word_parts: list[Offsets] = []
        self.words_of = (0, 0)
        self.logit = self.seconds = 0.0
        self.weights: dict[_Part, float] = {}
        self.tokens_cut = self.pairs = 0
        self.needed = len(document)  # characters of the document that can make a difference
        self.todo: list[_Part] = [("pair", 0, 0)]
        self.rounds = [self._lay_out, self._look_closer]
        if len(document) <= SHORT:
            # It will hardly be cut, so all can be scored in one call.
            self.rounds.pop(0)(len(document))

    def _lay_out(self, reach: int) -> None:
        """Choose parts of the query, and sentences of the document, or all its words.

        :param reach: Behind this character the model reads nothing of the document.
        """
        self.todo += [("query", *part) for part in self.query_parts]
        found = [] if self.unit == "word" else sentences(self.document)
        # Of one sentence only its words say something; alone it is the whole document.
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
        """Choose the words of the heaviest sentences, as many as there is room for."""
        room = self.room - len(self.sentence_parts)
        taken = 0
        for start, end in sorted(self.sentence_parts, key=lambda at: -abs(self.weights["document", at[0], at[1]])):
            inside = [(start + a, start + b) for a, b in words(self.document[start:end])]
            if len(inside) > room:
                if taken or room < 2:
                    break
                # The heaviest sentence is looked into even if its words don't fit one by one.
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
        """Give the pair to score: as it is, or with something left out."""
        query, document = self.query, self.document[: max(self.needed, end if what == "document" else 0)]
        if what == "query":
            return without(query, start, end), document
        return query, without(document, start, end) if what == "document" else document

    def take(self, item: _Part, logit: float, query_cut: int, document_cut: int) -> None:
        """Take what a pair scored; what has to be scored once more goes into ``todo``."""
        self.pairs += 1
        if item[0] == "pair":
            self.logit, self.tokens_cut = logit, query_cut + document_cut
        elif self.needed < len(self.document) and item[2] < self.needed and not document_cut:
            # The model read all that it was given, so it might have read on.
            self.todo.append(item)
        else:
            self.weights[item] = self.logit - logit

    def next_round(self, max_length: int) -> None:
        """Decide what to leave out next, now that something was scored."""
        if self.todo:
            self.needed = len(self.document)
        elif self.rounds:
            self.rounds.pop(0)(self._reach(max_length) if self.tokens_cut else len(self.document))

    def _reach(self, max_length: int) -> int:
        """Estimate how far the model reads a document that was cut, in characters, and rather too far.

        Exact would be the tokenizer's offsets, which a score does not carry. What lies behind is left out in one piece,
        so that an estimate that is wrong shows as its weight.
        """
        reach = int(1.25 * len(self.document) * max_length / (max_length + self.tokens_cut))
        # With a part left out as much again moves up; the rest of a very long text would only cost time.
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
    """Score what all plans have to do in one call, and hand each its share."""
    todo = [(plan, item) for plan in plans for item in plan.todo]
    result = model.score([plan.pair_of(*item) for plan, item in todo], activation_fn="identity")
    if result.relevance is None:
        raise InputError(
            f"The model has {result.logits.shape[1]} labels, so there is no one score to explain. "
            "Name the label that means relevant: CrossEncoder(..., label=...)."
        )
    for plan in plans:
        plan.seconds += result.seconds * len(plan.todo) / len(todo)
        plan.todo = []
    columns = (result.relevance, result.query_tokens_cut, result.document_tokens_cut)
    for (plan, item), logit, query_cut, document_cut in zip(todo, *columns, strict=True):
        plan.take(item, float(logit), int(query_cut), int(document_cut))


def _heaviest(spans: Sequence[Span], count: int) -> tuple[Span, ...]:
    return tuple(sorted(spans, key=lambda span: (-span.weight, span.start))[:count])


def _within(found: list[Offsets], reach: int, most: int) -> tuple[list[Offsets], int]:
    """Join spans until there are at most ``most``; those behind ``reach`` to a single one. Also how many make one."""
    head = [span for span in found if span[0] < reach]
    tail = found[len(head) :]
    parts = runs(head, most - 1 if tail and most > 1 else most)
    grain = _grain(head, parts)
    return parts + ([(tail[0][0], tail[-1][1])] if tail else []), grain


def _grain(found: Sequence[Offsets], parts: Sequence[Offsets]) -> int:
    return -(-len(found) // len(parts)) if parts else 1
