"""A live source: a thread that connects, reads and decodes, and connects again; what it brings waits until it is due.

What came ahead of its time waits in a queue. A file, or an address with an end, is then read no further; of what is live
the oldest is shed past `Limits.held_s`, and the rest is due that much earlier. A reader that cannot keep up decodes key
frames only until it has caught up. All of it is counted.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from anymodal.errors import AnymodalError, MediaError
from anymodal.live.address import CAMERA, FILE, MICROPHONE, Address
from anymodal.live.clock import LATE_S, MediaClock, Timeline, common_step_s
from anymodal.live.connection import OPEN_TIMEOUT_S, READ_TIMEOUT_S, Connection, packet_s
from anymodal.live.grid import new_grid
from anymodal.live.reconnect import Backoff, Reconnect
from anymodal.live.record import Recorder
from anymodal.media.source import open_media
from anymodal.media.spec import AUDIO, VIDEO, StreamSpec, exact
from anymodal.types import Packet

CONNECTING, LIVE, WAITING, ENDED = "connecting", "live", "waiting", "ended"
AHEAD_S = 1.0  # how far a file is read ahead
KEPT_S = 0.25  # of what waits, after shedding
PREROLL_S = 1.0  # at most so long what a server had in store is skipped, to begin at what is new
METER_S = 3.0  # over which rates are measured
SHORTEST_GAP_S = 0.25  # between two packets
MOST_MARKS = 4000  # packets of about half a minute
HUNG_S = 5.0  # beyond all timeouts; a reader that is silent for longer is given up


@dataclass(frozen=True, slots=True)
class Limits:
    """`held_s`: how far ahead of its time what is live may wait; `held_in_segments_s`: where several seconds come at once
    (HLS)."""

    held_s: float = 1.0
    held_in_segments_s: float = 30.0
    open_timeout_s: float = OPEN_TIMEOUT_S
    read_timeout_s: float = READ_TIMEOUT_S
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class News:
    """Something about a source. kind: live, lost, gap, ended; a gap lasts from `from_s` to `t_s` of media time."""

    source: str
    kind: str
    t_s: float
    text: str = ""
    from_s: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A source as it is now. `rates_hz`: frames or samples that come in a second, by modality; `counts`: what came and what
    was lost, by reason; `held_s`: how much waits until it is due."""

    name: str
    shown: str
    state: str
    text: str
    rates_hz: Mapping[str, float]
    counts: Mapping[str, int]
    held_s: float


