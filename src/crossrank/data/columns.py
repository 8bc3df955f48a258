"""What the columns of common training files are called, and which forms they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Role -> names, first come first served; letters' case does not matter. They are those of sentence-transformers' data
# sets and trainers (anchor, sentence1, sentence_0), MS MARCO (query, passage), NLI and question answering.
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
# Beside a list of shown documents, "score" is what the search gave them and no judgement.
FEEDBACK_LABELS = ("label", "labels", "grade", "grades")
# negative_1, negative_2, ... belong to the role without a number.
_NUMBERED = re.compile(r"(.+?)_?\d+$")


@dataclass(frozen=True)
class Form:
    """A form of training data.

    :param name: As it is called in messages.
    :param needs: The roles that must be there.
    :param any_of: At least one of these as well, if there are any.
    """

    name: str
    needs: tuple[str, ...]
    any_of: tuple[str, ...] = ()


# The first that fits is taken.
FORMS: tuple[Form, ...] = (
    Form("feedback", ("query", "documents"), ("label", "stars", "votes", "clicked")),
    Form("feedback", ("query", "documents")),
    Form("triplets", ("query",), ("positive", "negative")),
    Form("pairs", ("query", "document", "label")),
    # Labelled by a teacher alone: distillation.
    Form("pairs", ("query", "document", "teacher")),
)


def roles_of(names: Iterable[str], given: Mapping[str, str]) -> dict[str, list[str]]:
    """Which columns play which role.

    :param names: The columns of a file.
    :param given: Role -> column, where the caller says it.
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
    """Find the form that these roles make."""
    for form in FORMS:
        if all(role in roles for role in form.needs) and (
            not form.any_of or any(role in roles for role in form.any_of)
        ):
            return form
    return None
