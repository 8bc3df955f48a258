"""Nothing on our paths phones home. In processes of their own: what is imported first decides."""

from __future__ import annotations

import os
import subprocess
import sys

# OpenVINO's telemetry keeps quiet where it sees a continuous integration server, so that has to be hidden from it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("CI", "HF_HUB_DISABLE_TELEMETRY")}

LISTEN = """
import sys
spoken = []
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.fork"):
        spoken.append((event, arguments))
sys.addaudithook(hook)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_ranking_with_the_box_opens_no_connection() -> None:
    code = f"""{LISTEN}
from crossrank import CrossEncoder
CrossEncoder().rank("a query", ["a document", "another"])
print(spoken, [name for name in sys.modules if "telemetry" in name])
"""
    assert run(code) == "[] []"


def test_the_listener_hears_openvino_when_it_is_imported_whole() -> None:
    """Else the test above could not fail."""
    code = f"""{LISTEN}
import openvino
print(any("telemetry" in name for name in sys.modules))
"""
    assert run(code) == "True"


def test_the_hub_is_asked_for_models_only() -> None:
    code = """
import crossrank.checkpoint.hub
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY)
"""
    assert run(code) == "True"
