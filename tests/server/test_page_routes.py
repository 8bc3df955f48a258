"""What the page asks the server for: its files, explanations, where a model stops to read, versions, rolling back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

import pytest
from transformers import AutoTokenizer

from checkpoints import make_checkpoint
from crossrank import CrossEncoder, ModelRegistry
from crossrank.evaluation.explain import explain
from serving import Server, serve

QUERY = "how does a wing stall"
DOCUMENT = (
    "A wing stalls when the air no longer follows its upper side. Bakers make bread. \N{GRINNING FACE} Lift is lost."
)
KEY = {"authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("registry")
    made = ModelRegistry(folder / "live")
    made.switch(made.publish(tiny_bert))
    made.switch(
        made.publish(make_checkpoint(folder / "second", "bert", seed=1)), record={"decision": {"promoted": True}}
    )
    (made.folder / "decisions").mkdir()
    refused = {"promoted": False, "reasons": ["Worse."], "time": "2026-11-24T12:00:00+00:00"}
    (made.folder / "decisions" / "one.json").write_text(json.dumps(refused))
    (made.folder / "decisions" / "broken.json").write_text("{")
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Iterator[Server]:
    pipeline = tmp_path_factory.mktemp("pipeline") / "two.toml"
    pipeline.write_text(f'[[stages]]\nkind = "cross_encoder"\nmodel = "{tiny_bert.as_posix()}"\n')
    log = tmp_path_factory.mktemp("log") / "log"
    with serve(log, "--model", f"tiny={tiny_bert}", "--pipeline", f"pipe={pipeline}") as running:
        yield running


@pytest.fixture
def guarded(tmp_path: Path, registry: ModelRegistry) -> Iterator[Server]:
    (tmp_path / "keys").write_text("secret\n")
    flags = ["--model", f"live=registry:{registry.folder}", "--keys-file", str(tmp_path / "keys")]
    with serve(tmp_path / "log", *flags) as running:
        yield running


def test_files_come_without_a_key_and_allow_nothing_foreign(guarded: Server) -> None:
    kinds = {"": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    wanted, seen = ["/"], {"/"}
    while wanted:
        path = wanted.pop()
        answer = guarded.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith(kinds[PurePosixPath(path).suffix])
        # What the page loads, and what its scripts import.
        links = re.findall(r'(?:(?:src|href)=|^import .* from )"([^"#]+)"', answer.text, re.MULTILINE)
        found = {urljoin(path, link) for link in links}
        wanted += found - seen
        seen |= found
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http://" not in answer.text.replace("http://www.w3.org/", "")
        assert "https://" not in answer.text
    # Each file beside the page is one that the page loads.
    folder = files("crossrank.server") / "page"
    assert {PurePosixPath(path).name or "index.html" for path in seen} == {one.name for one in folder.iterdir()}


def test_facts_take_a_key_where_there_are_keys(guarded: Server, server: Server, registry: ModelRegistry) -> None:
    assert guarded.client.get("/page/facts").status_code == 401
    facts = guarded.client.get("/page/facts", headers=KEY).json()
    first, second = registry.versions()
    (model,) = facts["models"]
    assert facts["keys"] is True
    assert (model["name"], model["registry"]["current"], model["registry"]["before"]) == (
        "live",
        second.name,
        [first.name],
    )
    assert [one["name"] for one in model["registry"]["versions"]] == [first.name, second.name]
    # What the history has, and what was refused; a file that is broken is passed over.
    assert [one["promoted"] for one in model["registry"]["decisions"]] == [True, False]
    assert server.client.get("/page/facts").json()["models"][0]["registry"] is None


def test_an_explanation_is_the_librarys_own(server: Server, tiny_bert: Path) -> None:
    expected = explain(CrossEncoder(str(tiny_bert), precision="float32"), QUERY, DOCUMENT, budget=128)
    answer = server.post({"query": QUERY, "document": DOCUMENT, "model": "tiny"}, "/v1/explain")
    told = answer.json()
    assert told["logit"] == pytest.approx(expected.logit, abs=1e-4)
    for part in ("words", "sentences", "query_spans"):
        spans = getattr(expected, part)
        assert [(one["start"], one["end"], one["text"]) for one in told[part]] == [
            (one.start, one.end, one.text) for one in spans
        ]
        assert [one["weight"] for one in told[part]] == pytest.approx([one.weight for one in spans], abs=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/explain", {"query": QUERY, "document": DOCUMENT, "model": "pipe"}, 422, "pipeline"),
        ("/v1/explain", {"query": QUERY}, 422, "document"),
        ("/v1/explain", {"document": DOCUMENT}, 422, "query"),
        ("/v1/cut", {"query": "x" * 40_000, "documents": [DOCUMENT]}, 422, "40000"),
        ("/v1/cut", {"query": QUERY, "documents": 7}, 422, "list"),
        ("/v1/rollback", {"model": "tiny"}, 403, "--keys-file"),
    ],
)
def test_bad_requests_are_told_what_to_do(server: Server, path: str, body: object, status: int, words: str) -> None:
    answer = server.post(body, path)
    assert (answer.status_code, words in answer.json()["message"]) == (status, True)


def test_where_reading_stopped_is_where_the_kept_tokens_end(server: Server, tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    long = "The wing \N{GRINNING FACE} stalls and falls. " * 200
    body = {"query": QUERY, "documents": [DOCUMENT, long], "model": "tiny"}
    tokens = {one["index"]: one["tokens"] for one in server.post(body).json()["crossrank"]["cut"]}
    read = server.post(body, "/v1/cut").json()["read"]
    assert set(tokens) == {1}
    assert read[0] == len(DOCUMENT)
    whole, kept = (len(tokenizer.tokenize(text)) for text in (long, long[: read[1]]))
    assert whole - kept == tokens[1]


def test_rolling_back_takes_a_key_and_serves_at_once(guarded: Server, registry: ModelRegistry) -> None:
    first, second = registry.versions()
    assert guarded.post({"model": "live"}, "/v1/rollback").status_code == 401
    assert guarded.post({"model": "no"}, "/v1/rollback", **KEY).status_code == 404
    missing = guarded.post({"model": "live", "to": "9-00000000"}, "/v1/rollback", **KEY)
    assert missing.status_code == 422
    assert registry.current() == second
    done = guarded.post({"model": "live"}, "/v1/rollback", **KEY)
    assert (done.status_code, done.json()["serving"]) == (200, first.name)
    ranked = guarded.post({"query": QUERY, "documents": [DOCUMENT]}, **KEY)
    assert ranked.json()["crossrank"]["model_version"] == first.name
    assert registry.current() == first
    registry.switch(second)
