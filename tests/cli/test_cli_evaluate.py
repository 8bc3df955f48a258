"""`crossrank evaluate` and `crossrank compare`, the real commands with the bundled model."""

from __future__ import annotations

import csv
import json

from small_collection import lines, write_beir


def test_the_whole_way(crossrank, tmp_path):
    write_beir(tmp_path / "small")
    write_beir(tmp_path / "other")
    files = ("--per-query", "q.csv", "--run-out", "runs")
    done = crossrank("evaluate", "small", "other", "--first-stage", "BM25", *files, "--measures", "nDCG@10", "Hit@1")
    assert done.code == 0, done.err
    assert "bundled model" in done.out
    assert "Hit@1" in done.out
    assert "How deep to re-rank" in done.out
    assert "permutation test" in done.out
    assert "All 2 datasets" in done.out
    assert not (tmp_path / "crossrank-work").exists()
    with (tmp_path / "q.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert {row["system"] for row in rows} == {"BM25", "bundled model"}
    runs = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("runs/*/*.run"))
    assert runs == [f"runs/{d}/{s}.run" for d in ("other", "small") for s in ("BM25", "bundled-model")]

    compared = crossrank(
        "compare", "runs/small/BM25.run", "runs/small/bundled-model.run", "--qrels", "small/qrels/test.tsv"
    )
    assert compared.code == 0, compared.err
    assert "bundled-model" in compared.out


def test_json(crossrank, tmp_path):
    write_beir(tmp_path / "small", candidates=None)
    done = crossrank("evaluate", "small", "--json", "--queries", "2", "--depth", "3")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [one["name"] for one in found["systems"]] == ["BM25", "bundled model"]
    assert found["left_out"]["queries that are not in the random sample"] == 1
    assert found["settings"]["depth"] == 3
    assert "permutation" in found["settings"]["test"]


def test_work_is_kept_where_it_is_asked_for_and_gone_on_with(crossrank, tmp_path):
    write_beir(tmp_path / "small")
    first = crossrank("evaluate", "small", "--work", "kept", "--json")
    assert first.code == 0, first.err
    refused = crossrank("evaluate", "small", "--work", "kept")
    assert refused.code == 1
    assert "--resume" in refused.err
    again = crossrank("evaluate", "small", "--work", "kept", "--json", "--resume")
    assert json.loads(again.out)["systems"] == json.loads(first.out)["systems"]


def test_only_what_the_command_kept_itself_is_removed(crossrank, tmp_path):
    write_beir(tmp_path / "small")
    (tmp_path / "crossrank-work").mkdir()
    kept = tmp_path / "crossrank-work" / "another-model.jsonl"
    kept.write_text("an interrupted evaluation")
    (tmp_path / "mine").write_text("an older run")
    done = crossrank("evaluate", "small", "--json", "--run-out", "mine")
    assert done.code == 0, done.err
    assert [path.name for path in (tmp_path / "crossrank-work").iterdir()] == [kept.name]
    assert (tmp_path / "mine").read_text().startswith("git Q0 ")


def test_what_cannot_be_used_is_a_line_and_an_exit_code(crossrank, tmp_path):
    folder = write_beir(tmp_path / "small")
    lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", "git\tundo\tgood"])
    for args, says in (
        (["evaluate", "small"], "test.tsv, line 2: column 3 should be the grade"),
        (["evaluate"], "There is no dataset"),
        (["evaluate", "nowhere"], "no folder or file 'nowhere'"),
        (["evaluate", "small", "--measures", "Goodness"], "'Goodness' is not a measure"),
        (["evaluate", "small", "--per-query", "x.xls"], ".csv or .parquet"),
        (["evaluate", "small", "--report", "no/such/x.html"], "does not exist. Make it first"),
        (["evaluate", "small", "--report", "."], "is a folder, but the output is a file"),
        (["evaluate", "small", "--run-out", "small/corpus.jsonl/x.run"], "does not exist. Make it first"),
        (["calibrate", "small", "-o", "no/such/c.json"], "does not exist. Make it first"),
        (["compare", "a.run", "--qrels", "small/qrels/test.tsv"], "two or more"),
    ):
        done = crossrank(*args)
        assert done.code == 1, args
        assert says in done.err
        assert "Traceback" not in done.err
