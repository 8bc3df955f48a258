"""The disagreements of the report: what each system put on top, and which words made the reranker say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from crossrank.evaluation.bm25_overlap import matches
from crossrank.evaluation.disagreements import Disagreement, Explainer, disagreements
from crossrank.evaluation.explain import Explanation, Span
from crossrank.evaluation.measures import shown
from crossrank.evaluation.report.markup import Html, join, tag
from crossrank.evaluation.report.words import candidate
from crossrank.evaluation.result import Evaluation, Shown

MOST = 8
_LONGEST = 280  # characters of a document in a list
# Shares of the greatest weight from which a span gets the next darker colour.
_LEVELS = (0.15, 0.4, 0.7)


def cases(evaluation: Evaluation, explanations: Mapping[str, Explainer]) -> Html:
    """Show where the answer's system and the one to beat (the bi-encoder, else the first stage) differ most."""
    after = candidate(evaluation)
    beaten = next((one for one in evaluation.systems if one.kind == "bi-encoder"), evaluation.systems[0])
    if after is beaten:
        return Html("")
    explainer = explanations.get(after.name)
    found = disagreements(evaluation, beaten.name, after.name, most=MOST, explainer=explainer)
    measure = shown(evaluation.measures[0])
    about = f"The {len(found)} queries on which {after.name} and {beaten.name} differ most in {measure}."
    if not found:
        about = f"{after.name} and {beaten.name} have the same {measure} on every query."
    made = [tag("h2", "Where they disagree"), tag("p", about)]
    if any(one.explanations for one in found):
        made.append(_legend())
    return join(*made, *(_case(evaluation, one, beaten.name, after.name, measure) for one in found))


def _legend() -> Html:
    return tag(
        "p",
        tag("mark", "Words that speak for it", class_="for-2"),
        " and ",
        tag("mark", "words that speak against it", class_="not-2"),
        ": what the raw score loses, or gains, when they alone are left out. The heaviest sentence is ",
        tag("span", "underlined", class_="best"),
        ". Evidence that stands there twice hides itself, and words that work together each get the weight of all.",
        class_="note",
    )


def _case(evaluation: Evaluation, one: Disagreement, before: str, after: str, measure: str) -> Html:
    texts = evaluation.document_texts
    gain = f"{measure} {one.before:.3f} with {before}, {one.after:.3f} with {after} ({one.difference:+.3f})"
    tops = (
        tag("div", tag("h4", name), tag("ol", *(_shown(texts, each) for each in top))) for name, top in one.top.items()
    )
    whys = [_why(document, each) for document, each in one.explanations.items()]
    why = tag("details", tag("summary", f"Why {after} says so"), *whys) if whys else ""
    title = tag("h3", evaluation.query_texts[one.query], dir="auto")
    return tag("article", title, tag("p", gain, class_="note"), tag("div", *tops, class_="tops"), why, class_="case")


def _shown(texts: Mapping[str, str], one: Shown) -> Html:
    text = " ".join(texts.get(one.document, one.document).split())
    cut = text if len(text) <= _LONGEST else text[:_LONGEST].rstrip() + "…"
    judged = "not judged" if one.grade is None else f"grade {one.grade}" if one.grade > 0 else "not relevant"
    hit = "grade hit" if one.grade and one.grade > 0 else "grade"
    return tag(
        "li", tag("span", cut, class_="text", dir="auto"), tag("span", f"{judged} · {one.score:.3f}", class_=hit)
    )


def _why(document: str, one: Explanation) -> Html:
    matched = ", ".join(f"{match.term} ×{match.count}" for match in matches(one.query, one.document)) or "nothing"
    cost = f"{document}: raw score {one.logit:.3f}. {one.pairs} pairs scored in {one.seconds:.2f} s."
    if one.tokens_cut:
        cost += f" {one.tokens_cut} tokens were cut; what the model did not read has no weight."
    top = one.top(1) if one.sentences else ()
    return tag(
        "div",
        tag("p", marked(one.query, one.query_spans), class_="why", dir="auto"),
        tag("p", marked(one.document, one.words or one.sentences, top), class_="why", dir="auto"),
        tag("p", f"{cost} BM25 matches {matched}.", class_="note"),
    )


def marked(text: str, spans: Sequence[Span], best: Sequence[Span] = ()) -> Html:
    """Colour spans by their weight, and underline the best."""
    most = max((abs(span.weight) for span in spans), default=0.0)
    kinds = {(span.start, span.end): (_kind(span, most), f"{span.weight:+.3f}") for span in spans}
    cuts = sorted({0, len(text)} | {edge for span in (*spans, *best) for edge in (span.start, span.end)})
    bounds = iter(sorted(kinds))
    bound = next(bounds, None)
    parts = []
    for start, end in pairwise(cuts):
        while bound is not None and bound[1] <= start:
            bound = next(bounds, None)
        piece: object = text[start:end]
        if bound is not None and bound[0] <= start:
            kind, weight = kinds[bound]
            piece = tag("mark", piece, class_=kind, title=weight) if kind else piece
        if any(span.start <= start and end <= span.end for span in best):
            piece = tag("span", piece, class_="best")
        parts.append(piece)
    return join(*parts)


def _kind(span: Span, most: float) -> str:
    share = abs(span.weight) / most if most else 0.0
    level = sum(share >= least for least in _LEVELS)
    return f"{'for' if span.weight > 0 else 'not'}-{level}" if level else ""
