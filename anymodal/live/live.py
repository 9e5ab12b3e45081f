"""Several live sources into one session: they are opened together, share its clock, and are pushed when due."""

from __future__ import annotations

import math
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from anymodal.errors import InputError, MediaError, PacketError
from anymodal.live.address import FILE, Address
from anymodal.live.clock import LATE_S, MediaClock
from anymodal.live.record import Recorder
from anymodal.live.source import Limits, News, Source, Status, new_source, ticks
from anymodal.media.spec import VIDEO, StreamSpec
from anymodal.types import Packet

TICK_S = 0.01
LONGEST_GAP_S = 3000.0  # media time stands still after so long without anything: a session takes a longer jump for a fault
JOIN_S = 1.0  # a reader in a system call is not waited for any longer
MOST_NEWS = 1000


class Live:
    """Open it, make a session with its `streams`, and `begin`:

        with Live([address.camera("/dev/video0")], specs) as live:
            live.open()
            session = agent.open(live=True, streams=live.streams, idle_timeout_s=2)
            live.begin(session.push)

    `specs`: what the bundle wants, by modality. `error`: what ended it early. Safe to use from several threads.
    """

    def __init__(self, addresses: Sequence[Address], specs: Mapping[str, StreamSpec], *, record: Recorder | None = None,
                 limits: Limits | None = None, clock: Callable[[], float] = time.monotonic,
                 rng: random.Random | None = None) -> None:
        if not addresses:
            raise InputError("there is nothing to watch", fix="give --camera, --mic, an address or a file")
        if record is not None and all(address.kind == FILE for address in addresses):
            raise InputError("--record: a file is there already", fix="leave --record out, or add a live source")
        self.clock, self.limits = MediaClock(clock=clock), limits or Limits()
        self.error: Exception | None = None
        self.pushed = 0
        self._news: queue.Queue[News] = queue.Queue(MOST_NEWS)
        self._recorder, self._stop = record, threading.Event()
        self.sources = [new_source(address, specs, self.clock, limits=self.limits, recorder=record, tell=self._told,
                                   rng=rng) for address in _unlike(addresses)]
        self._names: list[dict[str, str]] = []  # of each source, modality -> stream
        self._thread: threading.Thread | None = None
        self._by_stream: dict[str, Source] = {}
        self._newest_s, self._until_s = 0.0, math.inf

    def open(self, *, wait: bool = False) -> list[str]:
        """Connect to all; returns what is wrong with those that did not open: they are tried again. Raises MediaError if
        none did, unless `wait`."""
        for source in self.sources:
            source.start()
        until_s = time.monotonic() + self.limits.open_timeout_s + 5
        for source in self.sources:
            source.opened.wait(max(0.0, until_s - time.monotonic()))
        wrong = [s.error or MediaError(f"{s.address.shown}: nothing came in time", fix="check that it is sending")
                 for s in self.sources if not s.found]
        if len(wrong) == len(self.sources) and not wait:
            raise wrong[0]
        for source in self.sources:
            if not source.found and source.address.kind == FILE:
                raise source.error or MediaError(f"{source.address.shown} cannot be opened")
        self._names = _stream_names(self.sources)
        return [str(error) for error in wrong]

    @property
    def streams(self) -> dict[str, str]:
        """Name -> modality of the session's streams: a modality's name where only one source has it."""
        return {name: modality for streams in self._names for modality, name in streams.items()}

    def begin(self, push: Callable[[Packet], None], start_s: float = 0.0, until_s: float = math.inf) -> None:
        """From now on push what is due; now is `start_s` of media time, and what is of `until_s` or later is left out."""
        self.clock.begin(start_s)
        self._newest_s, self._until_s = start_s, until_s
        if self._recorder is not None:
            self._recorder.connect({s.name: s.opened_streams for s in self.sources if s.opened_streams})
        for source, streams in zip(self.sources, self._names, strict=True):
            self._by_stream |= dict.fromkeys(streams.values(), source)
            source.begin(streams, start_s)
        self._thread = threading.Thread(target=self._pump, args=(push,), name="push live sources", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Nothing more will come."""
        return (self.error is not None or self.clock.now_s() > self._until_s + LATE_S
                or all(source.is_over for source in self.sources))

    def news(self) -> Iterator[News]:
        """What has happened to the sources and was not told yet."""
        while True:
            try:
                yield self._news.get_nowait()
            except queue.Empty:
                return

    def status(self) -> list[Status]:
        return [source.status() for source in self.sources]

    def close(self) -> None:
        """Stop reading; what was due has been pushed. Closing twice does nothing."""
        self._stop.set()
        for source in self.sources:
            source.stop()
        if self._thread is not None:
            self._thread.join()
        until_s = time.monotonic() + JOIN_S
        for source in self.sources:
            if source.opened.is_set():
                source.join(max(0.0, until_s - time.monotonic()))
        if self._recorder is not None:
            self._recorder.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pump(self, push: Callable[[Packet], None]) -> None:
        try:
            for _ in ticks(self._stop, TICK_S):
                now_s = self.clock.now_s()
                for source in self.sources:
                    for packet in source.due(now_s):
                        if packet.pts_s < self._until_s:
                            self._push(push, packet)
                    source.look_after()
                self.clock.hold(max(0.0, now_s - self._newest_s - LONGEST_GAP_S))
        except Exception as error:  # the session's: it is full, closed or taken over
            self.error = error

    def _push(self, push: Callable[[Packet], None], packet: Packet) -> None:
        self._newest_s = max(self._newest_s, packet.pts_s)
        try:
            push(packet)
            self.pushed += 1
        except PacketError as error:
            self._by_stream[packet.stream].counts["late" if "too late" in error.message else "refused"] += 1

    def _told(self, news: News) -> None:
        try:
            self._news.put_nowait(news)
        except queue.Full:  # nobody looks
            self._news.get_nowait()
            self._news.put_nowait(news)


def _stream_names(sources: Sequence[Source]) -> list[dict[str, str]]:
    """Of each source, modality -> the stream's name in the session. What did not open yet may bring all that it can."""
    brings = [sorted(source.found or source.specs) for source in sources]
    count = Counter(modality for found in brings for modality in found)

    def name(source: Source, modality: str, main: bool) -> str:
        if count[modality] == 1 and not source.address.named:
            return modality
        return source.name if main else f"{source.name}-{modality}"

    return [{m: name(source, m, m == (VIDEO if VIDEO in found else found[0])) for m in found}
            for source, found in zip(sources, brings, strict=True)]


def _unlike(addresses: Sequence[Address]) -> list[Address]:
    """Addresses whose names differ: cam, cam-2."""
    taken: set[str] = set()
    found = []
    for address in addresses:
        number, name = 1, address.name
        while name in taken or name in ("video", "audio"):
            number += 1
            name = f"{address.name}-{number}"
        taken.add(name)
        found.append(replace(address, name=name))
    return found