class Source:
    """Made and owned by `Live`. `opened` is set once the first attempt is over; `streams`: modality -> name in the
    session, once begun."""

    def __init__(self, address: Address, specs: Mapping[str, StreamSpec], clock: MediaClock, *,
                 limits: Limits | None = None, recorder: Recorder | None = None,
                 tell: Callable[[News], None] = lambda _: None, rng: random.Random | None = None) -> None:
        self.address, self.name, self.clock = address, address.name, clock
        self.limits = limits or Limits()
        self.specs, self.state, self.error = dict(specs), CONNECTING, None
        self.found: frozenset[str] = frozenset()  # modalities that the first connection has
        self.streams: dict[str, str] = {}
        self.opened_streams: Mapping[str, Any] = {}  # of the connection that waits to begin
        self.counts: Counter[str] = Counter()
        self.opened, self._go, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._recorder, self._tell = recorder, tell
        self._reconnect = Reconnect(self.limits.backoff, rng=rng)
        self._lock = threading.Lock()
        self._waiting: deque[Packet] = deque()
        self._meters = {modality: deque() for modality in specs}
        self._newest_s = 0.0
        self._given_s: dict[str, float] = {}  # by stream: what begins at or before this has been given
        self._grids: dict[str, Any] = {}
        self._held_s, self._step_s = self.limits.held_s, 1.0
        self._timeline = Timeline(clock)
        self._was_lost, self._is_live = "", False
        self._played: dict[tuple, None] = {}  # the newest packets that came in segments
        self._live_since_s = 0.0
        self._generation = 0
        self._alive_s = time.monotonic()

    # -- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and wait there for `begin`."""
        self._alive_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(self._generation,), name=f"read {self.name}", daemon=True)
        self._thread.start()

    def begin(self, streams: Mapping[str, str], start_s: float) -> None:
        """Read, for these streams of the session, from `start_s` of media time on."""
        self.streams = dict(streams)
        self._grids = {m: new_grid(name, self.specs[m], start_s) for m, name in streams.items() if m in (VIDEO, AUDIO)}
        self._step_s = common_step_s([exact(self.specs[m].rate_hz) for m in self._grids])
        self._newest_s = start_s
        self._given_s = dict.fromkeys(streams.values(), start_s - 1e-9)
        self._alive_s = time.monotonic()  # it may have waited long for this
        self._go.set()

    def stop(self) -> None:
        self._stop.set()
        self._go.set()

    def join(self, timeout_s: float) -> bool:
        """Whether its reader has ended; one that sits in a system call ends at its read timeout."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def look_after(self) -> None:
        """Give up a reader that hangs where no timeout reaches it (a device's driver), and begin another."""
        longest_s = self.limits.open_timeout_s + self.limits.read_timeout_s + HUNG_S
        if self.state in (LIVE, CONNECTING) and time.monotonic() - self._alive_s > longest_s:
            self._generation += 1
            self._lose("it hangs")
            self.start()

    # -- out --------------------------------------------------------------------------------------------------

    def due(self, now_s: float) -> list[Packet]:
        """What is due by now, oldest first."""
        found = []
        with self._lock:
            while self._waiting and self._waiting[0].pts_s <= now_s:
                found.append(self._waiting.popleft())
                self._given_s[found[-1].stream] = _covered_s(found[-1])
        return found

    @property
    def is_over(self) -> bool:
        """It has ended, and nothing of it waits."""
        return self.state == ENDED and not self._waiting

    def status(self) -> Status:
        now = time.monotonic()
        with self._lock:
            since_s = min(METER_S, max(now - self._live_since_s, 0.5))
            rates = {m: sum(n for at, n in self._meters[m] if now - at <= since_s) / since_s for m in self.streams}
            held_s = max(0.0, self._waiting[-1].pts_s - self.clock.now_s()) if self._waiting else 0.0
        text = self._was_lost
        if self.state == WAITING:
            text = f"{text}; again in {self._reconnect.left_s:.0f} s"
        return Status(self.name, self.address.shown, self.state, text, rates, dict(self.counts), held_s)

    # -- the reader's thread ----------------------------------------------------------------------------------

    def _run(self, generation: int) -> None:
        while self._is_mine(generation):
            self._alive_s = time.monotonic()
            self.state = CONNECTING
            try:
                opened = self._open()
            except Exception as error:  # what a driver or a library may raise is an attempt that failed
                if self._is_mine(generation):
                    self._failed(error)
                continue
            try:
                self.opened.set()
                self._go.wait()
                if self._is_mine(generation):
                    self._begin_connection(opened)
                    self._read(opened, generation)
                    reason = "it ended"
            except Exception as error:
                reason = self._reason(error)
            finally:
                if self._is_mine(generation):
                    self._end_connection(generation)
                opened.close()
            if not self._is_mine(generation):
                return
            if reason == "it ended" and self._ends(opened):
                self.state = ENDED
                self._tell(News(self.name, ENDED, self._newest_s))
                return
            self._lose(reason)
            self._stop.wait(self._reconnect.left_s)

    def _is_mine(self, generation: int) -> bool:
        return generation == self._generation and not self._stop.is_set()

    def _failed(self, error: Exception) -> None:
        self.error = error if isinstance(error, AnymodalError) else MediaError(f"{self.address.shown}: {error}")
        self.opened.set()
        if self._go.is_set() and not self._was_lost:
            self._lose(self._reason(error))
        else:
            self._was_lost = self._was_lost or self._reason(error)
            self._reconnect.lost()
            self.state = WAITING
        self._stop.wait(self._reconnect.left_s)

    def _reason(self, error: Exception) -> str:
        """An error in words, without the address, which is told anyway."""
        text = error.message if isinstance(error, AnymodalError) else f"{type(error).__name__}: {error}"
        return text.removeprefix(f"{self.address.shown}: ")

    def _lose(self, reason: str) -> None:
        self.state, self._was_lost = WAITING, reason
        self.counts["lost"] += 1
        self._reconnect.lost()
        self._tell(News(self.name, "lost", self._newest_s, reason))

    def _open(self) -> Any:
        wanted = frozenset(self.streams or self.specs) & {VIDEO, AUDIO}
        connection = Connection(self.address, wanted=wanted, open_timeout_s=self.limits.open_timeout_s,
                                read_timeout_s=self.limits.read_timeout_s)
        self.found = self.found or frozenset(connection.streams)
        self.opened_streams = connection.streams
        return connection

    def _ends(self, opened: Any) -> bool:
        return opened.finite

    def _begin_connection(self, connection: Connection) -> None:
        self.state, self.error, self._live_since_s = LIVE, None, time.monotonic()
        self._reconnect.connected()
        if connection.finite and self._is_live:
            raise MediaError("it has ended", fix="it goes on when it is sent again")
        self._is_live = not connection.finite
        self._timeline = Timeline(self.clock, self._newest_s)
        self._held_s = math.inf if connection.finite else (
            self.limits.held_in_segments_s if connection.segmented else self.limits.held_s)
        if self._recorder is not None:
            self._recorder.connect({self.name: connection.streams})

    def _end_connection(self, generation: int) -> None:
        """What the grids still hold is as good as what was given."""
        for grid in self._grids.values():
            for made in grid.end():
                self._put(made, generation)

    def _read(self, connection: Connection, generation: int) -> None:
        edge = not (connection.finite or connection.segmented)  # begin with what is new
        began_s, hurry = time.monotonic(), False
        for modality, packet, waited in connection.packets():
            self._alive_s = time.monotonic()
            if not self._is_mine(generation):
                return
            old = connection.segmented and self._has_played(modality, packet)
            if (edge and not waited and self._alive_s - began_s < PREROLL_S) or (old and self._timeline.offset_s is None):
                for _ in connection.decode(packet):
                    pass
                continue
            first, edge = self._timeline.offset_s is None, False
            moved_s = self._timeline.arrived(modality, float(packet_s(packet)), waited)
            if first or moved_s:
                self._mark_gap(first, self._timeline.at(modality, packet_s(packet)))
            late_s = self._timeline.late_s(modality, float(packet_s(packet)))
            hurry = late_s > (LATE_S / 2 if hurry else LATE_S)
            if self._recorder is not None:
                self._recorder.write(self.name, modality, packet, self._timeline.of(modality))
            self._take(connection, modality, packet, hurry, generation)

    def _has_played(self, modality: str, packet: Any) -> bool:
        """A playlist of segments still names some that were seen before the connection was lost."""
        mark = (modality, packet.dts, packet.size)
        if mark in self._played:
            return True
        self._played[mark] = None
        if len(self._played) > MOST_MARKS:
            del self._played[next(iter(self._played))]
        return False

    def _take(self, connection: Connection, modality: str, packet: Any, hurry: bool, generation: int) -> None:
        if hurry and modality == VIDEO:
            self.counts["too slow"] += 1
        for frame in connection.decode(packet, hurry=hurry):
            self._meter(modality, 1 if modality == VIDEO else frame.samples)
            grid = self._grids.get(modality)
            if self._recorder is not None:
                self._recorder.write_frame(self.name, modality, frame, self._timeline.of(modality))
            if grid is None or frame.pts is None or hurry:
                continue
            for made in grid.put(frame, self._timeline.at(modality, Fraction(frame.pts) * frame.time_base)):
                self._put(made, generation)

    def _mark_gap(self, first: bool, at_s: float) -> None:
        """It goes on at `at_s`. Time has gone on without it: since it was lost, or since nothing came of it."""
        why = self._was_lost if first else "nothing came"
        self._was_lost = ""
        if why and at_s - self._newest_s > SHORTEST_GAP_S:
            self.counts["gaps"] += 1
            self._tell(News(self.name, "gap", at_s, why, self._newest_s))
        elif first:
            self._tell(News(self.name, LIVE, at_s))

    def _meter(self, modality: str, amount: int) -> None:
        now = time.monotonic()
        with self._lock:
            meter = self._meters[modality]
            meter.append((now, amount))
            while meter and now - meter[0][0] > METER_S:
                meter.popleft()
            self.counts["frames" if self.specs[modality].is_picture else "samples"] += amount

    def _put(self, packet: Packet, generation: int) -> None:
        """Let a packet wait for its time."""
        while self._held_s == math.inf and packet.pts_s - self.clock.now_s() > AHEAD_S and self._is_mine(generation):
            self._alive_s = time.monotonic()
            self._stop.wait(0.02)
        with self._lock:
            if self._generation != generation or packet.pts_s <= self._given_s[packet.stream]:
                return
            self._waiting.append(packet)
            self._newest_s = max(self._newest_s, _covered_s(packet))
            if packet.pts_s - self.clock.now_s() > self._held_s:
                self._shed(packet.pts_s)

    def _shed(self, newest_s: float) -> None:
        """Too much waits: all of it is due earlier, and what would have been due before is dropped."""
        now_s = self.clock.now_s()
        shift_s = math.ceil((newest_s - now_s - KEPT_S) / self._step_s) * self._step_s
        for grid in self._grids.values():
            grid.shift(shift_s)
        self._timeline.offset_s -= shift_s
        self._newest_s -= shift_s
        moved = [replace(packet, pts_s=packet.pts_s - shift_s) for packet in self._waiting]
        kept = [packet for packet in moved if packet.pts_s > max(self._given_s[packet.stream], now_s - LATE_S)]
        self.counts["shed"] += len(moved) - len(kept)
        self._waiting = deque(kept)


def _covered_s(packet: Packet) -> float:
    """What begins at or before this would say again what the packet says: of sound, all but the end of its last sample."""
    return packet.pts_s + (len(packet.data) - 0.5) / packet.rate_hz if packet.modality == AUDIO else packet.pts_s


class FileSource(Source):
    """A file or folder with its sensor tables, at its own speed."""

    def _open(self) -> Any:
        wanted = {m: spec for m, spec in self.specs.items() if not self.streams or m in self.streams}
        media = open_media(self.address.url, wanted)
        self.found = self.found or frozenset(spec.modality for spec in media.streams.values())
        return media

    def _ends(self, opened: Any) -> bool:
        return True

    def _begin_connection(self, media: Any) -> None:
        self.state, self._held_s, self._live_since_s = LIVE, math.inf, time.monotonic()
        self._began_s = self._newest_s
        self._tell(News(self.name, LIVE, self._began_s))

    def _read(self, media: Any, generation: int) -> None:
        for packet in media:
            if not self._is_mine(generation):
                return
            self._alive_s = time.monotonic()
            self._meter(packet.modality, 1 if self.specs[packet.modality].is_picture else len(packet.data))
            self._put(replace(packet, stream=self.streams[packet.modality], pts_s=packet.pts_s + self._began_s), generation)


def new_source(address: Address, specs: Mapping[str, StreamSpec], clock: MediaClock, **options: Any) -> Source:
    """The source of an address; of `specs` (by modality) those that it can bring."""
    can = {CAMERA: {VIDEO}, MICROPHONE: {AUDIO}, FILE: set(specs)}.get(address.kind, {VIDEO, AUDIO})
    kind = FileSource if address.kind == FILE else Source
    return kind(address, {m: s for m, s in specs.items() if m in can}, clock, **options)


def ticks(stop: threading.Event, every_s: float) -> Iterator[None]:
    """Now and then, until stopped."""
    while not stop.wait(every_s):
        yield
