"""What the parts of one gateway share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.gateway.decoding import Decoders
from actors.gateway.hosts import Host
from actors.gateway.limits import Clients, Gate, Share
from actors.gateway.metrics import Metrics
from actors.gateway.parts import Parts
from actors.gateway.settings import Settings
from actors.gateway.sniff import Lookers
from actors.gateway.tracing import make_provider
from actors.gateway.workers import Workers

if TYPE_CHECKING:
    from anymodal.speech import Speech

PUSH_THREADS, ASK_THREADS = 8, 16


@dataclass
class Gateway:
    """Made by `app.make_app`; at a request, `request.app.state.gateway`.

    `answering`: who may have an answer over HTTP worked on now. `sessions`, `sockets`: places for live ones.
    `pushes`, `asks`, `waits`: threads for what takes a moment, for answers, and for what waits for news of sessions.
    `speech`: what hears spoken questions, if anything does.
    `on_start`, `on_drain`: called when the server starts, and when it has to end: a live session says goodbye then, within
    `settings.drain_s`. `draining`: it has to end.
    """

    host: Host
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    speech: Speech | None = None
    on_start: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    on_drain: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        self.clients = Clients(settings)
        self.answering = Gate(settings.most_answers, settings.most_waiting)
        self.sessions = Share("sessions", settings.most_sessions, settings.most_sessions_per_client)
        self.sockets = Share("sockets", settings.most_sockets, settings.most_sockets)
        self.pushes, self.asks = Workers(PUSH_THREADS, "push"), Workers(ASK_THREADS + settings.most_answers, "ask")
        self.waits = Workers(settings.most_sessions + 4, "wait")
        self.lookers = Lookers()
        self.host.decode_with(Decoders(self.lookers, settings))
        self.draining = asyncio.Event()
        self.tasks: set[asyncio.Task] = set()  # that end by themselves, and must not be forgotten until then
        self.parts = Parts()
        self.began_s = int(time.time())
        self.tracing = make_provider() if settings.trace else None
        if self.tracing is not None:
            self.metrics.tracer = self.tracing.get_tracer("anymodal")
        for name, workers in (("push", self.pushes), ("ask", self.asks), ("wait", self.waits)):
            self.metrics.watch_queue(name, lambda workers=workers: workers.queued)
        self.metrics.watch_queue("answer", lambda: self.answering.queued)
        self.metrics.sockets.set_function(lambda: self.sockets.taken)
        self.metrics.sessions.labels("live").set_function(lambda: self.sessions.taken)

    def close(self) -> None:
        for workers in (self.pushes, self.asks, self.waits):
            workers.close()
        self.lookers.close()
        if self.tracing is not None:
            self.tracing.shutdown()
