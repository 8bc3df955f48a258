"""Prepared documents behind a real server process: the scores of the library, the counts of what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossrank import CrossEncoder, PreparedDocuments
from crossrank.cli.main import main
from serving import Server, serve

QUERY = "when do I get my money back"
TEXTS = ["Refunds take five days.", "We ship to Norway.", "The museum is closed on Mondays."]


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedDocuments:
    documents = PreparedDocuments(tmp_path / "prepared", precision="float32")
    documents.add(["refunds", "shipping"], TEXTS[:2])
    return documents


def counts(server: Server, model: str) -> tuple[float, float]:
    label = f'{{dialect="rerank",model="{model}"}}'
    lines = dict(line.rpartition(" ")[::2] for line in server.client.get("/metrics").text.splitlines())
    return tuple(float(lines[f"crossrank_documents_{what}_total{label}"]) for what in ("cached", "prepared"))  # type: ignore[return-value]


def test_prepared_documents_are_found_and_counted(tmp_path: Path, prepared: PreparedDocuments) -> None:
    with serve(
        tmp_path / "log", "--prepared", str(prepared.folder), "--model", "bundled", "--model", "own=bundled"
    ) as server:
        body = {"query": QUERY, "documents": TEXTS}
        first, second = server.post(body).json(), server.post({**body, "query": "where do you ship to"}).json()
        assert [first["crossrank"][f"documents_{what}"] for what in ("cached", "prepared")] == [0, 2]
        assert [second["crossrank"][f"documents_{what}"] for what in ("cached", "prepared")] == [1, 2]
        assert counts(server, "bundled") == (1, 4)
        expected = CrossEncoder(prepared=prepared, precision="float32").rank(QUERY, TEXTS)
        assert [row["index"] for row in first["results"]] == [row["corpus_id"] for row in expected]
        np.testing.assert_allclose(
            [row["relevance_score"] for row in first["results"]], [row["score"] for row in expected], atol=1e-5
        )
        # The other model has none, and remembers what it has read itself.
        assert server.post({**body, "model": "own"}).json()["crossrank"]["documents_prepared"] == 0
        assert server.post({**body, "model": "own"}).json()["crossrank"]["documents_cached"] == 3
        assert counts(server, "own") == (3, 0)
        models = server.client.get("/info").json()["crossrank"]["models"]
        assert models["bundled"]["prepared"]["documents"] == 2
        assert models["bundled"]["document_cache"]["prepared"] == 4
        assert models["own"]["prepared"] is None
        assert models["own"]["document_cache"]["hits"] == 3
        # What another process prepares is found after a reload.
        prepared.add(["museum"], TEXTS[2:])
        assert server.client.post("/admin/reload").status_code == 200
        assert server.client.get("/info").json()["crossrank"]["models"]["bundled"]["prepared"]["documents"] == 3
        assert server.post(body).json()["crossrank"]["documents_prepared"] == 3


def test_a_model_of_the_file_has_its_own(tmp_path: Path, prepared: PreparedDocuments) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        f"[models.plain]\nmodel = 'bundled'\n[models.fast]\nmodel = 'bundled'\nprepared = '{prepared.folder}'"
    )
    with serve(tmp_path / "log", "--config", str(file)) as server:
        facts = server.post({"query": QUERY, "texts": TEXTS, "model": "fast"}).headers
        assert facts["x-crossrank-model"] == "fast"
        assert facts["x-crossrank-documents-prepared"] == "2"
        assert server.metric("crossrank_documents_prepared_total") == 2


def test_prepared_documents_that_can_not_be_used(
    tmp_path: Path, prepared: PreparedDocuments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--prepared", str(tmp_path / "nowhere")]) == 1
    assert "holds no prepared documents" in capsys.readouterr().err
    assert main(["serve", "--prepared", str(prepared.folder), "--pipeline", "p=p.toml"]) == 1
    assert "is for a model, and the default here is the pipeline 'p'" in capsys.readouterr().err
    with serve(tmp_path / "log", "--prepared", str(prepared.folder), "--max-length", "100", wait=False) as server:
        refused = server.post({"query": QUERY, "documents": TEXTS})
        assert refused.status_code == 424
        assert "were prepared with max_length=" in refused.json()["message"]


def test_document_cache_off(tmp_path: Path) -> None:
    with serve(tmp_path / "log", "--document-cache", "0") as server:
        answers = [server.post({"query": QUERY, "documents": TEXTS}).json() for _ in range(2)]
    assert [answer["crossrank"]["documents_cached"] for answer in answers] == [0, 0]
