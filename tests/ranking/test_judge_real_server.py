"""A judge against a real server with a real, if senseless, model: ``transformers serve``."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crossrank.errors import StageError
from crossrank.ranking.judge.llm_judge import LLMJudge
from decoder_checkpoints import make_decoder
from service import Reply, graded, serving

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_START = "from transformers.cli.transformers import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("judge") / "tiny", "qwen2", chat_template=_TEMPLATE)


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the model, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-c", _START, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen([*command, "--device", "cpu"], stdout=output, stderr=output)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise TimeoutError(log.read_text())
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize("mode", ["grade", "listwise"])
def test_a_model_that_talks_nonsense_is_not_believed(url: str, model: Path, mode: str) -> None:
    judge = LLMJudge(str(model), base_url=url, mode=mode, max_retries=1, max_tokens=16, max_concurrency=1)
    with pytest.raises(StageError, match=r"judged nothing: .*(could not be used|cut off)") as caught:
        judge.score("capital of France?", ["Berlin is a city.", "Paris is the capital of France."])
    assert caught.value.retryable
    # Each was asked about twice, and what that took was counted.
    requests, tokens = [int(word) for word in str(caught.value).split() if word.isdigit()][-2:]
    assert requests == (4 if mode == "grade" else 2)
    assert tokens > 500 * requests


def test_nonsense_of_a_real_model_beside_a_sound_answer(url: str, model: Path) -> None:
    """A relay that answers about one document itself, and passes the other on to the model."""

    def relay(asked):
        if "Paris" in asked.body["messages"][1]["content"]:
            return graded(asked, 3)
        request = urllib.request.Request(
            url + "/chat/completions", json.dumps(asked.body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return Reply(json.load(response))

    with serving(relay) as service:
        judge = LLMJudge(str(model), base_url=service.url, max_retries=1, max_tokens=16)
        scores = judge.score("capital of France?", ["Berlin is a city.", "Paris is the capital of France."])
    np.testing.assert_array_equal(scores.scores, [np.nan, 3])
    assert scores.degraded.startswith("1 of 2 documents could not be judged")
    assert scores.tokens > 1000
