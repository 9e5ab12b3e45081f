"""What is counted, for Prometheus. One registry for each gateway, so that several in one process do not mix.

Counters and histograms may be used from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
DROPS = ("late", "malformed", "shed", "stale", "rate")


class Metrics:
    """The names below without `anymodal_` are the attributes' own. `tracer`: what makes spans, or None."""

    def __init__(self) -> None:
        self.tracer: Any = None
        self.registry = CollectorRegistry()

        def made(kind, name: str, text: str, *labels: str, **given):
            return kind(f"anymodal_{name}", text, labels, registry=self.registry, **given)

        self.windows = made(Counter, "windows", "Windows seen")
        self.drops = made(Counter, "dropped", "Packets and frames that were not used", "reason")
        self.packets = made(Counter, "packets", "Packets taken", "modality")
        self.queue = made(Gauge, "queue_depth", "What waits, by queue", "queue")
        self.stages = made(Histogram, "stage_seconds", "How long a stage takes", "stage", buckets=SHORT_S)
        self.first_token = made(Histogram, "first_token_seconds", "From a question to its first text", "path",
                                buckets=LONG_S)
        self.answer_time = made(Histogram, "answer_seconds", "From a question to the end of its answer", "path",
                                buckets=LONG_S)
        self.answers = made(Counter, "answers", "Answers by how they ended", "path", "status")
        self.tokens = made(Counter, "tokens", "Tokens read and written", "kind")
        self.sessions = made(Gauge, "sessions", "Live sessions", "state")
        self.sockets = made(Gauge, "sockets", "Open WebSockets")
        self.kills = made(Counter, "kills", "Parts that died", "role")
        self.recoveries = made(Counter, "recoveries", "Parts that came back", "role")
        self.recovery_time = made(Histogram, "recovery_seconds", "From a death to work again", buckets=LONG_S)
        self.requests = made(Counter, "http_requests", "Requests by route and status", "route", "status")
        self.request_time = made(Histogram, "http_request_seconds", "Requests by route", "route", buckets=LONG_S)
        self.refused = made(Counter, "refused", "What was not let in", "reason")
        self.bytes_in = made(Counter, "received_bytes", "Bytes that came in", "path")
        for reason in DROPS:
            self.drops.labels(reason)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as one of the stages; a span too."""
        began_s = perf_counter()
        try:
            with self.span(name):
                yield
        finally:
            self.stages.labels(name).observe(perf_counter() - began_s)

    def span(self, name: str, **attributes: Any) -> AbstractContextManager[Any]:
        """A span around a block, where there is tracing."""
        if self.tracer is None:
            return nullcontext()
        return self.tracer.start_as_current_span(name, attributes=attributes)

    def watch_queue(self, name: str, depth: Callable[[], float]) -> None:
        """Ask for a queue's depth whenever the metrics are read."""
        self.queue.labels(name).set_function(depth)

    def text(self) -> bytes:
        return generate_latest(self.registry)
