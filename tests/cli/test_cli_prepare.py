"""``crossrank prepare`` and ``--prepared``, as a process would run them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossrank import CrossEncoder, Reranker
from crossrank.cli.main import main
from crossrank.prepared.documents import PreparedDocuments
from small_collection import write_beir
from split_checkpoints import tiny_split

DOCUMENTS = {f"d{i}": f"document {i} about wings at speed {i * 7}" for i in range(30)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_split(tmp_path_factory.mktemp("cli_prepare"))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in DOCUMENTS.items()))
    return path


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def prepare(capsys: pytest.CaptureFixture[str], tiny: Path, *args: object) -> dict[str, object]:
    code, out, err = run(capsys, "prepare", *args, "--model", tiny, "--precision", "float32", "--json")
    assert code == 0, err
    found: dict[str, object] = json.loads(out)
    return found


def test_prepare_then_rerank(capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    done = prepare(capsys, tiny, docs, "-o", folder)
    assert (done["read"], done["unchanged"], done["documents"]) == (30, 0, 30)
    assert (done["storage"], done["precision"]) == ("int8", "float32")
    common = ("rerank", "wings at speed", docs, "--model", tiny, "--precision", "float32", "--json")
    rows = [json.loads(line) for line in run(capsys, *common, "--prepared", folder)[1].splitlines()]
    plain = [json.loads(line) for line in run(capsys, *common)[1].splitlines()]
    assert {r["corpus_id"] for r in rows[:10]} & {r["corpus_id"] for r in plain[:10]}
    assert {r["corpus_id"]: r["score"] for r in rows} == pytest.approx(
        {r["corpus_id"]: r["score"] for r in plain}, abs=0.05
    )
    code, _, err = run(capsys, "rerank", "q", docs, "--model", tiny, "--precision", "bfloat16", "--prepared", folder)
    assert code == 1
    assert "--precision float32" in err


def test_batch_takes_prepared_documents(
    capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path
) -> None:
    prepare(capsys, tiny, docs, "-o", tmp_path / "p", "--storage", "int4")
    pq.write_table(pa.table({"query": ["wings"] * 30, "document": list(DOCUMENTS.values())}), tmp_path / "in.parquet")
    scores = {}
    for name, extra in (("plain", ()), ("prepared", ("--prepared", tmp_path / "p"))):
        out = tmp_path / f"{name}.parquet"
        common = ("--model", tiny, "--precision", "float32", "--raw")
        code, _, err = run(capsys, "batch", tmp_path / "in.parquet", out, *common, *extra)
        assert code == 0, err
        scores[name] = np.array(pq.read_table(out)["rerank_score"].to_pylist())
    model = CrossEncoder(tiny, precision="float32", prepared=tmp_path / "p")
    expected = model.score([("wings", text) for text in DOCUMENTS.values()]).logits[:, 0]
    np.testing.assert_allclose(scores["prepared"], expected, atol=1e-4)
    # What was stored in 4 bits is not quite what is read anew.
    assert np.abs(scores["prepared"] - scores["plain"]).max() > 1e-3


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "explain", "batch"])
def test_commands_say_how_many_documents_were_prepared(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    """All but six of 30 documents are prepared; explaining reads variants of one of them."""
    monkeypatch.chdir(tmp_path)
    queries = {f"q{i}": f"wings at speed {i * 7}" for i in range(25)}
    candidates = {f"q{i}": [f"d{i + j}" for j in range(6)] for i in range(25)}
    model = CrossEncoder(tiny, precision="float32")
    # What this model of random weights ranks first is relevant, so that it can be calibrated.
    best = {q: model.rank(queries[q], [DOCUMENTS[d] for d in found])[0]["corpus_id"] for q, found in candidates.items()}
    qrels = {q: {found[best[q]]: 1} for q, found in candidates.items()}
    collection = write_beir(tmp_path / "set", documents=DOCUMENTS, queries=queries, qrels=qrels, candidates=candidates)
    (tmp_path / "some.jsonl").write_text("".join((collection / "corpus.jsonl").read_text().splitlines(True)[:24]))
    prepare(capsys, tiny, "some.jsonl", "-o", "p")
    rows = [{"query": queries[q], "documents": [DOCUMENTS[d] for d in found]} for q, found in candidates.items()]
    pq.write_table(pa.Table.from_pylist(rows), "in.parquet")
    arguments = {
        "evaluate": ("set",),
        "calibrate": ("set", "-o", "c.json", "--assume-irrelevant"),
        "explain": (queries["q0"], DOCUMENTS["d0"], "--unit", "sentence"),
        "batch": ("in.parquet", "out.parquet"),
    }
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    common = ("--model", tiny, "--precision", "float32", "--prepared", "p")
    code, _, err = run(capsys, command, *arguments[command], *common)
    assert code == 0, err
    found = re.search(r"prepared: (\d+) of (\d+)", err)
    assert found is not None, err
    prepared, documents = map(int, found.groups())
    # An evaluation has a call for the first query, with 6 documents, and one for the others, with 29.
    expected = {"evaluate": (6 + 23, 6 + 29), "calibrate": (24, 30), "batch": (24, 30)}
    if command in expected:
        assert (prepared, documents) == expected[command]
    else:
        assert 1 <= prepared < documents


def test_documents_that_have_only_an_id(
    capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path
) -> None:
    prepare(capsys, tiny, docs, "-o", tmp_path / "p")
    ids = tmp_path / "ids.jsonl"
    ids.write_text("".join(json.dumps({"id": i}) + "\n" for i in DOCUMENTS))
    common = ("--model", tiny, "--precision", "float32", "--prepared", tmp_path / "p")
    by_text, by_id = (
        [json.loads(line) for line in run(capsys, "rerank", "wings", file, *common, "--json")[1].splitlines()]
        for file in (docs, ids)
    )
    assert [row["corpus_id"] for row in by_id] == [row["corpus_id"] for row in by_text]
    assert by_id[0]["document"] == {"id": by_text[0]["document"]["id"]}
    # A batch job sets a row with an unknown id aside.
    rows = [{"query": "wings", "documents": [{"id": i} for i in some]} for some in (["d0", "d1"], ["d2", "nowhere"])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run(capsys, "batch", tmp_path / "in.jsonl", tmp_path / "out.parquet", *common)
    assert code == 3, err
    [row] = pq.read_table(tmp_path / "out.parquet").to_pylist()
    scores = {row["document"]["id"]: row["score"] for row in by_text}
    assert row["rerank_scores"] == pytest.approx([scores["d0"], scores["d1"]], abs=1e-5)
    assert "The id 'nowhere' is not among the 30 documents" in (tmp_path / "out.parquet.bad.jsonl").read_text()
    with ids.open("a") as file:
        file.write('{"id": "nowhere"}\n')
    code, _, err = run(capsys, "rerank", "wings", ids, *common)
    assert code == 1
    assert "The id 'nowhere' is not among" in err
    code, _, err = run(capsys, "rerank", "wings", ids, "--model", tiny)
    assert code == 1
    assert "it has no field" in err


def test_a_pipeline_file_names_prepared_documents(
    capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path
) -> None:
    prepare(capsys, tiny, docs, "-o", tmp_path / "p")
    file = tmp_path / "pipeline.toml"
    stage = {"type": "cross-encoder", "model": str(tiny), "precision": "float32", "prepared": str(tmp_path / "p")}
    file.write_text("[[stages]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in stage.items()))
    ranked = Reranker.from_file(file).rank("wings", list(DOCUMENTS.values()))
    assert "prepared: 30 of 30" in ranked.stages[0].notes
    code, _, err = run(capsys, "rerank", "wings", docs, "--pipeline", file, "--prepared", tmp_path / "p")
    assert code == 1
    assert "--prepared is for one model" in err


def test_only_what_changed_is_read_and_what_is_gone_goes(
    capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    prepare(capsys, tiny, docs, "-o", folder)
    lines = docs.read_text().splitlines(keepends=True)
    docs.write_text("".join([*lines[5:], json.dumps({"id": "d6", "text": "new"}).replace("d6", "new") + "\n"]))
    done = prepare(capsys, tiny, docs, "-o", folder)
    assert (done["read"], done["unchanged"], done["removed"], done["documents"]) == (1, 25, 0, 31)
    done = prepare(capsys, tiny, docs, "-o", folder, "--prune")
    assert (done["read"], done["removed"], done["documents"]) == (0, 5, 26)


def test_folders_parquet_lines_and_beir(
    capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    docs.rename(many / "a.jsonl")
    (many / "b.txt").write_text("a line\n\nanother line\n")
    pq.write_table(pa.table({"id": [1, 2], "body": ["first row", "second row"]}), many / "c.parquet")
    assert prepare(capsys, tiny, many, "-o", tmp_path / "p")["documents"] == 34
    found = PreparedDocuments(tmp_path / "p")
    assert found.find("first row") is not None
    assert found.stored(["1", f"{many / 'b.txt'}:3"])
    beir = tmp_path / "beir"
    beir.mkdir()
    (beir / "corpus.jsonl").write_text(json.dumps({"_id": "x", "title": "Wings", "text": "lift"}) + "\n")
    assert prepare(capsys, tiny, beir, "-o", tmp_path / "q")["documents"] == 1
    assert PreparedDocuments(tmp_path / "q").find("Wings lift") is not None


def test_repair(capsys: pytest.CaptureFixture[str], tiny: Path, docs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    prepare(capsys, tiny, docs, "-o", folder)
    (segment,) = folder.glob("segment-*")
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    done = prepare(capsys, tiny, docs, "-o", folder, "--repair")
    assert (done["damaged"], done["read"], done["documents"]) == (1, 1, 30)
    assert prepare(capsys, tiny, docs, "-o", folder, "--repair")["damaged"] == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"id": "a", "text": "one"}\n{"id": "a", "text": "two"}\n', "'a' has another text"),
        ('{"id": "a"}\n', "line 1"),
        ('{"id": "a", "text": 3}\n', "line 1"),
    ],
)
def test_bad_files_are_one_line(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    code, out, err = run(capsys, "prepare", tmp_path / "bad.jsonl", "-o", tmp_path / "p", "--model", tiny)
    assert (code, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1


def test_nothing_to_prepare(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "prepare", "-o", tmp_path / "p")
    assert code == 1
    assert "No FILE" in err
    code, _, err = run(capsys, "rerank", "q", tmp_path, "--prepared", tmp_path / "none")
    assert code == 1
    assert "crossrank prepare" in err
