"""OpenTelemetry: spans of a real server process, as a collector receives them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from crossrank.cli.main import main
from serving import serve

QUERY, TEXTS = "undo a commit", ["git reset", "git log"]


class Collector:
    """Receives OTLP over HTTP on loopback."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                received.append(
                    ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, str]:
        attributes = self.received[0].resource_spans[0].resource.attributes
        return {one.key: one.value.string_value for one in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def values(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_collector_gets_a_span_for_each_request(tmp_path: Path, collector: Collector) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_RESOURCE_ATTRIBUTES": "deployment=test"}
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serve(tmp_path / "log", "--log-texts", environment=environment) as server:
        first = server.post(
            {"query": QUERY, "documents": TEXTS}, x_request_id="r-1", traceparent=f"00-{trace}-{parent}-01"
        )
        tokens = first.json()["usage"]["total_tokens"]
        assert server.post({"query": " ", "texts": TEXTS}, "/rerank").status_code == 422
    # A stopping server sends what waits.
    ranked, refused = collector.spans
    assert ranked.name == "POST /v1/rerank"
    assert (ranked.trace_id.hex(), ranked.parent_span_id.hex()) == (trace, parent)
    assert 0 < ranked.end_time_unix_nano - ranked.start_time_unix_nano < 60e9
    found = values(ranked)
    assert found["http.response.status_code"] == 200
    assert found["crossrank.request_id"] == "r-1"
    assert found["crossrank.model"] == "bundled"
    assert found["crossrank.model_version"] == first.headers["x-crossrank-model-version"]
    assert (found["crossrank.documents"], found["crossrank.tokens"]) == (2, tokens)
    assert values(refused)["http.response.status_code"] == 422
    assert collector.resource()["service.name"] == "crossrank"
    assert collector.resource()["deployment"] == "test"
    sent = b"".join(request.SerializeToString() for request in collector.received)
    assert not any(text.encode() in sent for text in (QUERY, *TEXTS))


def test_spans_on_the_console_under_another_name(tmp_path: Path) -> None:
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "search"}
    with serve(tmp_path / "log", environment=environment) as server:
        server.post({"query": QUERY, "documents": TEXTS})
        server.process.terminate()
        assert server.process.stdout is not None
        printed = server.process.stdout.read()
    span, _ = json.JSONDecoder().raw_decode(printed[printed.index("\n{") + 1 :])
    assert span["attributes"]["crossrank.documents"] == 2
    assert span["resource"]["attributes"]["service.name"] == "search"


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_what_is_not_there_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    assert main(["serve", "--port", "0"]) == 1
    assert f"{name}={value!r} is not" in capsys.readouterr().err
