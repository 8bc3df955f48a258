"""Turn groups into the columns that a loss reads. Which documents form a list or a triplet depends only on the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossrank.data.judgements import Group, Judgement
from crossrank.errors import InputError
from crossrank.training.settings import Settings


@dataclass(frozen=True)
class Columns:
    """The input of a loss.

    :param data: Column -> values, in the order that sentence-transformers expects.
    :param rows: Rows per epoch: all of them, or for in-batch losses one for each positive of a query.
    :param pairs_per_row: The most pairs in a row.
    :param left_out: Why queries could not be used -> how many.
    """

    data: Mapping[str, list[Any]]
    rows: int
    pairs_per_row: int
    left_out: Mapping[str, int]


def pairs(groups: Sequence[Group], settings: Settings) -> Columns:
    """``query``, ``document``, ``label``."""
    return _pairs(groups, lambda one: one.label)


def teacher_pairs(groups: Sequence[Group], settings: Settings) -> Columns:
    """``query``, ``document`` and the teacher's score as ``label``.

    :raises InputError: If a pair has no teacher score.
    """
    return _pairs(groups, lambda one: _teacher(one, settings))


def _pairs(groups: Sequence[Group], label: Callable[[Judgement], float]) -> Columns:
    judged = [one for group in groups for one in group.judged]
    data: dict[str, list[Any]] = {
        "query": [one.query for one in judged],
        "document": [one.document for one in judged],
        "label": list(map(label, judged)),
    }
    return Columns(data, len(judged), 1, {})


def lists(groups: Sequence[Group], settings: Settings) -> Columns:
    """``query``, ``documents``, ``labels``: a row for each query with different labels, or several if it is long.

    Every list contains a document with the query's highest label.
    """
    data: dict[str, list[Any]] = {"query": [], "documents": [], "labels": []}
    longest = 1
    for group in groups:
        if not group.can_rank:
            continue
        order = _shuffled(list(group.judged), group.query, settings.seed)
        order.sort(key=lambda one: -one.label)
        highest = [one for one in order if one.label == order[0].label]
        rest = order[len(highest) :]
        # Each list gets its share of the best documents and of the rest.
        count = -(-len(order) // settings.list_size)
        for i in range(count):
            chosen = (highest[i::count] or highest[:1]) + rest[i::count]
            if len({one.label for one in chosen}) > 1:
                data["query"].append(group.query)
                data["documents"].append([one.document for one in chosen])
                data["labels"].append([one.label for one in chosen])
                longest = max(longest, len(chosen))
    return Columns(data, len(data["query"]), longest, _one_label(groups, lambda group: group.can_rank))


def triplets(groups: Sequence[Group], settings: Settings) -> Columns:
    """``query``, ``positive`` and, if any query has negatives, ``negative_1`` ...; see :func:`_triplets_of`.

    An epoch has one row for each positive, see :mod:`crossrank.training.in_batch`. Every row has
    the same columns: a query without negatives has its positive there, which the loss ignores.
    """
    most = settings.negatives
    usable = [group for group in groups if group.positives]
    names = [f"negative_{i + 1}" for i in range(most)] if any(group.negatives for group in usable) else []
    data: dict[str, list[Any]] = {name: [] for name in ("query", "positive", *names)}
    for group in usable:
        for positive, negatives in _triplets_of(group, most, settings.seed):
            data["query"].append(group.query)
            data["positive"].append(positive.document)
            for name, negative in zip(names, negatives or [positive] * most, strict=False):
                data[name].append(negative.document)
    left_out = {"queries without a positive": len(groups) - len(usable)} if len(usable) < len(groups) else {}
    return Columns(data, len(set(zip(data["query"], data["positive"], strict=True))), 1 + len(names), left_out)


def margins(groups: Sequence[Group], settings: Settings) -> Columns:
    """``query``, ``positive``, ``negative`` and as ``label`` the difference of their teacher scores.

    :raises InputError: If a pair has no teacher score.
    """
    data: dict[str, list[Any]] = {"query": [], "positive": [], "negative": [], "label": []}
    both = [group for group in groups if group.positives and group.negatives]
    for group in both:
        for positive, negatives in _triplets_of(group, settings.negatives, settings.seed):
            for negative in dict.fromkeys(negatives):
                data["query"].append(group.query)
                data["positive"].append(positive.document)
                data["negative"].append(negative.document)
                data["label"].append(_teacher(positive, settings) - _teacher(negative, settings))
    left_out = _one_label(groups, lambda group: bool(group.positives and group.negatives))
    return Columns(data, len(data["query"]), 2, left_out)


def _triplets_of(group: Group, most: int, seed: int) -> list[tuple[Judgement, list[Judgement]]]:
    """Return positives with ``most`` negatives each, so that every positive and every negative is used.

    If there are too few of either, they are repeated.
    """
    positives, negatives = group.positives, _shuffled(group.negatives, group.query, seed)
    count = max(len(positives), -(-len(negatives) // most))
    return [
        (
            positives[i % len(positives)],
            [negatives[(i * most + k) % len(negatives)] for k in range(most)] if negatives else [],
        )
        for i in range(count)
    ]


def _shuffled(judged: list[Judgement], query: str, seed: int) -> list[Judgement]:
    return random.Random(f"{seed}\n{query}").sample(judged, len(judged))


def _one_label(groups: Sequence[Group], usable: Callable[[Group], bool]) -> Mapping[str, int]:
    unused = sum(not usable(group) for group in groups)
    return {"queries whose documents all have the same label": unused} if unused else {}


def _teacher(one: Judgement, settings: Settings) -> float:
    if one.teacher is None:
        raise InputError(
            f"{one.place}: --loss {settings.loss} learns from teacher scores, but this pair has none. Give them in "
            "the column 'teacher_score' or in a file with --teacher-scores."
        )
    return one.teacher
