"""Spans of a live session, from packet to answer, where `--trace` asks for them.

    window  from when the first of its media came until it was told; "taken" when some of it was decoded
    answer  from the question to its end, linked to the windows it had seen last; "first_token"

A window and an answer may come from other processes than this one: what they cost in it are the stages' own spans.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from actors.gateway.inputs import Piece
from anymodal.session.news import Seen

MOST_OPEN = 256  # windows of which something has come
LINKED = 16  # windows that an answer is linked to, at most


class Traces:
    """Does nothing without a tracer. For the event loop."""

    def __init__(self, tracer: Any, session: str, window_s: float) -> None:
        self._tracer, self._session, self._window_s = tracer, session, window_s
        self._coming: OrderedDict[int, Any] = OrderedDict()  # window -> its span
        self._seen: OrderedDict[int, Any] = OrderedDict()  # window -> the span's context

    def come(self, pieces: Iterable[Piece]) -> None:
        """Media have come."""
        if self._tracer is None:
            return
        for piece in pieces:
            window = int(piece.pts_s / self._window_s + 1e-9)
            if window not in self._coming:
                self._coming[window] = self._tracer.start_span(
                    "window", attributes={"anymodal.session": self._session, "anymodal.window": window})
                while len(self._coming) > MOST_OPEN:  # it will not be told: its time was refused
                    self._coming.popitem(last=False)[1].end()

    def taken(self, pieces: Iterable[Piece]) -> None:
        """Media were decoded and handed on."""
        for window in sorted({int(piece.pts_s / self._window_s + 1e-9) for piece in pieces}) if self._tracer else ():
            if (span := self._coming.get(window)) is not None:
                span.add_event("taken")

    def window(self, seen: Seen, dropped: Mapping[str, int]) -> None:
        """A window was told."""
        if (span := self._coming.pop(seen.window, None)) is None:
            return
        span.set_attributes({"anymodal.streams": list(seen.streams), "anymodal.dropped": sum(dropped.values()),
                             "anymodal.gap": seen.gap, "anymodal.rule_events": len(seen.began)})
        span.end()
        self._seen[seen.window] = span.get_span_context()
        while len(self._seen) > LINKED:
            self._seen.popitem(last=False)

    @contextmanager
    def answer(self, response: str, question: str) -> Iterator[Any]:
        """Around an answer; gives its span, or None."""
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import Link

        links = [Link(context, {"anymodal.window": window}) for window, context in self._seen.items()]
        with self._tracer.start_as_current_span("answer", links=links, attributes={
                "anymodal.session": self._session, "anymodal.response": response, "anymodal.path": "live",
                "anymodal.question": question[:200]}) as span:
            yield span
