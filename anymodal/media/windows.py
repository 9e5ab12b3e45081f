"""Packets in any order within the allowed lateness -> windows in order on the media clock.

Window k covers [k * hop, (k + 1) * hop). It goes out when every live stream's watermark has passed its end, or
when some packet is `allowed_lateness_s` past its end. A stream's watermark is where its samples are complete
without a hole, or its newest time less the allowed lateness, whichever is later. A stream that has been silent
for `idle_timeout_s` of the injected clock is not waited for until it speaks again.

Every packet is counted once in `Totals`: entered, duplicate (it brought nothing new), late (some or all of it
belonged to a window already out) or malformed. What is late or malformed is told by the next window's `dropped`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real

import numpy as np

from anymodal.media.spec import VIDEO, StreamSpec, ceil_index, exact
from anymodal.types import Packet, Signal, Window

SHORTEST_LAST_WINDOW = 0.1  # of the hop: a shorter rest at the end is trimmed
GRID_TOLERANCE = exact(1e-6)  # of a grid step: times are floats


@dataclass
class Totals:
    """Packets by fate; `trimmed` counts samples (or frames) of a rest too short for a last window."""

    entered: int = 0
    duplicate: int = 0
    late: int = 0
    malformed: int = 0
    trimmed: int = 0

    @property
    def packets(self) -> int:
        return self.entered + self.duplicate + self.late + self.malformed


@dataclass
class _Cells:
    """One stream's samples of one window; `pts_s` is NaN where there is none yet."""

    pts_s: np.ndarray  # (n,)
    data: np.ndarray | list | None = None  # (n,) or (n, C); a list of frames for pictures; None once emitted
    seen_s: set[float] = field(default_factory=set)  # pts of the frames that came

    @property
    def present(self) -> np.ndarray:
        return ~np.isnan(self.pts_s)


@dataclass
class _Stream:
    spec: StreamSpec
    cells: dict[int, _Cells] = field(default_factory=dict)  # by window; emitted ones keep only pts_s
    newest_s: float = -math.inf  # end of the newest sample
    ended: bool = False
    idle: bool = False
    heard_s: float = 0.0  # on the injected clock
    frame_shape: tuple | None = None


