"""Documents of any kind, and what stages read of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank import InputError, Reranker
from crossrank.ranking.documents import DocumentReader
from crossrank.ranking.template import Template
from crossrank.ranking.testing import FixedScores


@dataclass(frozen=True)
class Page:
    body: str


def langchain(text: str, **metadata: Any) -> Any:
    from langchain_core.documents import Document

    return Document(page_content=text, metadata=metadata)


def llama_index(text: str, score: float | None = None, **metadata: Any) -> Any:
    from llama_index.core.schema import NodeWithScore, TextNode

    return NodeWithScore(node=TextNode(text=text, metadata=metadata), score=score)


def haystack(text: str, score: float | None = None, **meta: Any) -> Any:
    from haystack import Document

    return Document(content=text, score=score, meta=meta)


KINDS = {
    "string": ("some text", None),
    "numpy string": (np.array(["some text"])[0], None),
    "dict": ({"content": "some text", "score": 0.5}, 0.5),
    "object": (SimpleNamespace(text="some text", score=np.float32(0.5)), 0.5),
    "dataclass": (Page("some text"), None),
    "langchain": (langchain("some text", score=0.5), 0.5),
    "llama_index": (llama_index("some text", 0.5), 0.5),
    "llama_index node": (llama_index("some text").node, None),
    "haystack": (haystack("some text", 0.5), 0.5),
    "score that is none": ({"text": "some text", "score": "C major"}, None),
    "score that is nan": ({"text": "some text", "score": float("nan")}, None),
}


@pytest.mark.parametrize(("document", "score"), KINDS.values(), ids=KINDS)
def test_any_kind_is_read_and_comes_back_itself(document: Any, score: float | None) -> None:
    stage = FixedScores(lambda query, text: 1.0)
    (ranked,) = Reranker(stage).rank("q", [document])
    assert ranked.document is document
    assert stage.calls == [("q", ["some text"])]
    assert ranked.first_stage_score == score
    (ranked,) = Reranker(stage).rank("q", [(document, 0.25)])
    assert ranked.document is document
    assert ranked.first_stage_score == 0.25


@pytest.mark.parametrize("make", [langchain, llama_index, haystack])
def test_fields_are_found_where_frameworks_keep_them(make: Any) -> None:
    document = make("the text", title="Emma", year=1815)
    for template in ("{title} ({year}): {text}", "{title} ({metadata.year}): {text}"):
        if make is haystack:
            template = template.replace("metadata", "meta")
        (read,) = DocumentReader(template).read([document])
        assert read.text == "Emma (1815): the text"
    (read,) = DocumentReader("title", score="year").read([document])
    assert (read.text, read.first_stage_score) == ("Emma", 1815)


def test_functions_read_anything() -> None:
    reader = DocumentReader(lambda row: row[0], score=lambda row: -row[1])
    (read,) = reader.read([["text", 3, None]])
    assert (read.text, read.first_stage_score) == ("text", -3)


@pytest.mark.parametrize(
    ("documents", "settings", "said"),
    [
        ("text", {}, "a list of documents is expected"),
        ({"text": "a"}, {}, "a list of documents is expected"),
        (["a", 3], {}, r"documents\[1\] is 3 \(int\) and has no text"),
        ([{"title": "a"}], {}, "its fields: title"),
        ([{"title": "a"}], {"text": "titel"}, "has no field text='titel'; its fields: title"),
        ([{"title": "a"}], {"text": "{titel}: {body}"}, "has no field of text='{titel}: {body}'"),
        (["a"], {"text": lambda text: None}, r"text= returned None \(NoneType\) for documents\[0\]"),
        (["a"], {"text": lambda text: text["b"]}, r"text= on documents\[0\] failed: TypeError"),
        ([{"text": "a", "s": "high"}], {"score": "s"}, "first-stage score of documents.0. is 'high'"),
        ([], {"text": 3}, "text=3 is not a function"),
        ([], {"text": "{}"}, r"\{\} is not a field"),
        ([], {"text": "{0}"}, r"\{0\} is not a field"),
        ([], {"text": "{year:04d}"}, "{year:04d} is not a field"),
        ([], {"text": "{a!r}"}, "{a!r} is not a field"),
        ([], {"text": "{title"}, "is not a template"),
        ([], {"text": "a }} brace"}, "has no field"),
    ],
)
def test_what_cannot_be_read(documents: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        DocumentReader(**settings).read(documents)


def test_a_field_that_no_document_has_is_told() -> None:
    stage = FixedScores(lambda query, text: 1.0)
    ranking = Reranker(stage, text="{titel}: {text}").rank("q", [{"title": "a", "text": "b"}])
    assert stage.calls[0][1] == ["b"]
    assert ranking.notes == ("no document has the field {titel} of text=",)


FILLED = [
    ("{title} ({year}): {text}", {"title": "T", "year": 1, "text": "x"}, "T (1): x"),
    ("{title} ({year}): {text}", {"title": "T", "text": "x"}, "T: x"),
    ("{title} ({year}): {text}", {"year": 1, "text": "x"}, "(1): x"),
    ("{title} ({year}): {text}", {"text": "x"}, "x"),
    ("{title} ({year}): {text}", {"title": "T", "year": 1}, "T (1)"),
    ("{title} ({year}): {text}", {"title": "T"}, "T"),
    ("{title} ({year}): {text}", {"title": "", "year": None, "text": " "}, ""),
    ("{title} ({year}): {text}", {"title": "T", "year": float("nan"), "text": "x"}, "T: x"),
    ("{a}, {b}, {c}", {"a": 1, "c": 3}, "1, 3"),
    ("{a}, {b}, {c}", {"c": 3}, "3"),
    ("{a}, {b}, {c}", {"a": 1}, "1"),
    ("{a} - {b} {c}", {"a": 1, "c": 3}, "1 - 3"),
    ("{text} (by {author}, {year})", {"text": "x", "year": 1}, "x (by 1)"),
    ("{text} (by {author}, {year})", {"text": "x", "author": "A"}, "x (by A)"),
    ("{text} (by {author}, {year})", {"text": "x"}, "x"),
    ("{text} [{a} ({b})]", {"text": "x"}, "x"),
    ("Title: {title}\nYear: {year}\n\n{text}", {"title": "T", "text": "x"}, "Title: T\n\nx"),
    ("{{{text}}}", {"text": "{x}"}, "{{x}}"),
    ("{tags}: {text}", {"tags": ["a", None, "b"], "text": "x"}, "a, b: x"),
    ("{n}: {text}", {"n": 0, "text": "x"}, "0: x"),
]


@pytest.mark.parametrize(("template", "fields", "expected"), FILLED)
def test_templates(template: str, fields: dict[str, Any], expected: str) -> None:
    assert Template(template).fill(fields.get) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    template=st.lists(
        st.sampled_from(["{a}", "{b}", "{c}", " (", ")", ": ", ", ", "\n", "by ", "[", "]", '"']), max_size=9
    ),
    values=st.fixed_dictionaries({name: st.one_of(st.none(), st.text(max_size=8)) for name in "abc"}),
)
def test_values_stay_as_they_are(template: list[str], values: dict[str, Any]) -> None:
    whole = "".join(["{a}", *template])
    text = Template(whole).fill(values.get)
    rest = text
    for part in ["{a}", *template]:
        value = values.get(part[1:2]) if part[0] == "{" else None
        if value is not None and value.strip():
            assert value in rest
            rest = rest[rest.index(value) + len(value) :]
    assert "None" not in text.replace(str(values), "") or any("None" in (value or "") for value in values.values())
    if all(value and value.strip() for value in values.values()):
        assert text == whole.format(**values)


class Film(NamedTuple):
    text: str
    year: int


class Row(NamedTuple):
    """As a database's client returns a document and its distance."""

    Page: Page
    similarity: Decimal


def test_named_tuples_and_decimals():
    film, row = Film("A remake.", 2002), Row(Page("A note."), Decimal("0.5"))
    [one, two] = DocumentReader().read([film, row])
    assert (one.document, one.text, one.first_stage_score) == (film, "A remake.", None)
    assert (two.document, two.text, two.first_stage_score) == (row.Page, "A note.", 0.5)
    assert DocumentReader("{text} ({year})").read([film])[0].text == "A remake. (2002)"


def test_what_pandas_holds():
    frame = pd.DataFrame({"text": ["a", "b"], "year": pd.array([1, None], dtype="Int64"), "day": [pd.NaT, pd.NaT]})
    with pytest.raises(InputError, match=r"data frame.*to_dict\('records'\)"):
        DocumentReader().read(frame)
    read = DocumentReader("{text} ({year}) {day}").read(frame.to_dict("records"))
    assert [candidate.text for candidate in read] == ["a (1)", "b"]


class Broken:
    content = "what there is"

    @property
    def text(self) -> str:
        raise RuntimeError("no text here")


def test_a_property_that_fails_is_a_field_that_is_missing():
    assert DocumentReader().read([Broken()])[0].text == "what there is"
