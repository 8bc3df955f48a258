"""The counters behind ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.5, 2, 4)
_BOTH = ("model", "dialect")


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=self.registry), partial(Histogram, registry=self.registry)
        self.requests = counter("crossrank_requests", "Requests", (*_BOTH, "status"))
        self.seconds = histogram("crossrank_request_seconds", "Time of a request", _BOTH, buckets=_SECONDS)
        self.pairs = counter("crossrank_pairs", "Pairs of query and document", _BOTH)
        self.pairs_cut = counter("crossrank_pairs_cut", "Pairs that were cut", _BOTH)
        self.pairs_skipped = counter("crossrank_pairs_skipped", "Pairs not scored", _BOTH)
        self.tokens = counter("crossrank_tokens", "Tokens that went through a model", _BOTH)
        self.documents = {
            "cached": counter("crossrank_documents_cached", "Documents found in memory", _BOTH),
            "prepared": counter("crossrank_documents_prepared", "Documents found in --prepared", _BOTH),
        }
        self.shared = counter("crossrank_pairs_shared", "Pairs that an identical pair in flight answered")
        self.fill = histogram("crossrank_batch_fill", "Tokens of a batch, as a share of its budget", buckets=_SHARES)
        self._queue = Gauge("crossrank_queue_tokens", "Tokens that wait, by estimate", registry=self.registry)

    def watch_queue(self, tokens: Callable[[], float]) -> None:
        """Call this for the number of waiting tokens whenever the metrics are read."""
        self._queue.set_function(tokens)

    def observe(self, name: str, value: float) -> None:
        """Count an event of the scheduler."""
        if name == "batch":
            self.fill.observe(value)
        else:
            self.shared.inc(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
