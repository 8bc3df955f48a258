"""A change of model without a gap, several models, pipelines: with a real server process."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import texts
from checkpoints import make_checkpoint
from crossrank import CrossEncoder, ModelRegistry
from serving import Server, serve

QUERY = "how does a wing stall"
DOCUMENTS = [passage[:200] for passage in texts.passages()[:40]]
BODY = {"queries": QUERY, "documents": DOCUMENTS}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("second"), "bert", seed=1)


def scores_of(folder: Path) -> np.ndarray[Any, Any]:
    return CrossEncoder(str(folder), precision="float32").score([(QUERY, text) for text in DOCUMENTS]).scores


def until(happens: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happens():
            return True
        time.sleep(0.05)
    return False


def serving(server: Server) -> tuple[str, list[float]]:
    answer = server.post(BODY).json()
    return answer["crossrank"]["model_version"], [row["score"] for row in answer["data"]]


def test_a_registry_moves_under_load(tmp_path: Path, tiny_bert: Path, second: Path) -> None:
    registry = ModelRegistry(tmp_path / "live")
    old = registry.publish(tiny_bert)
    registry.switch(old)
    new = registry.publish(second)
    expected = {old.name: scores_of(tiny_bert), new.name: scores_of(second)}
    assert np.abs(expected[old.name] - expected[new.name]).max() > 0.01
    with serve(tmp_path / "log", "--model", f"live=registry:{tmp_path / 'live'}", "--watch-seconds", "0.1") as server:
        stop = threading.Event()

        def ask() -> list[str]:
            versions = []
            with httpx.Client(base_url=server.url, timeout=60) as client:
                while not stop.is_set():
                    response = client.post("/score", json=BODY)
                    assert response.status_code == 200
                    answer = response.json()
                    versions.append(answer["crossrank"]["model_version"])
                    # All scores are of the one version that the answer names.
                    found = [row["score"] for row in answer["data"]]
                    np.testing.assert_allclose(found, expected[versions[-1]], atol=1e-5)
            return versions

        with ThreadPoolExecutor(64) as threads:
            running = [threads.submit(ask) for _ in range(64)]
            time.sleep(0.5)
            registry.switch(new)
            changed = until(lambda: serving(server)[0] == new.name)
            time.sleep(0.3)
            stop.set()
            seen = {version for each in running for version in each.result()}
        assert changed
        assert seen == {old.name, new.name}
        registry.rollback()
        assert until(lambda: serving(server)[0] == old.name)


def test_a_broken_version_leaves_the_old_one_serving(tmp_path: Path, tiny_bert: Path) -> None:
    registry = ModelRegistry(tmp_path / "live")
    old = registry.publish(tiny_bert)
    registry.switch(old)
    broken = Path(shutil.copytree(tiny_bert, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    with serve(tmp_path / "log", "--model", f"live=registry:{tmp_path / 'live'}", "--watch-seconds", "0.1") as server:
        registry.switch(registry.publish(broken))

        def error() -> str | None:
            answer: str | None = server.client.get("/info").json()["crossrank"]["models"]["live"]["error"]
            return answer

        assert until(lambda: error() is not None)
        assert "safetensors" in (error() or "")
        assert serving(server)[0] == old.name
        time.sleep(0.5)  # it is not tried again and again
        assert sum(line["message"] == "reload failed" for line in server.logged()) == 1
        assert server.client.get("/ready").status_code == 200
        answer = server.client.post("/admin/reload")
        assert answer.status_code == 500
        assert answer.json()["models"]["live"]["status"] == "failed"
        registry.rollback()
        assert server.client.post("/admin/reload").json()["models"]["live"]["status"] == "unchanged"
        assert error() is None


def test_a_folder_is_reloaded_when_told(tmp_path: Path, tiny_bert: Path, second: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    with serve(tmp_path / "log", "--model", f"m={folder}") as server:
        np.testing.assert_allclose(serving(server)[1], scores_of(tiny_bert), atol=1e-5)
        shutil.rmtree(folder)
        np.testing.assert_allclose(serving(server)[1], scores_of(tiny_bert), atol=1e-5)
        failed = server.client.post("/admin/reload").json()["models"]["m"]
        assert failed["status"] == "failed"
        assert str(folder) in failed["reason"]
        np.testing.assert_allclose(serving(server)[1], scores_of(tiny_bert), atol=1e-5)
        shutil.copytree(second, folder)
        server.process.send_signal(signal.SIGHUP)
        new = CrossEncoder(str(second)).identity
        assert until(lambda: serving(server)[0] == new)
        np.testing.assert_allclose(serving(server)[1], scores_of(second), atol=1e-5)


def test_models_are_unloaded_for_room(tmp_path: Path, tiny_bert: Path, second: Path) -> None:
    size = sum(path.stat().st_size for path in tiny_bert.rglob("*") if path.is_file())
    flags = ["--model", f"a={tiny_bert}", "--model", f"b={second}", "--max-model-bytes", str(int(1.5 * size))]
    with serve(tmp_path / "log", *flags, "--strict-models") as server:

        def loaded() -> list[str]:
            models = server.client.get("/info").json()["crossrank"]["models"]
            return [name for name, facts in models.items() if facts["loaded"]]

        assert loaded() == ["a"]
        for name, folder in (("b", second), ("a", tiny_bert), ("b", second)):
            scores = [row["score"] for row in server.post({**BODY, "model": name}).json()["data"]]
            np.testing.assert_allclose(scores, scores_of(folder), atol=1e-5)
            assert loaded() == [name]
        unknown = server.post({**BODY, "model": "c"})
        assert unknown.status_code == 404
        assert "There are: a, b" in unknown.json()["message"]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda i: server.post({**BODY, "model": "ab"[i % 2]}), range(24)))
        assert {answer.status_code for answer in answers} == {200}


def test_a_pipeline_is_served_like_a_model(tmp_path: Path, tiny_bert: Path) -> None:
    file = tmp_path / "pipeline.toml"
    stage = f'[[stages]]\ntype = "cross-encoder"\nmodel = "{tiny_bert}"\nprecision = "float32"\n'
    file.write_text(f"{stage}keep = 5\nname = 'first'\n{stage}name = 'second'\n")
    with serve(tmp_path / "log", "--pipeline", f"two={file}") as server:
        answer = server.post({"query": QUERY, "documents": DOCUMENTS}).json()
        expected = scores_of(tiny_bert)
        best = np.argsort(-expected, kind="stable")[:5]
        results = answer["results"]
        assert len(results) == 40
        assert [row["index"] for row in results[:5]] == best.tolist()
        np.testing.assert_allclose([row["relevance_score"] for row in results[:5]], expected[best], atol=1e-5)
        assert {row["relevance_score"] for row in results[5:]} == {0.0}
        assert answer["model"] == "two"
