"""``crossrank rerank --pipeline``: a pipeline out of a file, and what is said of files that can't be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossrank import CrossEncoder, InputError, Reranker

QUERY = "how do I undo a commit"
RECORDS = [
    {"title": "Parents", "text": "A commit has one parent or more."},
    {"title": "Undoing", "text": "git reset undoes the last commit."},
    {"text": "Apples are red."},
]


def write(folder: Path, text: str) -> Path:
    path = folder / "pipeline.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_pipeline_ranks(crossrank: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path, 'text = "{title}: {text}"\n[[stages]]\ntype = "cross-encoder"\nkeep = 2\nprecision = "float32"\n')
    docs = tmp_path / "docs.jsonl"
    docs.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    ran = crossrank("rerank", QUERY, docs, "--pipeline", "pipeline.toml", "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = [json.loads(line) for line in ran.lines]
    texts = [
        "Parents: A commit has one parent or more.",
        "Undoing: git reset undoes the last commit.",
        "Apples are red.",
    ]
    expected = CrossEncoder(precision="float32").rank(QUERY, texts, top_k=2)
    assert [row["corpus_id"] for row in rows] == [row["corpus_id"] for row in expected]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert rows[0]["document"] == RECORDS[rows[0]["corpus_id"]]
    assert (rows[0]["kind"], rows[0]["stage_kinds"]) == ("sigmoid", {"cross-encoder": "sigmoid"})
    assert (rows[0]["degraded"], rows[0]["reason"]) == (False, None)


def test_a_degraded_ranking_is_told(crossrank: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path, 'on_error = "keep_order"\n[[stages]]\ntype = "cross-encoder"\nmodel = "./not-there"\n')
    ran = crossrank("rerank", QUERY, "-", "--pipeline", "pipeline.toml", "--json", stdin="one\ntwo\n")
    assert ran.code == 0
    assert "warning: the ranking is degraded: cross-encoder: ModelNotFoundError" in ran.err
    rows = [json.loads(line) for line in ran.lines]
    assert [(row["text"], row["score"], row["kind"], row["degraded"]) for row in rows] == [
        ("one", None, None, True),
        ("two", None, None, True),
    ]


def test_options_of_one_model_do_not_fit(crossrank: Callable[..., Any], tmp_path: Path) -> None:
    ran = crossrank("rerank", QUERY, "-", "--pipeline", "pipeline.toml", "--max-length", "9")
    assert (ran.code, ran.out) == (1, "")
    assert "--max-length is for one model, but --pipeline names stages" in ran.err


def test_a_threshold_that_is_no_number(crossrank: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path, STAGE)
    ran = crossrank("rerank", QUERY, "-", "--pipeline", "pipeline.toml", "--threshold", "nan", stdin="one\n")
    assert (ran.code, ran.out) == (1, "")
    assert "threshold=nan is not a number" in ran.err


STAGE = '[[stages]]\ntype = "cross-encoder"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "is not TOML"),
        ("threshold = nan\n" + STAGE, "pipeline.toml': threshold=nan is not a number"),
        ("text = '{title'\n" + STAGE, "pipeline.toml': text='{title' is not a template"),
        (STAGE + "batch_size = 0", "batch_size=0 is not a whole number above 0"),
        ('[[stages]]\ntype = "llm-judge"', r"stages\[0\] \(llm-judge\): the key 'model' is missing"),
        (
            '[[stages]]\ntype = "llm-judge"\nmodel = 3',
            r"stages\[0\] \(llm-judge\): model = 3 can't be used. It takes str",
        ),
        (
            '[[stages]]\ntype = "llm-judge"\nmodel = "m"\ntemperature = "hot"',
            r"temperature = 'hot' can't be used. It takes float \| None",
        ),
        (
            '[[stages]]\ntype = "llm-judge"\nmodel = "m"\nwindow = true',
            r"window = True can't be used. It takes int",
        ),
        (f"{STAGE}name = ''", r"stages\[0\].name = '' can't be used"),
        ("", "the key 'stages' is missing"),
        ("stages = []", "stages = .* at least 1"),
        (
            '[[stages]]\nname = "a"',
            "'stages.0..type' is missing. Allowed: cross-encoder, first-stage, hosted, llm-judge",
        ),
        ('[[stages]]\ntype = "magic"', "type = 'magic' can't be used.*'cross-encoder'"),
        (f"{STAGE}keep = 0", r"stages\[0\].keep = 0 can't be used"),
        (f"{STAGE}keep = '4'", r"stages\[0\].keep = '4' can't be used"),
        (
            f"{STAGE}max_lenth = 4",
            r"stages\[0\] \(cross-encoder\): there is no key 'max_lenth'. Did you mean 'max_length'",
        ),
        (f"{STAGE}precision = 'half'", r"stages\[0\] \(cross-encoder\): precision='half'"),
        (f"{STAGE}token = 'secret'", "token does not belong into a file"),
        (f"tresholds = 1\n{STAGE}", "no key 'tresholds'. Did you mean 'threshold'"),
        (f"on_error = 'ignore'\n{STAGE}", "on_error = 'ignore' can't be used.*'keep_order'"),
        (f"deadline = 0\n{STAGE}", "deadline = 0 can't be used"),
        (f"cache.kind = 'disk'\n{STAGE}", "a path is for 'disk'"),
        (f"cache.kind = 'memory'\ncache.size = 3\n{STAGE}", "no key 'cache.size'"),
        (f"text = '{{'\n{STAGE}", "is not a template"),
        ('[[stages]]\ntype = "first-stage"\nweight = 3', r"stages\[0\] \(first-stage\): weight=3"),
    ],
)
def test_what_a_file_may_not_say(text: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=said) as raised:
        Reranker.from_file(path)
    assert "secret" not in str(raised.value)
    with pytest.raises(InputError, match="There is no file"):
        Reranker.from_file(tmp_path / "other.toml")


def test_everything_a_file_can_say(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"""
        text = "title"
        score = "rating"
        threshold = 0
        top_k = 3
        on_error = "next_stage"
        deadline = 2
        cache = {{ kind = "disk", path = "{tmp_path / "scores.sqlite"}", max_bytes = 1000000 }}
        [[stages]]
        type = "first-stage"
        keep = 2
        [[stages]]
        type = "cross-encoder"
        name = "model"
        max_length = 64
        """,
    )
    with Reranker.from_file(path) as reranker:
        ranking = reranker.rank(QUERY, [{"title": str(i), "rating": i} for i in range(5)], deadline=60)
    assert reranker.names == ["first-stage", "model"]
    assert sorted(document["rating"] for document in ranking.documents) == [3, 4]
    assert (reranker.threshold, reranker.top_k, reranker.on_error, reranker.deadline) == (0, 3, "next_stage", 2)
    assert ranking.cache_hit_rate == 0.0
