"""The text of a judge's answer -> a grade or an order, or the reason why there is none.

A judge should answer with one JSON object. It may add text, a code fence or its reasoning, or send half of the object
or something else. Ids are random and unknown to the documents, so an answer planted in a document has no valid id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

GRADES = range(4)
GRADE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "reason": {"type": "string"},
        "grade": {"type": "integer", "enum": list(GRADES)},
    },
    "required": ["id", "reason", "grade"],
    "additionalProperties": False,
}
RANKING_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ranking": {"type": "array", "items": {"type": "string"}}},
    "required": ["ranking"],
    "additionalProperties": False,
}
# The reasoning before an answer, up to its last end tag; everything if there is no end tag. Some servers leave out the
# start tag.
_THOUGHTS = re.compile(r"\A.*</(?:think|thinking|reasoning)>|\A\s*<(?:think|thinking|reasoning)>.*", re.DOTALL)
_MOST_BRACKETS = 2000  # the most attempts to read JSON in one answer


class UnusableAnswerError(ValueError):
    """An answer that can't be used. The message is ours and may be sent back to the judge."""


class Grade(NamedTuple):
    """How relevant a document is, and why."""

    grade: int
    reason: str


class Order(NamedTuple):
    """An order of a window's documents.

    :param positions: ``[documents]``, best first: those that were ranked, then the others in their old order.
    :param named: How many were ranked; 0 means that none is relevant.
    :param repeated: Repeated ids, which were ignored.
    :param invented: Invented ids, which were ignored.
    """

    positions: tuple[int, ...]
    named: int
    repeated: int = 0
    invented: int = 0


def parse_grade(text: str, identity: str) -> Grade:
    """Read the answer to a request for one grade.

    :param identity: The document's id in that request, which the answer must contain.
    :raises UnusableAnswerError: If it has no grade from 0 to 3 for that id, or two different ones.
    """
    found = [value for value in _objects(_THOUGHTS.sub("", text)) if isinstance(value, dict) and "grade" in value]
    if not found:
        raise UnusableAnswerError("there was no JSON object with a grade in it")
    mine = [value for value in found if _word(value.get("id")) == identity]
    if not mine:
        raise UnusableAnswerError("it did not name the document's id")
    grades = {_grade(value["grade"]) for value in mine}
    if len(grades) > 1:
        raise UnusableAnswerError("it contained more than one grade")
    reason = mine[-1].get("reason")
    return Grade(grades.pop(), " ".join(reason.split()) if isinstance(reason, str) else "")


def _grade(value: Any) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:4])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or value not in GRADES:
        raise UnusableAnswerError("the grade was not one of 0, 1, 2 and 3")
    return int(value)


def parse_ranking(text: str, ids: Sequence[str]) -> Order:
    """Read the answer to a request for an order.

    :param ids: ``[documents]``, their ids in that request.
    :raises UnusableAnswerError: If it has no list of ids, several different ones, or more invented ids than real ones.
    """
    text = _THOUGHTS.sub("", text)
    lists = [value["ranking"] for value in _objects(text) if isinstance(value, dict) and "ranking" in value]
    lists = lists or [value for value in _objects(text) if isinstance(value, list) and value]
    lists = lists or [chain for chain in [_chain(text)] if any(word in ids for word in chain)]
    lists = [value for value in lists if isinstance(value, list)]
    if not lists:
        raise UnusableAnswerError("there was no JSON object with a list named ranking in it")
    # The judge may repeat the format from the prompt, which is not an order.
    orders = {order for order in (_order(value, ids) for value in lists) if order is not None}
    if not orders:
        raise UnusableAnswerError("most of the ids it named were not among those given")
    if len(orders) > 1:
        raise UnusableAnswerError("it contained more than one ranking")
    return orders.pop()


def _chain(text: str) -> list[str]:
    """A permutation as RankGPT's models write it, ``[a] > [b] > [c]``; empty if the text is anything else."""
    words = [_word(part) for part in text.split(">")]
    return words if all(word.isalnum() for word in words) else []


def _order(listed: list[Any], ids: Sequence[str]) -> Order | None:
    """The order that a list gives; ``None`` if most of its ids are invented."""
    places = {identity: place for place, identity in enumerate(ids)}
    named: dict[int, None] = {}
    repeated = invented = 0
    for item in listed:
        word = _word(item.get("id") if isinstance(item, dict) else item)
        if word not in places:
            invented += 1
        elif places[word] in named:
            repeated += 1
        else:
            named[places[word]] = None
    if invented > len(named):
        return None
    return Order(tuple(named | dict.fromkeys(range(len(ids)))), len(named), repeated, invented)


def _word(value: Any) -> str:
    return value.strip(" \t\n[]\"'`").lower() if isinstance(value, str) else ""


def _objects(text: str) -> Iterator[Any]:
    """The outermost JSON objects and lists in a text, without those that repeat a key."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)
    position = 0
    for _ in range(_MOST_BRACKETS):
        starts = [start for start in (text.find("{", position), text.find("[", position)) if start >= 0]
        if not starts:
            return
        try:
            value, position = decoder.raw_decode(text, min(starts))
        except ValueError:
            position = min(starts) + 1
        except RecursionError:  # no real answer is nested like that, and each attempt takes long
            return
        else:
            yield value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is repeated")
    return made
