"""The disagreements in the report: the top documents of each system, and explanations of the reranker's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossrank.evaluation.bm25_overlap import matches
from crossrank.evaluation.disagreements import Disagreement, Explainer, disagreements
from crossrank.evaluation.explain import Explanation, Span, segments
from crossrank.evaluation.measures import display_name
from crossrank.evaluation.report.markup import Html, join, tag
from crossrank.evaluation.report.words import candidate
from crossrank.evaluation.result import Evaluation, Shown

MOST = 8
_LONGEST = 280  # characters of a document in a list
# Shares of the largest weight from which a span gets the next darker colour.
_LEVELS = (0.15, 0.4, 0.7)


def cases(evaluation: Evaluation, explanations: Mapping[str, Explainer]) -> Html:
    """Show where the best reranker and its baseline (the bi-encoder, or else the first stage) differ most."""
    after = candidate(evaluation)
    beaten = next((one for one in evaluation.systems if one.kind == "bi-encoder"), evaluation.systems[0])
    if after is beaten:
        return Html("")
    explainer = explanations.get(after.name)
    found = disagreements(evaluation, beaten.name, after.name, most=MOST, explainer=explainer)
    measure = display_name(evaluation.measures[0])
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
        tag("mark", "Words that raise the score", class_="for-2"),
        " and ",
        tag("mark", "words that lower it", class_="not-2"),
        ": the raw score changes when they are left out. The sentence with the largest weight is ",
        tag("span", "underlined", class_="best"),
        ". If the evidence occurs twice, each copy gets a small weight. Words that work only together each get the "
        "weight of all of them.",
        class_="note",
    )


def _case(evaluation: Evaluation, one: Disagreement, before: str, after: str, measure: str) -> Html:
    texts = evaluation.document_texts
    gain = f"{measure} {one.before:.3f} with {before}, {one.after:.3f} with {after} ({one.difference:+.3f})"
    tops = (
        tag("div", tag("h4", name), tag("ol", *(_shown(texts, each) for each in top))) for name, top in one.top.items()
    )
    whys = [_why(document, each) for document, each in one.explanations.items()]
    why = tag("details", tag("summary", f"Why {after} ranks them like this"), *whys) if whys else ""
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
        cost += f" {one.tokens_cut} tokens were cut; text that the model did not read has no weight."
    top = one.top(1) if one.sentences else ()
    return tag(
        "div",
        tag("p", marked(one.query, one.query_spans), class_="why", dir="auto"),
        tag("p", marked(one.document, one.words or one.sentences, top), class_="why", dir="auto"),
        tag("p", f"{cost} BM25 matches {matched}.", class_="note"),
    )


def marked(text: str, spans: Sequence[Span], best: Sequence[Span] = ()) -> Html:
    """Colour spans by their weight, and underline the best."""
    parts: list[object] = []
    for piece, span, share, underline in segments(text, spans, best):
        level = sum(abs(share) >= least for least in _LEVELS)
        part: object = piece
        if span is not None and level:
            kind = f"{'for' if share > 0 else 'not'}-{level}"
            part = tag("mark", piece, class_=kind, title=f"{span.weight:+.3f}")
        parts.append(tag("span", part, class_="best") if underline else part)
    return join(*parts)
