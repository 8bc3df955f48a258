"""OpenTelemetry: a span for each request that ranks, with counts and never a text.

The standard variables set it up: ``OTEL_EXPORTER_OTLP_ENDPOINT`` turns it on, and ``OTEL_TRACES_EXPORTER`` is ``otlp``,
``console`` or ``none``. Names, samplers and headers are read by OpenTelemetry's SDK itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossrank.errors import InputError
from crossrank.server.logs import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
# The attributes of a request's span, under the prefix crossrank.
_ATTRIBUTES = (
    "request_id",
    "model",
    "model_version",
    "dialect",
    "documents",
    "documents_cached",
    "documents_prepared",
    "tokens",
    "cut",
    "skipped",
    "degraded",
)


class Tracer:
    """Sends a span for each request to the exporter that the environment names."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("crossrank")
        self._context = TraceContextTextMapPropagator()

    def record(
        self, method: str, headers: Mapping[str, str], note: Mapping[str, Any], status: int, seconds: float
    ) -> None:
        """Record a request that has just been answered; the header ``traceparent`` names the span that it belongs to.

        :param note: The request's log entry.
        """
        from opentelemetry.trace import SpanKind, StatusCode

        ended = time.time_ns()
        span = self._tracer.start_span(
            f"{method} {note['path']}",
            self._context.extract(headers),
            SpanKind.SERVER,
            {"http.request.method": method, "url.path": note["path"], "http.response.status_code": status},
            start_time=ended - int(1e9 * seconds),
        )
        span.set_attributes({f"crossrank.{name}": note[name] for name in _ATTRIBUTES if name in note})
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(ended)

    def close(self) -> None:
        """Send the spans that are waiting."""
        self._provider.shutdown()


def make_tracer(version: str) -> Tracer | None:
    """Read the environment; ``None`` if it doesn't turn on traces.

    :raises InputError: If a variable has an unsupported value.
    """
    exporter = os.environ.get(EXPORTER, "").strip() or ("otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none")
    if exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if exporter not in ("otlp", "console"):
        raise InputError(f"{EXPORTER}={exporter!r} is not known: give otlp, console or none.")
    for name in _PROTOCOLS:
        if os.environ.get(name, "http/protobuf") != "http/protobuf":
            raise InputError(f"{name}={os.environ[name]!r} is not supported. Use http/protobuf.")
    try:
        return Tracer(_provider(exporter, version))
    except ImportError as error:
        log.warning("no traces", extra={"facts": {"why": f"{error}. Run: pip install 'crossrank[otel]'"}})
        return None


def _provider(exporter: str, version: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    resource = Resource.create({"service.version": version})
    if str(resource.attributes.get("service.name", "unknown")).startswith("unknown"):
        resource = resource.merge(Resource({"service.name": "crossrank"}))
    provider = TracerProvider(resource=resource)
    to_console = exporter == "console"
    provider.add_span_processor(
        SimpleSpanProcessor(ConsoleSpanExporter()) if to_console else BatchSpanProcessor(OTLPSpanExporter())
    )
    return provider
