"""An evaluation made by hand: what a report is written from, without a model."""

from __future__ import annotations

import numpy as np

from crossrank.evaluation.explain import Explanation, Span
from crossrank.evaluation.result import (
    DepthCurve,
    DepthPoint,
    Evaluation,
    Histogram,
    KnownProblem,
    PairedComparison,
    Shown,
    System,
)

HOSTILE = "</p><script>document.title='taken'</script><img src=x onerror=alert(1)> \" ' & \x00 \ud800 \u202e"
MEASURES = ("nDCG@10", "RR@10")


def evaluation(name: str = "made", queries: int = 40, *, hostile: bool = False, seed: int = 0) -> Evaluation:
    chosen = np.random.default_rng(seed)
    ids = [f"q{i}" for i in range(queries)]
    texts = {query: f"what is the answer to number {i}" for i, query in enumerate(ids)}
    documents = {
        f"d{i}": f"Sentence one of {i}. The answer to number {i} is {i * i}. And more." for i in range(queries)
    }
    if hostile:
        texts[ids[0]] = HOSTILE
        documents["d0"] = HOSTILE * 3 + "x" * 500
    systems = []
    for place, (title, kind) in enumerate(
        (("BM25", "first stage"), ("all-MiniLM-L6-v2", "bi-encoder"), ("bundled", "cross-encoder"))
    ):
        values = {measure: np.clip(chosen.normal(0.35 + 0.15 * place, 0.3, queries), 0, 1) for measure in MEASURES}
        if hostile:
            values["nDCG@10"][0] = place / 2  # the greatest difference, so that it is shown
        systems.append(
            System(
                name=title + (HOSTILE if hostile else ""),
                kind=kind,
                values=values,
                intervals={m: (float(v.mean()) - 0.04, float(v.mean()) + 0.05) for m, v in values.items()},
                top={
                    q: [Shown(f"d{(i + j) % queries}", 2.5 - j, (1, None, 0)[j]) for j in range(3)]
                    for i, q in enumerate(ids)
                },
                milliseconds=chosen.gamma(4, 6 * place, queries) if place else None,
                pairs=queries * 100 if place else 0,
                seconds=3.25 * place,
                pairs_cut=7 * place,
                ties=3 - place,
                facts={"engine": "OpenVINO", "precision": "bfloat16"} if place else {},
            )
        )
    comparisons = [
        _comparison(a, b, measure) for measure in MEASURES for i, a in enumerate(systems) for b in systems[i + 1 :]
    ]
    edges = np.linspace(-8, 8, 21)
    last = systems[-1].name
    points = [DepthPoint(d, 0.4 + 0.05 * i - 0.01 * i * i, 0.9 * d) for i, d in enumerate((5, 10, 20, 50, 100))]
    return Evaluation(
        dataset=name + (HOSTILE if hostile else ""),
        queries=ids,
        query_texts=texts,
        document_texts=documents,
        measures=MEASURES,
        systems=systems,
        comparisons=comparisons,
        curves=[DepthCurve(last, "nDCG@10", points, 20, None, "Re-rank 20: more candidates bring nothing measurable.")],
        histograms=[
            Histogram(
                last,
                edges,
                np.histogram(chosen.normal(2, 2, 300), edges)[0],
                np.histogram(chosen.normal(-3, 2, 3000), edges)[0],
                [(i / 10 + 0.05, min(1.0, i / 9), 100 + 10 * i) for i in range(10)],
            )
        ],
        findings=[KnownProblem("many-cut", last, f"{last} read only a part of the pair in 12% of the pairs.")],
        left_out={"judgements of unknown documents" + (HOSTILE if hostile else ""): 3},
        settings={"depth": 100, "seed": 0, "test": "paired permutation test, sign flips", "versions": {"numpy": "2.0"}},
    )


def explained(pairs: list[tuple[str, str]]) -> list[Explanation]:
    """Weights by hand: the second character of each text for it, the fourth against it."""
    return [
        Explanation(
            query=query,
            document=document,
            logit=1.5,
            query_spans=_spans(query),
            sentences=(),
            words=_spans(document),
            words_of=(1, 1),
            grain={"query": 1, "sentences": 1, "words": 1},
            tokens_cut=0,
            pairs=5,
            seconds=0.25,
        )
        for query, document in pairs
    ]


def _spans(text: str) -> tuple[Span, ...]:
    return Span(1, 2, text[1:2], 2.0), Span(3, 4, text[3:4], -1.0)


def _comparison(a: System, b: System, measure: str) -> PairedComparison:
    gains = b.values[measure] - a.values[measure]
    mean = float(gains.mean())
    return PairedComparison(
        before=a.name,
        after=b.name,
        measure=measure,
        queries=len(gains),
        means=(a.mean(measure), b.mean(measure)),
        difference=mean,
        interval=(mean - 0.06, mean + 0.06),
        deviation=float(gains.std(ddof=1)),
        p=0.0004,
        p_corrected=0.0123,
        won=int((gains > 0).sum()),
        lost=int((gains < 0).sum()),
        tied=int((gains == 0).sum()),
    )
