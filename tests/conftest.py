from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before any test imports Haystack, which would report its use.
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")

import pytest
import torch

import browser
import database
from checkpoints import make_checkpoint

SHARED = Path(__file__).parents[2] / "shared" / "data"


def _runs(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True).returncode == 0


# What a marked test needs, and whether it is there.
NEEDS = {"shared_data": (SHARED, SHARED.exists), "gpu": ("a CUDA device", torch.cuda.is_available)}
NEEDS["browser"] = ("chromium", lambda: browser.PROGRAM is not None)
NEEDS["namespaces"] = ("a mount namespace", lambda: _runs("unshare", "--map-root-user", "--mount", "true"))
NEEDS["npm"] = ("npm", lambda: shutil.which("npm") is not None and shutil.which("node") is not None)
NEEDS["java"] = ("a Java runtime", lambda: shutil.which("java") is not None)
NEEDS["postgres"] = ("PostgreSQL's server", lambda: database.PROGRAMS is not None)
NEEDS["fork"] = ("os.fork", lambda: hasattr(os, "fork"))
NEEDS["proc"] = ("Linux's /proc", Path("/proc/self/status").exists)
_left_out = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several test processes a processor of its own, so that none disturbs the others' timing."""
    config.stash[_left_out] = {}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        # A shell's background job ignores interrupts, and so would the processes that tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})
        torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, not skip, what can't run here for want of something that no command installs."""
    for marker, (_, there) in NEEDS.items():
        out = [item for item in items if item.get_closest_marker(marker)]
        if out and not there():
            config.stash[_left_out][marker] = len(out)
            config.hook.pytest_deselected(items=out)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test process tells the one that started it what it left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[_left_out]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """All of them leave out the same; one that crashed says nothing."""
    node.config.stash[_left_out] |= getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for marker, count in config.stash.get(_left_out, {}).items():
        terminalreporter.write_line(f"{count} tests left out: they need {NEEDS[marker][0]}, which is missing.")


@pytest.fixture(scope="module")
def float32() -> Iterator[None]:
    """For files whose tests compare scores closely: a model without a precision of its own runs in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSRANK_PRECISION", "float32")
        yield


@pytest.fixture(scope="session")
def minilm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model in the true shape of ms-marco-MiniLM-L6."""
    return make_checkpoint(
        tmp_path_factory.mktemp("minilm"),
        "bert",
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=1,
        initializer_range=0.1,
    )


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 2 layers and hidden size 32."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny_bert"), "bert")
