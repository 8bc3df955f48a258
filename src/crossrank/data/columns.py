"""Names of the columns in common training files, and the forms of data that they make up."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

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


def form_of(roles: Collection[str]) -> str | None:
    """Name the form of data with these roles: ``"feedback"``, ``"triplets"`` or ``"pairs"``; ``None`` for no form."""
    if "query" not in roles:
        return None
    if "documents" in roles:
        return "feedback"
    if "positive" in roles or "negative" in roles:
        return "triplets"
    # Pairs with only a teacher's scores are for distillation.
    return "pairs" if "document" in roles and ("label" in roles or "teacher" in roles) else None
