"""A real ``crossrank serve`` process on loopback, as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx


@dataclass
class Server:
    process: subprocess.Popen[str]
    url: str
    log: Path
    start_seconds: float
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=300)

    def post(self, body: Any, path: str = "/v1/rerank", **headers: str) -> httpx.Response:
        return self.client.post(path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[{{ ]", line))


@contextlib.contextmanager
def serve(log: Path, *flags: str, wait: bool = True, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start one, with float32 so that scores can be compared; stop it at the end."""
    command = [sys.executable, "-m", "crossrank", "serve", "--port", "0", "--precision", "float32", *flags]
    started = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, text=True, env={**os.environ, **(environment or {})}
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"https?://\S+", line)
        assert found, f"{line!r} {log.read_text()}"
        server = Server(process, found[0], log, time.perf_counter() - started)
        if wait:
            assert server.client.get("/ready").status_code == 200, log.read_text()
        yield server
        server.client.close()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
