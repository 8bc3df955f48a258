"""The answer in words: does it help, by how much, how sure, what does it cost."""

from __future__ import annotations

from crossrank.evaluation.measures import shown
from crossrank.evaluation.result import LEVEL, Evaluation, PairedComparison, System


def candidate(evaluation: Evaluation) -> System:
    """The system that the answer is about: the best reranker on the main measure, else the best of the others."""
    measure = evaluation.measures[0]
    rerankers = [one for one in evaluation.systems if one.kind == "cross-encoder"]
    return max(rerankers or evaluation.systems[1:] or evaluation.systems, key=lambda one: one.mean(measure))


def compared(evaluation: Evaluation, before: str, after: str, measure: str | None = None) -> PairedComparison | None:
    """Find a comparison, turned round where it was made the other way."""
    measure = measure or evaluation.measures[0]
    for one in evaluation.comparisons:
        if one.measure != measure or {one.before, one.after} != {before, after}:
            continue
        if one.before == before:
            return one
        low, high = one.interval
        return PairedComparison(
            before, after, measure, -one.difference, (-high, -low), one.p, one.p_corrected, one.lost, one.won, one.tied
        )
    return None


def headline(evaluation: Evaluation) -> tuple[str, str]:
    """The verdict, and ``"good"``, ``"bad"`` or ``"open"``."""
    after = candidate(evaluation)
    found = compared(evaluation, evaluation.systems[0].name, after.name)
    if found is None:
        return "Nothing to compare.", "open"
    if found.p_corrected >= LEVEL:
        return "No difference that chance could not have made.", "open"
    if found.difference < 0:
        return "No, it makes the ranking worse.", "bad"
    for other in evaluation.systems:
        beside = compared(evaluation, other.name, after.name) if other.kind == "bi-encoder" else None
        if beside is not None and (beside.p_corrected >= LEVEL or beside.difference < 0):
            return "It helps, but not measurably more than the bi-encoder does.", "open"
    return "Yes, it helps.", "good"


def summary(evaluation: Evaluation) -> list[str]:
    """The answer, a few sentences."""
    measure = evaluation.measures[0]
    first, after = evaluation.systems[0], candidate(evaluation)
    found = compared(evaluation, first.name, after.name)
    if found is None:
        return []
    verb = "raises" if found.difference > 0 else "lowers" if found.difference < 0 else "moves"
    low, high = found.interval
    count = len(evaluation.queries)
    queries = f"{count} {'query' if count == 1 else 'queries'}"
    chance = probability(found.p_corrected)
    said = [
        f"{after.name} {verb} {shown(measure)} from {first.mean(measure):.3f} ({first.name}) to "
        f"{after.mean(measure):.3f}: {found.difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f}).",
        f"Of {queries} it is better on {found.won}, worse on {found.lost} and the same on {found.tied}. "
        f"Chance alone would make such a difference with a probability of {chance}.",
        *([found.doubt] if found.doubt else []),
    ]
    beside = [
        (one, compared(evaluation, one.name, after.name)) for one in evaluation.systems if one.kind == "bi-encoder"
    ]
    said += [
        f"Against the bi-encoder {other.name} ({other.mean(measure):.3f}) it is {against.difference:+.3f} "
        f"(p = {probability(against.p_corrected)})."
        for other, against in beside
        if against is not None
    ]
    if after.milliseconds is not None and len(after.milliseconds):
        said.append(f"It costs {after.milliseconds.mean():,.0f} ms a query.")
    said += [curve.advice for curve in evaluation.curves if curve.system == after.name]
    return said


def probability(p: float) -> str:
    """A p-value as it is read."""
    return "under 0.001" if p < 0.001 else f"{p:.3f}"
