"""Held-out clicks: what they say of a ranking must not depend on which ranking was shown."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from crossrank.data.forms import judgements_of
from crossrank.data.judgements import ReadReport, ReadSettings, Row, RowError, grouped
from crossrank.errors import InputError
from crossrank.evaluation.measures import parse, per_query
from crossrank.training.held_out_feedback import Held, as_dataset, split_signals

READING = ReadSettings()
SHOWN = 6


def row(**fields: object) -> Row:
    return Row("f", 1, fields)


def simulated(queries: int, sessions: int) -> tuple[list[Row], dict[str, int]]:
    """Users of a ranking that has the one relevant document at any of six places; they look at place k once in k."""
    users = random.Random(0)
    rows, places = [], {}
    for number in range(queries):
        query = f"q{number}"
        places[query] = number % SHOWN + 1
        documents = [f"{query} d{k}" for k in range(1, SHOWN + 1)]
        for _ in range(sessions):
            clicked = [
                k
                for k in range(1, SHOWN + 1)
                if users.random() < 1 / k and users.random() < (0.9 if k == places[query] else 0.05)
            ]
            rows.append(row(query=query, documents=documents, clicked=clicked))
    return rows, places


def weighted_ndcgs(rows: list[Row], orders: dict[str, list[int]]) -> dict[str, float]:
    """What held-out clicks make of models that rank the places of the shown ranking in these orders."""
    held = Held()
    for one in rows:
        held.add(one, READING)
    found = as_dataset(held, Path("f"))
    assert found is not None
    data = found.dataset
    ids = {data.corpus.text(i): name for i, name in enumerate(data.corpus.ids)}
    queries = list(data.queries)
    weights = np.array([found.weights[query] for query in queries])
    means = {}
    for name, order in orders.items():

        def ranking(number: int, order: list[int] = order) -> list[str]:
            return [ids[f"{queries[number]} d{k}"] for k in order]

        [values] = per_query(parse(["nDCG@10"]), data.qrels, ranking).values()
        means[name] = float((values * weights).sum() / weights.sum())
    return means


@pytest.mark.parametrize(("queries", "sessions"), [(2400, 1), (600, 8)])
def test_clicks_tell_what_is_true_whatever_was_shown(queries: int, sessions: int) -> None:
    rows, places = simulated(queries, sessions)
    orders = {"shown": [1, 2, 3, 4, 5, 6], "upside down": [6, 5, 4, 3, 2, 1], "by chance": [4, 1, 6, 2, 5, 3]}
    # The relevant document is as often at one place as at another, so these orders are equally good in truth.
    truth = np.mean([1 / np.log2(k + 1) for k in places.values()])
    values = weighted_ndcgs(rows, orders)
    assert max(values.values()) - min(values.values()) < 0.06
    assert values["shown"] == pytest.approx(truth, abs=0.08)


def test_click_over_skip_above_alone_would_mislead() -> None:
    """Why the judgements that are trained on are not evaluated on: there the ranking shown always loses."""
    rows, _ = simulated(600, 1)
    groups = grouped(one for found in rows for one in judgements_of(found, READING, ReadReport()))
    ranking = [group for group in groups if group.can_rank]
    assert len(ranking) > 50
    # Documents in the order shown: what was clicked lowest stands behind all that was passed over.
    assert all(group.judged[-1].label == 1 for group in ranking)


def test_what_people_said_goes_before_what_they_clicked() -> None:
    held = Held()
    held.add(row(query="Q", documents=["a", "b", "c"], clicked=[1], stars=[1, 5, None]), READING)
    held.add(row(query=" q", documents=["a", "b", "c"], clicked=[3]), READING)
    found = as_dataset(held, Path("f"))
    assert found is not None
    assert found.clicked == 0
    [(query, text)] = found.dataset.queries.items()
    assert (query, text) == ("q", "Q")
    texts = {name: found.dataset.corpus.text(i) for i, name in enumerate(found.dataset.corpus.ids)}
    assert {texts[name]: grade for name, grade in found.dataset.qrels[query].items()} == {"a": 0, "b": 100}


def test_weights_by_hand() -> None:
    held = Held()
    held.add(row(query="x", documents=["a", "b"], clicked=[1]), READING)
    held.add(row(query="y", documents=["a", "b"], clicked=2), READING)
    held.add(row(query="y", documents=[{"text": "a"}, {"text": "b", "clicked": False}]), READING)
    found = as_dataset(held, Path("f"))
    assert found is not None
    # x: 1 in one showing; y: 1 / (1 / 2) in two showings. The mean becomes 1.
    assert found.weights == {"x": 1.0, "y": 1.0}
    flat = as_dataset(held, Path("f"), eta=0)
    assert flat is not None
    assert flat.weights == pytest.approx({"x": 4 / 3, "y": 2 / 3})


def test_signals_of_marked_documents() -> None:
    said, clicks = split_signals(
        row(query="q", documents=[{"text": "a", "vote": "up"}, {"text": "b", "clicked": True}, {"text": "c"}]), READING
    )
    assert [(one.document, one.label) for one in said] == [("a", 1.0)]
    assert clicks is not None
    assert (clicks.shown, clicks.places) == (("a", "b", "c"), (2,))


def test_nothing_that_tells_and_bad_values() -> None:
    held = Held()
    held.add(row(query="q", documents=["a", "b"], clicked=[]), READING)
    held.add(row(query="r", document="a", label=1), READING)
    assert as_dataset(held, Path("f")) is None
    with pytest.raises(RowError, match="not a position from 1 to 2"):
        held.add(row(query="q", documents=["a", "b"], clicked=[3]), READING)
    with pytest.raises(InputError, match="eta=-1"):
        as_dataset(held, Path("f"), eta=-1)
