"""Names of the columns in common training files, and the forms of data that they make up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Role -> column names, in order of preference; case does not matter. They are used by sentence-transformers (anchor,
# sentence1, sentence_0), MS MARCO (query, passage), NLI and question answering data.
ROLES: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "question", "anchor", "sentence1", "sentence_0", "sentence_a", "text1", "claim"),
    "document": (
        *("document", "passage", "text", "answer", "response", "content"),
        *("sentence2", "sentence_1", "sentence_b", "text2"),
    ),
    "label": ("label", "labels", "score", "scores", "relevance", "similarity", "grade", "grades"),
    "positive": ("positive", "positives", "pos", "positive_passages"),
    "negative": ("negative", "negatives", "neg", "hard_negatives", "negative_passages"),
    "teacher": ("teacher_score", "teacher_scores", "teacher"),
    "documents": ("documents", "shown", "results", "passages", "docs", "candidates"),
    "stars": ("stars", "ratings", "rating"),
    "votes": ("votes", "vote", "thumbs"),
    "clicked": ("clicked", "clicks", "clicked_positions"),
}
# With a list of shown documents, "score" is the score of the search and not a judgement.
FEEDBACK_LABELS = ("label", "labels", "grade", "grades")
# negative_1, negative_2, ... have the role of the name without a number.
_NUMBERED = re.compile(r"(.+?)_?\d+$")


@dataclass(frozen=True)
class Form:
    """A form of training data.

    :param name: Its name in messages.
    :param needs: The roles that are required.
    :param any_of: If not empty, at least one of these is required as well.
    """

    name: str
    needs: tuple[str, ...]
    any_of: tuple[str, ...] = ()


# The first that matches is used.
FORMS: tuple[Form, ...] = (
    Form("feedback", ("query", "documents"), ("label", "stars", "votes", "clicked")),
    Form("feedback", ("query", "documents")),
    Form("triplets", ("query",), ("positive", "negative")),
    Form("pairs", ("query", "document", "label")),
    # Labelled only by a teacher: distillation.
    Form("pairs", ("query", "document", "teacher")),
)


def roles_of(names: Iterable[str], given: Mapping[str, str]) -> dict[str, list[str]]:
    """Find the columns of each role.

    :param names: The columns of a file.
    :param given: Role -> column, as given by the caller.
    """
    there = list(names)
    lower = {name.lower(): name for name in reversed(there)}
    roles: dict[str, list[str]] = {}
    taken: set[str] = set()
    for role, column in given.items():
        if column in there:
            roles[role] = [column]
            taken.add(column)
    for role, known in ROLES.items():
        if role in roles or role in given:
            continue
        name = next((lower[name] for name in known if name in lower and lower[name] not in taken), None)
        if name is not None:
            roles[role] = [name]
            taken.add(name)
    if "documents" in roles and "label" not in given:
        roles.pop("label", None)
        if label := next((lower[name] for name in FEEDBACK_LABELS if name in lower), None):
            roles["label"] = [label]
    for role in ("positive", "negative"):
        more = [
            name
            for name in there
            if name not in taken and (numbered := _NUMBERED.match(name.lower())) and numbered[1] in ROLES[role]
        ]
        if more:
            roles.setdefault(role, []).extend(more)
    return roles


def form_of(roles: Mapping[str, object]) -> Form | None:
    """Find the form that matches these roles."""
    for form in FORMS:
        if all(role in roles for role in form.needs) and (
            not form.any_of or any(role in roles for role in form.any_of)
        ):
            return form
    return None
