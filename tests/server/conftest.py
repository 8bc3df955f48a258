from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import browser as chromium
from checkpoints import make_checkpoint
from crossrank import ModelRegistry
from crossrank.evaluation.result import PairedComparison
from crossrank.training.decision import Criteria, Decision
from serving import Server, serve


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium.PROGRAM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("second"), "bert", seed=1)


@pytest.fixture
def page(opened: Browser) -> Iterator[Page]:
    """A page that may not complain: no error in the script, nothing that the policy had to stop."""
    context = opened.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    made.set_default_timeout(20_000)
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda message: complaints.append(message.text) if "Security Policy" in message.text else None)
    made.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield made
    context.close()
    assert not complaints


@pytest.fixture
def registry(tmp_path: Path, tiny_bert: Path, second: Path) -> ModelRegistry:
    made = ModelRegistry(tmp_path / "live")
    first = made.publish(tiny_bert)
    made.switch(first)
    version = made.publish(second)
    figures = PairedComparison(
        *("in use", "candidate", "nDCG@10", 212, (0.7412, 0.7696), 0.0284, (0.0121, 0.0452), 0.1, 0.0002, 0.0002),
        *(90, 40, 82, "feedback"),
    )
    guard = replace(figures, difference=-0.0008, interval=(-0.0062, 0.0049), p=0.71)
    decision = Decision(
        promoted=True,
        reasons=("Better: <b>nDCG@10</b> rose.",),
        data=figures,
        guard=guard,
        queries_needed=None,
        detectable=0.02,
        criteria=Criteria(),
        candidate={"name": "candidate"},
        against={"name": first.name},
        time="2026-11-24T12:00:00+00:00",
        version=version.name,
    ).as_dict()
    made.switch(version, record={"decision": decision})
    return made


@pytest.fixture
def learning(tmp_path: Path, registry: ModelRegistry) -> Iterator[Server]:
    (tmp_path / "keys").write_text("secret\n")
    flags = ["--model", f"live=registry:{registry.folder}", "--keys-file", str(tmp_path / "keys")]
    with serve(tmp_path / "log", *flags, "--watch-seconds", "0.1", wait=False) as running:
        yield running