class Windower:
    """Aligns streams into windows. `streams` maps stream names to their grids.

    Audio and sensor packets are on their stream's grid; a frame enters the first grid time at or after its
    pts, and the newest frame of a grid time is kept.
    Holes inside a window's signal are silence (audio), zeros (sensors) or the frame before (pictures); a signal
    starts at its first and ends at its last sample present.
    """

    def __init__(
        self,
        window_s: float,
        streams: Mapping[str, StreamSpec],
        *,
        allowed_lateness_s: float = 1.0,
        idle_timeout_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        first_window: int = 0,
        max_ahead_s: float = 3600.0,
        patient: bool = False,
    ) -> None:
        self._hop = exact(window_s)
        if self._hop <= 0:
            raise ValueError(f"window_s must be positive, found {window_s!r}")
        self._lateness_s = allowed_lateness_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        self.patient = patient  # with streams that are all silent: their source is away, and may bring what is missing
        self._max_ahead_s = max_ahead_s  # a packet further ahead than this is taken for a broken clock
        self._next = first_window
        self._streams = {name: _Stream(spec, heard_s=clock()) for name, spec in streams.items()}
        self._dropped: dict[str, int] = {}
        self.totals: dict[str, Totals] = {name: Totals() for name in streams}

    # -- in ---------------------------------------------------------------------------------------------------

    def push(self, packet: Packet) -> list[Window]:
        """Take a packet; returns the windows it completed, in order."""
        totals = self.totals.setdefault(packet.stream, Totals())
        stream = self._streams.get(packet.stream)
        if stream is None or self.fault(packet):
            totals.malformed += 1
            self._drop(packet.stream)
            return []
        if type(packet.pts_s) is not float:  # numpy's numbers are no fractions
            packet = replace(packet, pts_s=float(packet.pts_s))
        now_s = self._clock()
        if self.patient and now_s - max(s.heard_s for s in self._streams.values()) >= self._idle_timeout_s:
            for other in self._streams.values():  # they have been away together
                other.heard_s = other.heard_s if other.idle else now_s
        stream.idle, stream.heard_s = False, now_s
        fresh, late = self._enter(stream, packet)
        if late:
            totals.late += 1
            self._drop(packet.stream)
        elif fresh:
            totals.entered += 1
        else:
            totals.duplicate += 1
        return self._emit_ready()

    def end_of_stream(self, stream: str) -> list[Window]:
        """`stream` will bring nothing more: it is not waited for."""
        self._streams[stream].ended = True
        return self._emit_ready()

    def tick(self) -> list[Window]:
        """Let the injected clock act: silent streams become idle, and their windows go out without them."""
        now_s = self._clock()
        if self.patient and all(now_s - s.heard_s >= self._idle_timeout_s for s in self._streams.values()):
            return []
        for stream in self._streams.values():
            stream.idle = now_s - stream.heard_s >= self._idle_timeout_s
        waited_for = [s for s in self._streams.values() if not s.ended]
        if waited_for and all(s.idle for s in waited_for):
            return self._emit_until(self._window_count())
        return self._emit_ready()

    def close(self, end_s: float = math.inf) -> list[Window]:
        """End all streams. The rest goes out, less a last window that holds under a tenth of the hop.

        `end_s`: where the media ends, if known: the last frame may have lasted less than its grid step.
        """
        for stream in self._streams.values():
            stream.ended = True
        count = self._window_count()
        if count > 1 and count - 1 >= self._next and not self._is_worth_a_window(count - 1, end_s):
            for name, stream in self._streams.items():
                if cells := stream.cells.pop(count - 1, None):
                    self.totals[name].trimmed += int(cells.present.sum())
            count -= 1
        return self._emit_until(count)

    # -- entering ---------------------------------------------------------------------------------------------

    def fault(self, packet: Packet) -> str:
        """What is wrong with a packet, in words that follow its name; "" for one that can be used."""
        stream = self._streams.get(packet.stream)
        if stream is None:
            return f"is of an unknown stream; known: {', '.join(self._streams)}"
        spec, data, pts_s = stream.spec, packet.data, packet.pts_s
        if packet.modality != spec.modality:
            return f"is {packet.modality}, its stream is {spec.modality}"
        if not isinstance(data, np.ndarray) or data.size == 0:
            return "holds no data"
        if not isinstance(pts_s, Real):
            return f"is at {pts_s!r:.40}, which is no time in seconds"
        try:
            pts_s = float(pts_s)
        except OverflowError:  # a whole number, larger than any float
            pts_s = math.inf
        if not math.isfinite(pts_s) or pts_s < -0.5 / spec.rate_hz:
            return f"is at {pts_s:g} s: media time begins at 0"
        newest_s = max(self.newest_s, float(self._next * self._hop))
        if pts_s > newest_s + self._max_ahead_s:
            return f"is at {pts_s:g} s, more than {self._max_ahead_s:g} s after all before it ({newest_s:g} s)"
        if spec.is_picture:
            return self._frame_fault(stream, data)
        if not isinstance(packet.rate_hz, Real) or packet.rate_hz != spec.rate_hz:
            return f"has {packet.rate_hz!s:.40} Hz, its stream {spec.rate_hz:g} Hz"
        shape = f"(T, {len(spec.axes)})" if spec.axes else "(T,)"
        fits = data.ndim == 2 and data.shape[1] == len(spec.axes) if spec.axes else data.ndim == 1
        if not fits or data.dtype != np.float32:
            return f"is {data.dtype} {data.shape}, its stream float32 {shape}"
        return "" if np.isfinite(data).all() else "holds values that are no numbers"

    def _frame_fault(self, stream: _Stream, data: np.ndarray) -> str:
        if not stream.spec.is_frame(data):
            return f"is {data.dtype} {data.shape}, its stream {stream.spec.frame}"
        if data.shape != (stream.frame_shape or data.shape):
            return f"is {data.dtype} {data.shape}, its stream {data.dtype} {stream.frame_shape}"
        stream.frame_shape = data.shape
        return ""

    def _enter(self, stream: _Stream, packet: Packet) -> tuple[bool, bool]:
        """Split a packet over windows. Returns whether any sample was new, and whether any came too late."""
        rate_hz = exact(stream.spec.rate_hz)
        is_picture = stream.spec.is_picture
        position = exact(packet.pts_s) * rate_hz
        first = math.ceil(position - GRID_TOLERANCE) if is_picture else round(position)
        last = first + (1 if is_picture else len(packet.data))
        newest_s = packet.pts_s + 1 / stream.spec.rate_hz if is_picture else float(last / rate_hz)
        stream.newest_s = max(stream.newest_s, newest_s)
        fresh = late = False
        at = first
        while at < last:
            window = math.floor(at / rate_hz / self._hop)
            start, stop = self._edges(window, rate_hz)
            until = min(stop, last)
            piece = packet.data if is_picture else packet.data[at - first : until - first]
            new, too_late = self._enter_window(stream, window, at - start, piece, packet.pts_s, stop - start)
            fresh, late = fresh or new, late or too_late
            at = until
        return fresh, late

    def _enter_window(
        self, stream: _Stream, window: int, at: int, piece: np.ndarray, pts_s: float, count: int
    ) -> tuple[bool, bool]:
        """Put a piece at cell `at` of a window of `count` cells. Returns (brought something new, came too late)."""
        is_picture = stream.spec.is_picture
        cells = stream.cells.get(window)
        if cells is None:
            if window < self._next:
                return False, True
            data = [None] * count if is_picture else np.zeros((count, *piece.shape[1:]), np.float32)
            cells = stream.cells[window] = _Cells(np.full(count, np.nan), data)
        return _enter_frame(cells, at, piece, pts_s) if is_picture else _enter_samples(cells, at, piece, pts_s)

    # -- leaving ----------------------------------------------------------------------------------------------

    def _edges(self, window: int, rate_hz) -> tuple[int, int]:
        """Grid indices [start, stop) of a window."""
        return ceil_index(window * self._hop, rate_hz), ceil_index((window + 1) * self._hop, rate_hz)

    @property
    def newest_s(self) -> float:
        """The end of the newest sample that entered, of any stream; -inf before the first."""
        return max((s.newest_s for s in self._streams.values()), default=-math.inf)

    def _window_count(self) -> int:
        """One past the last window that holds anything."""
        return max((max(s.cells, default=-1) + 1 for s in self._streams.values()), default=0)

    def _is_complete(self, stream: _Stream, window: int) -> bool:
        """Has every grid time of the window its final sample? (A frame before its grid time may be replaced.)"""
        cells = stream.cells.get(window)
        if cells is None or not cells.present.all():
            return False
        if not stream.spec.is_picture:
            return True
        rate_hz = exact(stream.spec.rate_hz)
        start, stop = self._edges(window, rate_hz)
        return bool(np.all(cells.pts_s >= np.arange(start, stop) / stream.spec.rate_hz - 1e-6))

    def _is_closed(self, stream: _Stream, window: int) -> bool:
        """Is the closing frame of a window of pictures known? It is the next window's, and not waited for elsewhere."""
        rate_hz = exact(stream.spec.rate_hz)
        whole = ((window + 1) * self._hop * rate_hz).denominator == 1
        return not stream.spec.is_picture or not whole or self._closing(stream, window) is not None

    def _closing(self, stream: _Stream, window: int) -> np.ndarray | None:
        """The frame on show at the window's end: the first of the next window, once that is final."""
        cells = stream.cells.get(window + 1)
        rate_hz = exact(stream.spec.rate_hz)
        start, _ = self._edges(window + 1, rate_hz)
        if not stream.spec.is_picture or start / rate_hz != (window + 1) * self._hop:
            return None  # no pictures, or the hop is no whole number of frames
        if cells is None or cells.data is None or not cells.pts_s[0] >= start / stream.spec.rate_hz - 1e-6:
            return None
        return cells.data[0]

    def _is_ready(self, window: int) -> bool:
        t1_s = float((window + 1) * self._hop)
        frame_s = max((1 / s.spec.rate_hz for s in self._streams.values() if s.spec.is_picture), default=0.0)
        if self.newest_s - self._lateness_s >= t1_s + frame_s:  # the closing frame had its time too
            return True
        waited_for = [s for s in self._streams.values() if not (s.ended or s.idle)]
        if waited_for:
            return all(self._is_complete(s, window) and self._is_closed(s, window) for s in waited_for)
        return window + 1 < self._window_count()  # the last one may still grow: tick or close sends it

    def _emit_ready(self) -> list[Window]:
        out: list[Window] = []
        while self._is_ready(self._next):
            out.append(self._emit())
        return out

    def _emit_until(self, count: int) -> list[Window]:
        return [self._emit() for _ in range(self._next, count)]

    def _emit(self) -> Window:
        window = self._next
        self._next += 1
        signals = {}
        for name, stream in self._streams.items():
            if cells := stream.cells.get(window):
                signals[name] = self._signal(stream, window, cells)
                cells.data = None
            self._forget(stream)
        dropped, self._dropped = self._dropped, {}
        videos = tuple(name for name, stream in self._streams.items() if stream.spec.modality == VIDEO)
        return Window(window, float(window * self._hop), float((window + 1) * self._hop), signals, dropped, videos)

    def _signal(self, stream: _Stream, window: int, cells: _Cells) -> Signal:
        rate_hz = exact(stream.spec.rate_hz)
        start, _ = self._edges(window, rate_hz)
        present = np.flatnonzero(cells.present)
        low, high = int(present[0]), int(present[-1]) + 1
        data = cells.data[low:high]
        if stream.spec.is_picture:
            for i in range(1, len(data)):
                data[i] = data[i - 1] if data[i] is None else data[i]
            data = np.stack(data)
        closing = self._closing(stream, window)
        return Signal(stream.spec.modality, data, stream.spec.rate_hz, float((start + low) / rate_hz), closing)

    def _is_worth_a_window(self, window: int, end_s: float) -> bool:
        held_s = 0.0
        t0_s = float(window * self._hop)
        for stream in self._streams.values():
            if cells := stream.cells.get(window):
                rate_hz = exact(stream.spec.rate_hz)
                end = self._edges(window, rate_hz)[0] + int(np.flatnonzero(cells.present)[-1]) + 1
                held_s = max(held_s, min(float(end / rate_hz), end_s) - t0_s)
        return held_s >= SHORTEST_LAST_WINDOW * float(self._hop) - 1e-9

    def _drop(self, stream: str) -> None:
        self._dropped[stream] = self._dropped.get(stream, 0) + 1

    def _forget(self, stream: _Stream) -> None:
        """Which samples were there is kept for a while, to tell a duplicate from a late packet."""
        reach_s = self._lateness_s if math.isfinite(self._lateness_s) else 0.0
        oldest = self._next - 2 - math.ceil(reach_s / float(self._hop))
        for window in [w for w in stream.cells if w < oldest]:
            del stream.cells[window]


def _enter_frame(cells: _Cells, at: int, frame: np.ndarray, pts_s: float) -> tuple[bool, bool]:
    if pts_s in cells.seen_s:
        return False, False
    newer = not cells.pts_s[at] >= pts_s  # true where there is none yet
    if newer and cells.data is None:
        return False, True
    cells.seen_s.add(pts_s)
    if newer:
        cells.pts_s[at], cells.data[at] = pts_s, frame
    return True, False


def _enter_samples(cells: _Cells, at: int, piece: np.ndarray, pts_s: float) -> tuple[bool, bool]:
    span = slice(at, at + len(piece))
    empty = np.isnan(cells.pts_s[span])
    if not empty.any():
        return False, False
    if cells.data is None:
        return False, True
    cells.data[span][empty] = piece[empty]
    cells.pts_s[span][empty] = pts_s
    return True, False
