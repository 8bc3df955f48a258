"""Feedback on one ranking: read from a request's body, checked against the ranking, turned into labels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossrank.errors import did_you_mean
from crossrank.validation import FieldError, shown

LONGEST_KEY, LONGEST_TEXT = 128, 10_000
FIELDS = ("request_id", "clicked", "helpful", "stars", "order", "missing", "comment", "user")


@dataclass(frozen=True)
class Judgement:
    """One user's feedback on one ranking. Documents are named by their index in the request.

    :param clicked: Documents that were clicked; empty if the user looked and clicked nothing; ``None`` if unknown.
    :param helpful: Document -> whether it helped.
    :param stars: Document -> 1 to 5.
    :param order: All documents shown, in the order that would be right.
    :param missing: What the user looked for and did not find.
    :param user: A key for the user; a later judgement of the same user replaces this one.
    """

    request_id: str
    clicked: tuple[int, ...] | None = None
    helpful: Mapping[int, bool] | None = None
    stars: Mapping[int, float] | None = None
    order: tuple[int, ...] | None = None
    missing: str | None = None
    comment: str | None = None
    user: str | None = None

    def check(self, documents: int, shown: Sequence[int]) -> None:
        """Check it against the ranking.

        :param documents: How many documents the request had.
        :param shown: Those that were shown, from the top.
        :raises FieldError: If it names documents that were not shown.
        """
        named = {"clicked": self.clicked, "helpful": self.helpful, "stars": self.stars, "order": self.order}
        seen = set(shown)
        for field, indices in named.items():
            for index in indices or ():
                if not 0 <= index < documents:
                    raise FieldError(
                        f"{field} names document {index}, but the request had {documents}: 0 to {documents - 1}. "
                        "Send the index of results[].index.",
                        field,
                    )
                if index not in seen:
                    raise FieldError(f"{field} names document {index}, which was not among those shown.", field)
        if self.order is not None and sorted(self.order) != sorted(shown):
            raise FieldError(
                f"order has {len(self.order)} documents, but must have each of the {len(shown)} shown exactly once. "
                "Send all their indices.",
                "order",
            )


def read_judgement(body: Mapping[str, Any]) -> Judgement:
    """Read the body of a request.

    :param body: A JSON object without nulls.
    :raises FieldError: If a field can't be used.
    """
    for name in body:
        if name not in FIELDS:
            raise FieldError(
                f"{name[:40]!r} is not a feedback field.{did_you_mean(name, FIELDS)} Fields are: {', '.join(FIELDS)}.",
                name[:40],
            )
    if "request_id" not in body:
        raise FieldError("request_id is missing. Send the id that the ranking's answer had.", "request_id")
    judgement = Judgement(
        request_id=_key(body, "request_id") or "",
        clicked=_indices(body, "clicked"),
        helpful=_helpful(body),
        stars=_stars(body),
        order=_indices(body, "order"),
        missing=_text(body, "missing"),
        comment=_text(body, "comment"),
        user=_key(body, "user"),
    )
    if all(body.get(name) is None for name in FIELDS[1:-1]):
        raise FieldError(f"The body has no feedback. Send one of: {', '.join(FIELDS[1:-1])}.")
    return judgement


def read_key(value: object, name: str) -> str:
    """Read a short identifier.

    :raises FieldError: If it is not one.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_KEY or not value.isprintable():
        raise FieldError(f"{name} is {shown(value)}. Send a printable string of 1 to {LONGEST_KEY} characters.", name)
    return value


def _key(body: Mapping[str, Any], name: str) -> str | None:
    return read_key(body[name], name) if name in body else None


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise FieldError(f"{name} is {shown(value)}, not a text. Send a string.", name)
    if len(value) > LONGEST_TEXT:
        raise FieldError(f"{name} has {len(value)} characters; the limit is {LONGEST_TEXT}. Shorten it.", name)
    return value


def _indices(body: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, list):
        raise FieldError(f"{name} is {shown(given)}, not a list. Send indices, such as [0, 2].", name)
    indices = tuple(_index(one, name) for one in given)
    if len(set(indices)) < len(indices):
        raise FieldError(f"{name} has an index twice. Send each once.", name)
    return indices


def _helpful(body: Mapping[str, Any]) -> dict[int, bool] | None:
    found = _by_index(body, "helpful")
    for index, value in (found or {}).items():
        if not isinstance(value, bool):
            raise FieldError(f"helpful of document {index} is {shown(value)}. Send true or false.", "helpful")
    return found


def _stars(body: Mapping[str, Any]) -> dict[int, float] | None:
    found = _by_index(body, "stars")
    for index, value in (found or {}).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 5:
            raise FieldError(f"stars of document {index} are {shown(value)}. Send a number from 1 to 5.", "stars")
    return found


def _by_index(body: Mapping[str, Any], name: str) -> dict[int, Any] | None:
    given = body.get(name)
    if given is None:
        return None
    if not isinstance(given, dict):
        raise FieldError(f'{name} is {shown(given)}, not an object. Send {{"0": ...}}, by index.', name)
    found = {_index(key, name): value for key, value in given.items() if value is not None}
    if len(found) < sum(value is not None for value in given.values()):
        raise FieldError(f"{name} has an index twice. Send each once.", name)
    return found


def _index(value: object, name: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        raise FieldError(f"{name} has {shown(value)} for an index. Send whole numbers from 0.", name)
    return value


# ---- labels


def labels_of_order(shown: Sequence[int], order: Sequence[int]) -> dict[int, float]:
    """Labels of the documents that the user moved, and of those they were moved past.

    The documents that kept their order among each other are the longest increasing run of old places in the new order;
    the others were moved. One that was moved up gets 1, and those it passed 0; one that was moved down gets 0, and
    those it passed get no label, because they may be better without being good. The rest gets no label either.

    :param shown: Documents as they were shown, from the top.
    :param order: The same documents in the right order.
    """
    place = {document: i for i, document in enumerate(shown)}
    kept = _longest_run([place[document] for document in order])
    labels: dict[int, float] = {}
    ups: list[int] = []
    for new, document in enumerate(order):
        if place[document] in kept:
            continue
        passed_up = [other for other in order[new + 1 :] if place[other] < place[document]]
        if passed_up:
            ups.append(document)
            labels.update(dict.fromkeys(passed_up, 0.0))
        else:
            labels[document] = 0.0
    labels.update(dict.fromkeys(ups, 1.0))
    return labels


def _longest_run(places: Sequence[int]) -> set[int]:
    """The longest increasing subsequence (by patience sorting)."""
    tops: list[int] = []
    before: dict[int, int | None] = {}
    for one in places:
        pile = bisect_left(tops, one)
        before[one] = tops[pile - 1] if pile else None
        tops[pile : pile + 1] = [one]
    run: set[int] = set()
    last: int | None = tops[-1] if tops else None
    while last is not None:
        run.add(last)
        last = before[last]
    return run
