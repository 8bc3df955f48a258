"""``crossrank mcp`` in a process of its own, spoken to by the SDK's client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from crossrank import CrossEncoder
from crossrank.evaluation.explain import explain

pytest.importorskip("mcp")

QUERY = "how do I undo a commit"
TEXTS = [
    "The museum is closed on Mondays.",
    "git reset --soft HEAD~1 undoes the last commit.",
    "git log shows commits.",
]
SOURCE = str(Path(__file__).parents[2] / "src")


def with_client(folder: Path, use: Callable[[Any], Awaitable[Any]]) -> Any:
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    async def run() -> Any:
        command = ["-m", "crossrank", "mcp", "--folder", str(folder), "--precision", "float32"]
        parameters = StdioServerParameters(
            command=sys.executable, args=command, env={**os.environ, "PYTHONPATH": SOURCE}, cwd=folder
        )
        async with Client(stdio_client(parameters)) as client:
            return await use(client)

    return asyncio.run(asyncio.wait_for(run(), 120))


def test_rerank_texts_and_files(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "long.txt").write_text("Nothing of interest is here. " * 400 + TEXTS[1] + " More. " * 400)

    async def use(client: Any) -> Any:
        names = {tool.name: tool for tool in (await client.list_tools()).tools}
        texts = await client.call_tool("rerank", {"query": QUERY, "documents": TEXTS})
        both = await client.call_tool(
            "rerank", {"query": QUERY, "documents": TEXTS[::2], "files": ["notes/long.txt"], "top_k": 2}
        )
        return names, texts, both

    names, texts, both = with_client(tmp_path, use)
    assert set(names) == {"rerank", "explain"}
    assert names["rerank"].input_schema["required"] == ["query"]
    rows = texts.structured_content["results"]
    expected = CrossEncoder(precision="float32").rank(QUERY, TEXTS)
    assert [row["index"] for row in rows] == [row["corpus_id"] for row in expected]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)
    assert rows[0]["passage"] == TEXTS[1]
    first, second = both.structured_content["results"]
    assert (first["index"], first["file"]) == (2, "notes/long.txt")
    assert TEXTS[1] in first["passage"] or len(first["passage"]) == 600
    assert first["score"] > second["score"]


def test_explain(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(TEXTS[1])

    async def use(client: Any) -> Any:
        return [
            (await client.call_tool("explain", {"query": QUERY, **where})).structured_content
            for where in ({"document": TEXTS[1]}, {"file": "one.txt"})
        ]

    by_text, by_file = with_client(tmp_path, use)
    assert by_text == by_file
    wanted = explain(CrossEncoder(precision="float32"), QUERY, TEXTS[1])
    assert by_text["raw_score"] == pytest.approx(wanted.logit, abs=1e-4)
    heaviest = max(wanted.words, key=lambda span: abs(span.weight))
    assert by_text["words"][0]["text"] == heaviest.text
    assert by_text["words"][0]["weight"] == pytest.approx(heaviest.weight, abs=1e-4)


def test_what_an_agent_does_wrong_is_said(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "binary").write_bytes(b"\xff\xfe\x00")
    (inside / "link").symlink_to(tmp_path / "secret.txt")
    wrong: dict[str, dict[str, Any]] = {
        "is not in": {"query": QUERY, "files": ["../secret.txt"]},
        "where files may be read": {"query": QUERY, "files": ["link"]},
        "No such file": {"query": QUERY, "files": ["none.txt"]},
        "byte 1 is not UTF-8": {"query": QUERY, "files": ["binary"]},
        "nothing to order": {"query": QUERY},
        "the limit is 1000": {"query": QUERY, "documents": ["a"] * 1001},
        "The query is empty": {"query": " ", "documents": ["a"]},
        "greater than or equal to 1": {"query": QUERY, "documents": ["a"], "top_k": 0},
    }

    async def use(client: Any) -> Any:
        answers = [await client.call_tool("rerank", arguments) for arguments in wrong.values()]
        answers.append(await client.call_tool("explain", {"query": QUERY}))
        assert not (await client.call_tool("rerank", {"query": QUERY, "documents": TEXTS})).is_error
        return answers

    answers = with_client(inside, use)
    for said, answer in zip([*wrong, "Give either document"], answers, strict=True):
        assert answer.is_error
        assert said in answer.content[0].text
        assert "secret" not in answer.content[0].text.replace("secret.txt", "")


def test_it_ends_with_its_input_and_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "crossrank", "mcp", "--folder"]
    for folder, code, said in ((tmp_path, 0, ""), (tmp_path / "none", 1, "There is no folder")):
        done = subprocess.run(
            [*command, str(folder)], input="", capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": SOURCE},
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
