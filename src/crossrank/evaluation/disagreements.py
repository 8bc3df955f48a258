"""The queries on which two systems differ most, the top documents of each, and optionally explanations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from crossrank.errors import InputError
from crossrank.evaluation.explain import Explanation
from crossrank.evaluation.result import Evaluation, Shown

# (query, document) texts -> their explanations, such as partial(explain_pairs, model).
Explainer = Callable[[Sequence[tuple[str, str]]], Sequence[Explanation]]
SHOWN = 3


@dataclass(frozen=True)
class Disagreement:
    """A query on which two systems differ.

    :param query: Its identifier.
    :param before: The measure's value with the first system, ``after`` with the second.
    :param top: System -> its first three documents, for all systems of the evaluation.
    :param explanations: Document -> explanation of its score.
    """

    query: str
    before: float
    after: float
    top: Mapping[str, Sequence[Shown]]
    explanations: Mapping[str, Explanation] = field(default_factory=dict)

    @property
    def difference(self) -> float:
        """By how much the second system is better on this query."""
        return self.after - self.before


def disagreements(
    evaluation: Evaluation,
    a: str,
    b: str,
    *,
    measure: str | None = None,
    most: int = 10,
    explainer: Explainer | None = None,
) -> list[Disagreement]:
    """Find the queries on which two systems differ, largest difference first.

    :param a: The name of the first system; ``b`` of the second.
    :param measure: By default the evaluation's main one.
    :param most: The most queries. Queries without a difference are not included.
    :param explainer: For each query, explains the first document of ``b``, and the first document of ``a`` that is not
        the same.
    :raises InputError: If a system or the measure is unknown.
    """
    named = {system.name: system for system in evaluation.systems}
    for name in (a, b):
        if name not in named:
            raise InputError(f"There is no system {name!r}. The evaluation has {', '.join(map(repr, named))}.")
    measure = evaluation.measures[0] if measure is None else measure
    if measure not in evaluation.measures:
        raise InputError(f"{measure!r} was not measured. The evaluation has {', '.join(evaluation.measures)}.")
    before, after = named[a].values[measure], named[b].values[measure]
    differing = [i for i in range(len(evaluation.queries)) if before[i] != after[i]]
    differing.sort(key=lambda i: (-abs(after[i] - before[i]), i))
    found = []
    for i in differing[:most]:
        query = evaluation.queries[i]
        top = {name: tuple(system.top[query])[:SHOWN] for name, system in named.items()}
        explanations: dict[str, Explanation] = {}
        if explainer is not None:
            ours = [shown.document for shown in top[b][:1]]
            theirs = [shown.document for shown in top[a] if shown.document not in ours][:1]
            texts = [(evaluation.query_texts[query], evaluation.document_texts[name]) for name in (*ours, *theirs)]
            explanations = dict(zip((*ours, *theirs), explainer(texts), strict=True))
        found.append(Disagreement(query, float(before[i]), float(after[i]), top, explanations))
    return found
