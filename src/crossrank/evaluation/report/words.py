"""The result in words: whether the reranker helps, by how much, how certain that is, and what it costs."""

from __future__ import annotations

from crossrank.evaluation.measures import display_name
from crossrank.evaluation.result import LEVEL, Evaluation, PairedComparison, System


def candidate(evaluation: Evaluation) -> System:
    """Find the best reranker on the main measure, or the best other system if there is no reranker."""
    measure = evaluation.measures[0]
    rerankers = [one for one in evaluation.systems if one.kind == "cross-encoder"]
    return max(rerankers or evaluation.systems[1:] or evaluation.systems, key=lambda one: one.mean(measure))


def compared(evaluation: Evaluation, before: str, after: str, measure: str | None = None) -> PairedComparison | None:
    """Find a comparison, reversed if necessary."""
    measure = measure or evaluation.measures[0]
    for one in evaluation.comparisons:
        if one.measure == measure and {one.before, one.after} == {before, after}:
            return one if one.before == before else one.reversed()
    return None


def headline(evaluation: Evaluation) -> tuple[str, str]:
    """The verdict, and ``"good"``, ``"bad"`` or ``"open"``."""
    after = candidate(evaluation)
    found = compared(evaluation, evaluation.systems[0].name, after.name)
    if found is None:
        return "Nothing to compare.", "open"
    if found.p_corrected >= LEVEL:
        return "The difference is not significant.", "open"
    if found.difference < 0:
        return "No, it makes the ranking worse.", "bad"
    for other in evaluation.systems:
        found = compared(evaluation, other.name, after.name) if other.kind == "bi-encoder" else None
        if found is not None and (found.p_corrected >= LEVEL or found.difference < 0):
            return "It helps, but not measurably more than the bi-encoder does.", "open"
    return "Yes, it helps.", "good"


def summary(evaluation: Evaluation) -> list[str]:
    """Describe the result in a few sentences."""
    measure = evaluation.measures[0]
    first, after = evaluation.systems[0], candidate(evaluation)
    found = compared(evaluation, first.name, after.name)
    if found is None:
        return []
    verb = "raises" if found.difference > 0 else "lowers" if found.difference < 0 else "moves"
    low, high = found.interval
    count = len(evaluation.queries)
    queries = f"{count} {'query' if count == 1 else 'queries'}"
    sentences = [
        f"{after.name} {verb} {display_name(measure)} from {first.mean(measure):.3f} ({first.name}) to "
        f"{after.mean(measure):.3f}: {found.difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f}).",
        f"Of {queries} it is better on {found.won}, worse on {found.lost} and the same on {found.tied}. "
        f"{p_value(found.p_corrected)}: the probability that chance alone makes such a difference.",
        *([found.doubt] if found.doubt else []),
    ]
    bi_encoders = [
        (one, compared(evaluation, one.name, after.name)) for one in evaluation.systems if one.kind == "bi-encoder"
    ]
    sentences += [
        f"Against the bi-encoder {other.name} ({other.mean(measure):.3f}) it is {against.difference:+.3f} "
        f"({p_value(against.p_corrected)})."
        for other, against in bi_encoders
        if against is not None
    ]
    if after.milliseconds_per_query is not None:
        sentences.append(f"It takes {after.milliseconds_per_query:,.0f} ms per query.")
    sentences += [curve.advice for curve in evaluation.curves if curve.system == after.name]
    return sentences


def p_value(p: float) -> str:
    """Format a p-value: ``p = 0.012``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
