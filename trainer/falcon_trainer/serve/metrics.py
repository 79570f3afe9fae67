"""Prometheus metrics of the endpoint."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One registry for one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], float], ready: Callable[[], float]) -> None:
        registry = self._registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("falcon_serve_requests", "Requests answered", labels, registry=registry)
        self.seconds = Histogram(
            "falcon_serve_request_seconds",
            "From request to end of answer",
            ("path",),
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "falcon_serve_first_token_seconds",
            "From request to first text, waiting included",
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter("falcon_serve_tokens", "Tokens read and written", ("kind",), registry=registry)
        self.in_flight = Gauge("falcon_serve_in_flight", "Requests under way", registry=registry)
        self.disconnects = Counter("falcon_serve_disconnects", "Clients that left before the end", registry=registry)
        self.engine_errors = Counter("falcon_serve_engine_errors", "Answers that the engine failed", registry=registry)
        Gauge("falcon_serve_waiting", "Requests that wait for the model", registry=registry).set_function(waiting)
        Gauge("falcon_serve_ready", "1 while /ready says so", registry=registry).set_function(ready)

    def exposition(self) -> bytes:
        """The text format."""
        return generate_latest(self._registry)
