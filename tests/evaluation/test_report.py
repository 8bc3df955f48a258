"""The report: the evaluation's own numbers, hostile texts shown as texts, and a real browser that has no complaint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import made_evaluation
from browser import Browser
from crossrank.errors import InputError
from crossrank.evaluation.disagreements import disagreements
from crossrank.evaluation.report import report, write_report


class Page(HTMLParser):
    """Tables by class, elements and attributes, all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._rows: list[list[str]] | None = None
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("class") or "", [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._rows[-1].append("")
            self._cell = True
        elif tag == "small" and self._cell and self._rows is not None:
            self._rows[-1][-1] += "|"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False
        elif tag == "table":
            self._rows = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell and self._rows is not None:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def _close(shown: str, value: float, digits: int) -> bool:
    return abs(float(shown.replace(",", "")) - value) <= 0.5 * 10**-digits + 1e-12


# ---- the numbers


def test_the_systems_are_those_of_the_evaluation() -> None:
    made = made_evaluation.evaluation()
    head, *rows = Page(report([made])).tables["systems"]
    assert head == ["System", "nDCG@10", "MRR@10", "ms per query", "Pairs per second", "Pairs cut", "Ties"]
    for system, row in zip(made.systems, rows, strict=True):
        assert row[0] == system.name
        for cell, measure in zip(row[1:3], made.measures, strict=True):
            mean, low, high = re.split(r"[|–]", cell)
            assert _close(mean, float(np.mean(system.values[measure])), 3)
            assert _close(low, system.intervals[measure][0], 3)
            assert _close(high, system.intervals[measure][1], 3)
        if system.milliseconds is None:
            assert row[3:6] == ["–", "–", "–"]
        else:
            assert _close(row[3], float(np.mean(system.milliseconds)), 1)
            assert _close(row[4], system.pairs / system.seconds, 0)
            assert _close(row[5].rstrip("%"), 100 * system.pairs_cut / system.pairs, 1)
        assert int(row[6]) == system.ties


def test_the_comparisons_are_those_of_the_evaluation() -> None:
    made = made_evaluation.evaluation()
    page = Page(report([made]))
    _, *rows = page.tables["comparisons"]
    for one, row in zip(made.comparisons, rows, strict=True):
        assert row[0] == f"{one.before} → {one.after}"
        assert _close(row[2], one.difference, 4)
        assert all(_close(a, b, 4) for a, b in zip(row[3].split(" to "), one.interval, strict=True))
        assert row[4:6] == ["< 0.001", "0.012"]
        assert [int(cell) for cell in row[6:]] == [one.won, one.lost, one.tied]
    said = next(one for one in made.comparisons if (one.before, one.after) == ("BM25", "bundled"))
    assert f"{said.difference:+.3f}" in page.text
    assert f"better on {said.won}, worse on {said.lost} and the same on {said.tied}" in page.text


def test_the_charts_tables_are_those_of_the_evaluation() -> None:
    made = made_evaluation.evaluation()
    tables = Page(report([made])).tables
    histogram, curve = made.histograms[0], made.curves[0]
    assert [int(row[1]) for row in tables["histogram"][1:]] == histogram.relevant.tolist()
    assert [int(row[2]) for row in tables["histogram"][1:]] == histogram.irrelevant.tolist()
    assert [int(row[0]) for row in tables["depth"][1:]] == [point.depth for point in curve.points]
    assert all(_close(row[1], p.value, 4) for row, p in zip(tables["depth"][1:], curve.points, strict=True))
    assert [int(row[2]) for row in tables["reliability"][1:]] == [count for _, _, count in histogram.reliability]
    first, last = made.systems[0].values["nDCG@10"], made.systems[-1].values["nDCG@10"]
    gains = [float(row[2]) - float(row[1]) for row in tables["gains"][1:]]
    np.testing.assert_allclose(gains, np.sort(last - first)[::-1], atol=1.1e-4)
    for row, system in zip(tables["latency"][1:], made.systems[1:], strict=True):
        assert system.milliseconds is not None
        expected = np.quantile(system.milliseconds, (0.05, 0.5, 0.95))
        assert all(_close(cell, value, 1) for cell, value in zip(row[1:], expected.tolist(), strict=True))
    assert tables["left-out"][1:] == [["judgements of unknown documents", "3"]]


def test_disagreements_are_ordered_by_what_they_matter() -> None:
    made = made_evaluation.evaluation()
    for a, b in (("BM25", "bundled"), ("bundled", "all-MiniLM-L6-v2")):
        found = disagreements(made, a, b, most=5, explainer=made_evaluation.explained)
        values = {s.name: s.values["nDCG@10"] for s in made.systems}
        expected = sorted(np.abs(values[b] - values[a]).tolist(), reverse=True)[:5]
        assert [abs(one.difference) for one in found] == expected
        for one in found:
            assert {name: len(top) for name, top in one.top.items()} == {s.name: 3 for s in made.systems}
            assert one.top[b][0].document in one.explanations
    by_other = disagreements(made, "BM25", "bundled", measure="RR@10", most=3)
    assert by_other[0].after == made.systems[-1].values["RR@10"][made.queries.index(by_other[0].query)]
    assert disagreements(made, "BM25", "BM25") == []
    with pytest.raises(InputError, match="no system 'nobody'"):
        disagreements(made, "BM25", "nobody")
    with pytest.raises(InputError, match="'MAP' was not measured"):
        disagreements(made, "BM25", "bundled", measure="MAP")


@pytest.mark.parametrize(
    ("pair", "change", "says"),
    [
        (None, {}, "Yes, it helps."),
        (("BM25", "bundled"), {"difference": -0.1}, "No, it makes the ranking worse."),
        (("BM25", "bundled"), {"p_corrected": 0.2}, "The difference is not significant."),
        (("all-MiniLM-L6-v2", "bundled"), {"p_corrected": 0.2}, "not measurably more than the bi-encoder"),
    ],
)
def test_the_verdict(pair: tuple[str, str] | None, change: dict[str, float], says: str) -> None:
    made = made_evaluation.evaluation()
    changed = [replace(one, **change) if (one.before, one.after) == pair else one for one in made.comparisons]
    assert says in Page(report([replace(made, comparisons=changed)])).text


def test_no_evaluation_is_an_error() -> None:
    with pytest.raises(InputError, match="no evaluation to report"):
        report([])


# ---- the page


def test_nothing_from_outside_and_every_chart_has_words() -> None:
    page = Page(report([made_evaluation.evaluation("one"), made_evaluation.evaluation("two", seed=1)]))
    names = [name for name, _ in page.elements]
    assert not {"script", "link", "img", "iframe", "object"} & set(names)
    links = [value for _, attributes in page.elements for key, value in attributes.items() if key in ("href", "src")]
    assert links == ["#dataset-1", "#dataset-2"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    charts = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(charts) == 12
    assert all(set(str(each["aria-labelledby"]).split()) <= set(ids) for each in charts)
    assert names.count("table") == names.count("caption")


def test_hostile_texts_are_texts() -> None:
    made = made_evaluation.evaluation(hostile=True)
    plain = Page(report([made_evaluation.evaluation()], {"bundled": made_evaluation.explained}))
    page = Page(report([made], {made.systems[-1].name: made_evaluation.explained}))
    assert {name for name, _ in page.elements} == {name for name, _ in plain.elements}
    assert {key for _, attributes in page.elements for key in attributes} == {
        key for _, attributes in plain.elements for key in attributes
    }
    assert "<script>document.title='taken'</script>" in page.text


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("hostile", [False, True])
def test_in_a_real_browser(width: int, hostile: bool, browser: Browser, tmp_path: Path) -> None:
    made = made_evaluation.evaluation(hostile=hostile)
    write_report(
        [made, made_evaluation.evaluation("other")],
        tmp_path / "r.html",
        {made.systems[-1].name: made_evaluation.explained},
    )
    browser.open(tmp_path / "r.html", width=width)
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.title").startswith("Does reranking help?")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelectorAll('script, img').length") == 0
    asked = [event["params"]["request"]["url"] for event in _events(browser, "Network.requestWillBeSent")]
    assert {url.partition(":")[0] for url in asked} == {"file"}
    assert len(asked) == 1
    assert not _events(browser, "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_letters_stand_out_from_their_ground(dark: bool, browser: Browser, tmp_path: Path) -> None:
    made = made_evaluation.evaluation()
    write_report([made], tmp_path / "r.html", {"bundled": made_evaluation.explained})
    browser.open(tmp_path / "r.html", width=800, dark=dark)
    colours = browser.value(_COLOURS)
    assert len(colours) > 10
    # 4.5 to 1: https://www.w3.org/TR/WCAG22/#contrast-minimum
    assert [each for each in colours if _contrast(each["ink"], each["ground"]) < 4.5] == []


_COLOURS = """
[...document.querySelectorAll('p, h1, h2, h3, h4, li, td, th, mark, dt, dd, small, summary, caption')].map(each => {
  let up = each;
  while (up && getComputedStyle(up).backgroundColor === 'rgba(0, 0, 0, 0)') up = up.parentElement;
  const ground = getComputedStyle(up || document.body).backgroundColor;
  return {what: each.className + each.tagName, ink: getComputedStyle(each).color, ground};
})"""


def _events(browser: Browser, *methods: str) -> list[dict[str, Any]]:
    return [event for event in browser.events if event.get("method") in methods]


def _contrast(*colours: str) -> float:
    """As WCAG 2.2 defines relative luminance."""
    lights = []
    for colour in colours:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)
