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
    for option, value in (("--max-length", "9"), ("--calibration", "not-there.json"), ("--model", "m")):
        ran = crossrank("rerank", QUERY, "-", "--pipeline", "pipeline.toml", option, value)
        assert (ran.code, ran.out) == (1, "")
        assert f"{option} is for one model and can't be used with --pipeline" in ran.err


def test_a_threshold_that_is_no_number(crossrank: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path, STAGE)
    ran = crossrank("rerank", QUERY, "-", "--pipeline", "pipeline.toml", "--threshold", "nan", stdin="one\n")
    assert (ran.code, ran.out) == (1, "")
    assert "threshold=nan is not a finite number" in ran.err


STAGE = '[[stages]]\ntype = "cross-encoder"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "is not TOML"),
        ("threshold = nan\n" + STAGE, "pipeline.toml': threshold=nan is not a finite number"),
        ("text = '{title'\n" + STAGE, "pipeline.toml': text='{title' is not a template"),
        (STAGE + "batch_size = 0", "batch_size=0 is not a positive integer"),
        ('[[stages]]\ntype = "llm-judge"', r"stages\[0\] \(llm-judge\): the key 'model' is missing"),
        (
            '[[stages]]\ntype = "llm-judge"\nmodel = 3',
            r"stages\[0\] \(llm-judge\): model = 3 can't be used. Give a string",
        ),
        (
            '[[stages]]\ntype = "llm-judge"\nmodel = "m"\ntemperature = "hot"',
            r"temperature = 'hot' can't be used. Give a number",
        ),
        (
            '[[stages]]\ntype = "llm-judge"\nmodel = "m"\nwindow = true',
            r"window = True can't be used. Give an integer",
        ),
        (f"{STAGE}name = ''", r"stages\[0\] \(cross-encoder\): name = '' is empty"),
        ("", "stages is missing or empty"),
        ("stages = []", "stages is missing or empty. Give at least one"),
        ("stages = 3", "stages is 3. Give at least one"),
        ("stages = [3]", r"stages\[0\] is 3. Give a table"),
        ("x = " + "[" * 5000, "nested too deeply"),
        (
            '[[stages]]\nname = "a"',
            r"stages\[0\]: the key 'type' is missing. Give one of cross-encoder, first-stage, hosted, llm-judge",
        ),
        ('[[stages]]\ntype = "magic"', "type = 'magic' is unknown. Known: cross-encoder, first-stage"),
        (f"{STAGE}keep = 0", r"stages\[0\] \(cross-encoder\): keep=0 is not a positive integer"),
        (f"{STAGE}keep = '4'", r"stages\[0\] \(cross-encoder\): keep = '4' can't be used. Give an integer"),
        (
            f"{STAGE}max_lenth = 4",
            r"stages\[0\] \(cross-encoder\): there is no key 'max_lenth'. Did you mean 'max_length'",
        ),
        (f"{STAGE}precision = 'half'", r"stages\[0\] \(cross-encoder\): precision='half'"),
        (f"{STAGE}token = 'secret'", "token does not belong in a file"),
        (f"tresholds = 1\n{STAGE}", "no key 'tresholds'. Did you mean 'threshold'"),
        (f"on_error = 'ignore'\n{STAGE}", "on_error='ignore' is not known: give one of .*keep_order"),
        (f"deadline = 0\n{STAGE}", "deadline=0 is not a number of seconds above 0"),
        (f"cache.kind = 'disk'\n{STAGE}", r"cache \(disk\): the key 'path' is missing"),
        (f"cache.kind = 'memory'\ncache.size = 3\n{STAGE}", r"cache \(memory\): there is no key 'size'"),
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


def test_the_text_that_is_printed_is_the_text_that_was_scored(crossrank: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path, '[[stages]]\ntype = "cross-encoder"\nprecision = "float32"\n')
    apples, commit = "Apples are red.", "git reset undoes the last commit."
    records = [{"page_content": commit, "content": apples}, {"page_content": apples, "content": commit}]
    docs = tmp_path / "docs.jsonl"
    docs.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    orders = []
    for options in ((), ("--pipeline", "pipeline.toml")):
        ran = crossrank("rerank", QUERY, docs, "--top-k", "1", *options)
        assert ran.out.split("\t")[-1].strip() == commit
        orders.append(ran.out.split("\t")[4])
    ranking = Reranker(CrossEncoder(precision="float32")).rank(QUERY, records)
    assert [*orders, str(1 + ranking[0].first_stage_position)] == ["2", "2", "2"]
