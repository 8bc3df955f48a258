"""The section of the report about one evaluation."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation.disagreements import Explainer
from crossrank.evaluation.measures import display_name
from crossrank.evaluation.report.cases import cases
from crossrank.evaluation.report.charts import Charts
from crossrank.evaluation.report.markup import Html, join, table, tag
from crossrank.evaluation.report.words import candidate, compared, headline, p_value, summary
from crossrank.evaluation.result import Evaluation, System

# The most rows of a chart's table; the option --per-query writes all.
_ROWS = 2000


def section(evaluation: Evaluation, number: int, charts: Charts, explanations: Mapping[str, Explainer]) -> Html:
    """Make the section about one evaluation."""
    verdict, kind = headline(evaluation)
    sentences = summary(evaluation)
    return tag(
        "section",
        tag("p", f"Does it help? {evaluation.dataset}, {len(evaluation.queries)} queries", class_="over"),
        tag("h1", verdict, class_=kind),
        *(tag("p", sentence, class_="lead" if i < 2 else None) for i, sentence in enumerate(sentences)),
        _figures(evaluation),
        _findings(evaluation),
        tag("h2", "Figures"),
        _systems(evaluation),
        _comparisons(evaluation),
        tag("h2", "Charts"),
        tag("div", *_charts(evaluation, charts), class_="charts"),
        cases(evaluation, explanations),
        _left_out(evaluation),
        _settings(evaluation),
        id=f"dataset-{number}",
    )


def _figures(evaluation: Evaluation) -> Html:
    measure = evaluation.measures[0]
    first, after = evaluation.systems[0], candidate(evaluation)
    rows: list[tuple[str, str, str]] = [
        (f"{display_name(measure)}, {first.name}", f"{first.mean(measure):.3f}", _ends(first, measure)),
        (f"{display_name(measure)}, {after.name}", f"{after.mean(measure):.3f}", _ends(after, measure)),
    ]
    if found := compared(evaluation, first.name, after.name):
        rows.append(("Difference", f"{found.difference:+.3f}", p_value(found.p_corrected)))
    if after.milliseconds_per_query is not None:
        speed = _figure_or_dash(after.pairs_per_second, ",.0f", " pairs per second")
        rows.append(("A query takes", f"{after.milliseconds_per_query:,.0f} ms", speed))
    return tag("dl", *(tag("div", tag("dt", a), tag("dd", b, tag("small", c))) for a, b, c in rows), class_="figures")


def _findings(evaluation: Evaluation) -> Html:
    if not evaluation.findings:
        return Html("")
    items = (tag("li", one.text, data_code=one.code) for one in evaluation.findings)
    return join(tag("h2", "What to look out for"), tag("ul", *items, class_="findings"))


def _systems(evaluation: Evaluation) -> Html:
    measures = evaluation.measures
    head = ["System", *map(display_name, measures), "ms per query", "Pairs per second", "Pairs cut", "Ties"]
    rows = [
        [
            one.name,
            *(join(f"{one.mean(m):.3f}", tag("small", _ends(one, m))) for m in measures),
            _figure_or_dash(one.milliseconds_per_query, ",.1f"),
            _figure_or_dash(one.pairs_per_second, ",.0f"),
            _figure_or_dash(one.share_cut, ".1%"),
            one.ties,
        ]
        for one in evaluation.systems
    ]
    return table(head, rows, caption="Means over all queries, with the 95 % interval below", class_="systems")


def _comparisons(evaluation: Evaluation) -> Html:
    if not evaluation.comparisons:
        return Html("")
    head = ["Compared", "Measure", "Difference", "95 % interval", "p", "p corrected", "Won", "Lost", "Tied"]
    rows = [
        [
            f"{one.before} → {one.after}",
            display_name(one.measure),
            f"{one.difference:+.4f}",
            f"{one.interval[0]:+.4f} to {one.interval[1]:+.4f}",
            _p(one.p),
            _p(one.p_corrected),
            one.won,
            one.lost,
            one.tied,
        ]
        for one in evaluation.comparisons
    ]
    caption = "Every two systems, paired by query; corrected after Holm for all pairs on the measure"
    main = [row for row, one in zip(rows, evaluation.comparisons, strict=True) if one.measure == evaluation.measures[0]]
    whole = table(head, rows, caption=caption, class_="comparisons")
    if len(main) == len(rows):
        return whole
    return join(
        table(head, main, caption=f"{caption}; on the main measure", class_="comparisons-main"),
        _data("On every measure", whole),
    )


def _charts(evaluation: Evaluation, charts: Charts) -> list[Html]:
    measure = evaluation.measures[0]
    name = display_name(measure)
    first, after = evaluation.systems[0], candidate(evaluation)
    ordered = [one for one in evaluation.systems if one is not after] + [after]
    rows = [(one.name, one.mean(measure), *one.intervals[measure], f"{one.mean(measure):.3f}") for one in ordered]
    made = [
        _figure(
            f"{name} by system",
            "Means over the queries; the lines are 95 % intervals.",
            partial(charts.dots, rows),
        )
    ]
    if after is not first:
        made.append(_gain(evaluation, first, after, charts))
    for one in evaluation.histograms:
        key = join(_key("relevant"), f"relevant ({one.relevant.sum():,}) ", _key("irrelevant"))
        about = join(
            key, f"irrelevant ({one.irrelevant.sum():,}). Shares of each kind; the less they overlap, the better."
        )
        rows_of = [
            [f"{a:.3g} to {b:.3g}", int(r), int(i)]
            for a, b, r, i in zip(one.edges, one.edges[1:], one.relevant, one.irrelevant, strict=False)
        ]
        data = table(["Score", "Relevant", "Irrelevant"], rows_of, caption="Judged pairs", class_="histogram")
        made.append(_figure(f"Raw scores of {one.system}", about, partial(charts.histogram, one), data))
        if one.reliability:
            cells = [[f"{m:.3f}", f"{s:.3f}", n] for m, s, n in one.reliability]
            data = table(
                ["Mean score", "Relevant", "Pairs"], cells, caption="By tenth of the scale", class_="reliability"
            )
            text = "The share of relevant pairs against the score: on the dashed line a score is a probability."
            made.append(
                _figure(f"Reliability of {one.system}", text, partial(charts.reliability, one.reliability), data)
            )
    if timed := [(one, times) for one in ordered if (times := one.milliseconds) is not None and len(times)]:
        made.append(_latency(timed, charts))
    for curve in evaluation.curves:
        name = display_name(curve.measure)
        points = [[p.depth, f"{p.value:.4f}", f"{p.milliseconds:.1f}"] for p in curve.points]
        data = table(["Depth", name, "ms per query"], points, caption="By depth", class_="depth")
        title = f"{name} by depth, {curve.system}"
        made.append(_figure(title, curve.advice, partial(charts.depth, curve), data))
    return made


def _gain(evaluation: Evaluation, first: System, after: System, charts: Charts) -> Html:
    measure = evaluation.measures[0]
    gains = after.values[measure] - first.values[measure]
    won, lost = int((gains > 0).sum()), int((gains < 0).sum())
    about = join(
        _key("gain"), f"better on {won}, ", _key("loss"), f"worse on {lost}, the same on {len(gains) - won - lost}."
    )
    order = np.argsort(-gains, kind="stable")
    rows = [
        [
            evaluation.query_texts[evaluation.queries[i]],
            f"{first.values[measure][i]:.4f}",
            f"{after.values[measure][i]:.4f}",
        ]
        for i in order[:_ROWS].tolist()
    ]
    more = f"; the first {_ROWS} of {len(gains)}" if len(gains) > _ROWS else ""
    data = table(["Query", first.name, after.name], rows, caption=f"From gain to loss{more}", class_="gains")
    title = f"Gain in {display_name(measure)} by query, {first.name} → {after.name}"
    return _figure(title, about, partial(charts.gains, gains), data)


def _latency(timed: list[tuple[System, NDArray[np.float64]]], charts: Charts) -> Html:
    rows, cells = [], []
    for one, times in timed:
        low, middle, high = np.quantile(times, (0.05, 0.5, 0.95)).tolist()
        rows.append((one.name, middle, low, high, f"{middle:,.1f} ms"))
        cells.append([one.name, f"{low:,.1f}", f"{middle:,.1f}", f"{high:,.1f}"])
    data = table(["System", "5 %", "Median", "95 %"], cells, caption="Milliseconds per query", class_="latency")
    about = "The median; the lines reach from the fastest 5 % of the queries to the slowest 5 %."
    return _figure("Milliseconds per query", about, partial(charts.dots, rows), data)


def _left_out(evaluation: Evaluation) -> Html:
    rows = [[reason, count] for reason, count in evaluation.left_out.items()]
    body = table(["Why", "How many"], rows, caption="Left out of the evaluation", class_="left-out") if rows else ""
    return join(tag("h2", "What was left out"), body or tag("p", "Nothing was left out."))


def _settings(evaluation: Evaluation) -> Html:
    rows = [[key.replace("_", " "), _plain(value)] for key, value in evaluation.settings.items()]
    made = [table(["Setting", "Value"], rows, caption="How it was measured", class_="words settings")]
    for one in evaluation.systems:
        facts = [[key.replace("_", " "), _plain(value)] for key, value in one.facts.items()]
        if facts:
            made.append(
                _data(f"{one.name} ran with", table(["Fact", "Value"], facts, caption=one.name, class_="words"))
            )
    return join(tag("h2", "Settings and versions"), *made)


def _figure(title: str, about: object, draw: Callable[[str, str], Html], data: Html | None = None) -> Html:
    plain = re.sub(r"<[^>]*>", "", about) if isinstance(about, Html) else str(about)
    caption = tag("figcaption", tag("h3", title), tag("p", about))
    return tag("figure", caption, draw(title, html.unescape(plain)), _data("As a table", data) if data else "")


def _data(title: str, data: Html) -> Html:
    return tag("details", tag("summary", title), data)


def _key(kind: str) -> Html:
    return tag("span", class_=f"key {kind}", aria_hidden="true")


def _ends(one: System, measure: str) -> str:
    low, high = one.intervals[measure]
    return f"{low:.3f}–{high:.3f}"


def _figure_or_dash(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "–"
    return "–" if value is None else str(value)
