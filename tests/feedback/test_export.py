"""What is exported is read by our own readers, and by ir_measures, and says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest

from crossrank.cli.main import main
from crossrank.data.files import read_judgements, rows_of
from crossrank.data.judgements import ReadReport, ReadSettings
from crossrank.data.open_dataset import open_dataset
from crossrank.feedback.judgement import Judgement
from crossrank.feedback.propensity import estimate
from crossrank.feedback.store import Ranking, Store
from crossrank.training.held_out_feedback import Held

TEXTS = ("log", "reset", "push", "tag")


def filled(url: str) -> str:
    store = Store(url)
    plain = [{"text": text} for text in TEXTS]
    named = [{"text": text, "id": f"doc {text}"} for text in TEXTS]
    store.add_rankings(
        [
            Ranking("r1", "undo", plain, [2, 1, 0, 3], [0.2, 0.3, 0.9, 0.1], "m", "1"),
            Ranking("r2", "list", named, [0, 1, 3], [0.9, 0.8, 0.1, 0.7], "m", "2"),
            Ranking("r3", "nobody says anything", plain, [0, 1, 2, 3], [0.4, 0.3, 0.2, 0.1]),
            Ranking("r4", "only a comment", plain, [0, 1, 2, 3], [0.4, 0.3, 0.2, 0.1]),
        ]
    )
    # Shown are push, reset, log, tag; the lowest click is on log.
    store.add_judgement(Judgement("r1", clicked=(0,), user="a"))
    # Stars go before clicks, votes too.
    store.add_judgement(Judgement("r1", clicked=(1,), stars={1: 3}, helpful={2: True}, user="b"))
    # Shown are log, reset, tag: tag is moved up past both, but reset has a vote.
    store.add_judgement(Judgement("r2", order=(3, 0, 1), helpful={1: True}))
    store.add_judgement(Judgement("r4", comment="well"))
    return url


# The labels by hand: (query, document) -> those that were given.
LABELS = {
    ("undo", "push"): [0.0, 1.0],
    ("undo", "reset"): [0.0, 0.5],
    ("undo", "log"): [1.0],
    ("list", "tag"): [1.0],
    ("list", "log"): [0.0],
    ("list", "reset"): [1.0],
}


def labels_in(*files: Path) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for one in read_judgements([str(file) for file in files], ReadSettings(), ReadReport()):
        found.setdefault((one.query, one.document), []).append(one.label)
    return found


def export(url: str, output: Path, form: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["feedback", "export", "--store", url, "-o", str(output), "--form", form, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_rankings_pairs_and_triplets(url: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(url)
    rankings, pairs, triplets = (tmp_path / f"{form}.{ending}" for form in ("rankings", "pairs", "triplets"))
    assert export(url, rankings, "rankings", capsys)["rows"] == 3
    assert labels_in(rankings) == LABELS
    assert export(url, pairs, "pairs", capsys)["rows"] == 8
    assert labels_in(pairs) == LABELS
    # Means over users: push .5, reset .25, log 1; tag 1, log 0, reset 1.
    assert export(url, triplets, "triplets", capsys)["rows"] == 4
    assert labels_in(triplets) == {
        ("undo", "push"): [1.0],
        ("undo", "log"): [1.0],
        ("undo", "reset"): [0.0, 0.0],
        ("list", "tag"): [1.0],
        ("list", "reset"): [1.0],
        ("list", "log"): [0.0, 0.0],
    }
    # What learn holds out takes clicks as clicks, by the place that was shown.
    held = Held()
    for row in rows_of(str(rankings)):
        held.add(row, ReadSettings())
    assert [(one.shown, one.places) for one in held.clicks["undo"]] == [
        (("push", "reset", "log", "tag"), (3,)),
        (("push", "reset", "log", "tag"), (2,)),
    ]


def test_a_collection(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(url)
    folder = tmp_path / "collection"
    assert export(url, folder, "collection", capsys)["rows"] == 2
    dataset = open_dataset(str(folder))
    texts = {name: dataset.corpus.text(dataset.corpus.index[name]) for name in dataset.corpus.ids}
    grades = {
        (dataset.queries[query], texts[document]): grade
        for query, judged in dataset.qrels.items()
        for document, grade in judged.items()
    }
    # .5, .25 and 1; 1, 0 and 1
    assert grades == {
        ("undo", "push"): 1,
        ("undo", "reset"): 0,
        ("undo", "log"): 3,
        ("list", "tag"): 3,
        ("list", "log"): 0,
        ("list", "reset"): 3,
    }
    assert set(texts) > {"doc_log", "doc_reset", "doc_tag"}
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.trec")))
    run = list(ir_measures.read_trec_run(str(folder / "run.trec")))
    values = {(one.query_id, str(one.measure)): one.value for one in ir_measures.iter_calc(
        [ir_measures.nDCG @ 10, ir_measures.RR], qrels, run)}  # fmt: skip
    # Shown were push (1), reset (0), log (3), tag; log (0), reset (3), tag (3): nDCG by hand.
    first = (1 + 3 / np.log2(4)) / (3 + 1 / np.log2(3))
    second = (3 / np.log2(3) + 3 / np.log2(4)) / (3 + 3 / np.log2(3))
    by_query = {dataset.queries[query]: value for (query, measure), value in values.items() if measure == "nDCG@10"}
    assert by_query == pytest.approx({"undo": first, "list": second})
    assert main(["evaluate", str(folder), "--json", "--measures", "nDCG@10", "--work", str(tmp_path / "work")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["systems"][0]["name"] == "first stage"
    assert told["systems"][0]["values"]["nDCG@10"] == pytest.approx([first, second])
    # A folder with something in it is not written to.
    assert main(["feedback", "export", "--store", url, "-o", str(folder), "--form", "collection"]) == 1
    assert "not an empty folder" in capsys.readouterr().err


def test_identifiers_that_two_texts_share(tmp_path: Path) -> None:
    from crossrank.feedback.export import export_collection

    store = Store(f"sqlite:///{tmp_path}/f.db")
    for number, text in enumerate(("one", "two", "one")):
        store.add_rankings([Ranking(f"r{number}", "q", [{"text": text, "id": "same"}], [0], [1.0])])
        store.add_judgement(Judgement(f"r{number}", stars={0: 5}))
    export_collection(store.judged(), tmp_path / "c")
    dataset = open_dataset(str(tmp_path / "c"))
    found = [dataset.corpus.text(dataset.corpus.index[name]) for judged in dataset.qrels.values() for name in judged]
    assert found == ["one", "two", "one"]


def test_rankings_without_texts(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(url)
    store.add_rankings(
        [Ranking("r1", "q", [{"text": "a", "id": "7"}, {"text": "b", "id": "8"}], [1, 0], [0, 1])], texts=False
    )
    store.add_judgement(Judgement("r1", clicked=(0,)))
    assert export(url, tmp_path / "f.jsonl", "rankings", capsys)["rows"] == 0
    assert export(url, tmp_path / "c", "collection", capsys)["rows"] == 1
    qrels = [tuple(one) for one in ir_measures.read_trec_qrels(str(tmp_path / "c" / "qrels.trec"))]
    assert [one[1:3] for one in qrels] == [("8", 0), ("7", 3)]
    assert (tmp_path / "c" / "corpus.jsonl").read_text() == ""


def test_stats_list_and_delete(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled(url)

    def told(*words: str) -> str:
        assert main(["feedback", *words, "--store", url]) == 0
        return capsys.readouterr().out

    stats = json.loads(told("stats", "--json"))
    assert (stats["rankings"], stats["judgements"], stats["users"]) == (4, 4, 2)
    assert stats["signals"] == {"clicked": 2, "helpful": 2, "stars": 1, "preferred": 1, "missing": 0, "comment": 1}
    assert stats["versions"]["m 1"] == {
        "judgements": 2, "with_known_clicks": 2, "clicked_first": 0, "votes": 1, "votes_up": 1
    }  # fmt: skip
    assert "4 judgements by 2 named users" in told("stats")
    assert max(map(len, told("stats").splitlines())) <= 100
    listed = [json.loads(line) for line in told("list", "--json", "--limit", "3").splitlines()]
    assert [one["request_id"] for one in listed] == ["r4", "r3", "r2"]
    assert listed[2]["judgements"][0]["order"] == [3, 0, 1]
    assert "only a comment" in told("list")
    assert json.loads(told("delete", "--user", "a", "--json")) == {"rankings": 0, "judgements": 1}
    assert json.loads(told("delete", "--request-id", "r1", "--json")) == {"rankings": 1, "judgements": 1}
    assert json.loads(told("delete", "--older-than", "1", "--json")) == {"rankings": 0, "judgements": 0}
    assert main(["feedback", "delete", "--store", url]) == 1
    assert "--request-id" in capsys.readouterr().err


def test_the_command_makes_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["feedback", "stats", "--store", f"sqlite:///{tmp_path}/typo.db"]) == 1
    assert "typo.db" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_export_is_not_written_over_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = filled(f"sqlite:///{tmp_path}/store.jsonl")
    assert main(["feedback", "export", "--store", url, "-o", f"{tmp_path}/store.jsonl"]) == 1
    assert "input" in capsys.readouterr().err
    assert main(["feedback", "export", "--store", url, "-o", f"{tmp_path}/f.txt"]) == 1
    assert ".parquet" in capsys.readouterr().err


# ---- propensities


def sessions(path: Path, count: int, eta: float, seed: int, *, shuffled: int = 5) -> Any:
    """Users who look at place k with a chance of k ** -eta and click three documents with different chances."""
    store = Store(f"sqlite:///{path}/p{seed}-{shuffled}.db")
    random = np.random.default_rng(seed)
    documents = [{"text": str(i)} for i in range(6)]
    likes = [0.9, 0.1, 0.05, 0.6, 0.3, 0.5]
    rankings, judgements = [], []
    for number in range(count):
        top = random.permutation(5).tolist() if shuffled else list(range(5))
        shown = [*top, 5]
        rankings.append(Ranking(f"r{number}", "q", documents, shown, [0.0] * 6, shuffled=shuffled))
        clicked = [d for k, d in enumerate(shown, 1) if random.random() < likes[d] * k**-eta]
        judgements.append(Judgement(f"r{number}", clicked=tuple(clicked)))
    store.add_rankings(rankings)
    for judgement in judgements:
        store.add_judgement(judgement)
    return store.judged()


def test_propensities_are_those_of_the_simulated_users(tmp_path: Path) -> None:
    found = estimate(sessions(tmp_path, 1500, 0.7, seed=1))
    assert found.enough
    assert found.eta is not None
    assert found.eta.low < 0.7 < found.eta.high
    assert found.eta.high - found.eta.low < 0.4
    assert len(found.places) == 5
    assert found.places[0].value == found.places[0].low == found.places[0].high == 1
    for k, place in enumerate(found.places[1:], start=2):
        assert place.low < k**-0.7 < place.high


def test_the_interval_has_its_coverage(tmp_path: Path) -> None:
    # 40 times at 95 %: fewer than 33 hits have a chance of about one in 10,000.
    hits = 0
    for seed in range(40):
        eta = estimate(sessions(tmp_path, 120, 1.0, seed=seed)).eta
        assert eta is not None
        hits += eta.low <= 1.0 <= eta.high
    assert hits >= 33


def test_clicks_in_the_order_of_the_scores_say_nothing_of_attention(tmp_path: Path) -> None:
    found = estimate(sessions(tmp_path, 200, 1.0, seed=3, shuffled=0))
    assert (found.rankings, found.eta, found.enough) == (0, None, False)


def test_few_clicks_are_not_enough(tmp_path: Path) -> None:
    found = estimate(sessions(tmp_path, 30, 1.0, seed=4))
    assert found.eta is not None
    assert not found.enough
