"""One video stream on the sampling grid: the frame at time t is the last one with pts <= t.

Decoder threads run ahead while this thread scales; only frames on the grid are scaled, and frames that no other
frame refers to are not even decoded when they are off the grid. Legend: H, W pixels; C channels: frames are RGB uint8
of three, or uint16 levels of one.
"""

from __future__ import annotations

import bisect
import heapq
import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.errors import InputError, SidecarError
from anymodal.media.container import av, declared_s, is_picture, no_codec_error, only, open_container, pick_stream
from anymodal.media.levels import Level, scaled, to_levels
from anymodal.media.spec import VIDEO, ceil_index
from anymodal.threads import usable_cores

LOOKAHEAD = 24  # packets; the deepest reordering that H.264 and H.265 allow is 16
LONGEST_JUMP_S = 3600  # a frame later than this after the one before is not a long picture but a broken clock
THREADS_A_CORE, MOST_THREADS = 3, 16  # of a decoder: frames wait for those they refer to, and a core would wait, too
FALLBACK_RATE_HZ = 25  # where neither frame nor stream tells a duration


class VideoReader:
    """Decodes one stream of a file. `start` and `end` are on the container's own clock, in exact seconds.

    `pixels`: what frames become; gray16 takes only pictures of one channel with more than 8 bits, as they are, or floats
    by `level`. Raises SidecarError for others.
    """

    rate_is_known = True

    def __init__(self, path: Path, size_px: int | None = None, stream_number: int | None = None, *,
                 pixels: str = "rgb8", level: Level | None = None) -> None:
        self.path = path
        self._pixels, self._level = pixels, level
        self.warnings: list[str] = []
        self.size_px = size_px
        self._number = stream_number
        self._scaler = new_scaler()
        self._damaged = False
        self._is_needed: Callable[[int, int], bool] | None = None  # of a frame shown in [pts, until), in ticks
        self._container: Any = None
        self._first: Any = None
        self._open()
        self.start: Fraction | None = self._time(self._first) if self._first is not None else None
        self.end: Fraction | None = None
        self.declared_s = declared_s(self._stream)

    # -- life -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.close()
        self._container = open_container(self.path)
        self._stream = pick_stream(self._container, VIDEO, self._number)
        if self._stream is None:
            return
        if self._stream.codec_context is None:
            raise no_codec_error(self.path, self._stream)
        only(self._container, self._stream)
        self._stream.thread_type = "AUTO"
        threads = 1 if is_picture(self._container) else min(THREADS_A_CORE * usable_cores(), MOST_THREADS)
        self._stream.codec_context.thread_count = threads
        self._counted = 0
        self._unordered: list[int] | None = [] if self._container.format.name == "avi" else None
        self._frames = self._decode()
        self._first = next(self._frames, None)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    # -- sampling ---------------------------------------------------------------------------------------------

    def sample(
        self, zero: Fraction, rate_hz: Fraction, start_s: Fraction = Fraction(0), end_s: Fraction | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (grid index j, frame (H, W, C)) for grid times j / rate_hz in [start_s, end_s) of the media clock."""
        if self._first is None:
            return
        next_index = grid_of_ticks(self._stream.time_base, zero, rate_hz)
        self._is_needed = lambda pts, until: next_index(pts) < next_index(until)
        self._seek(zero, start_s)
        index = max(0, ceil_index(start_s, rate_hz))
        last = None if end_s is None else ceil_index(end_s, rate_hz)
        for frame, until in self._spans():
            stop = ceil_index(until - zero, rate_hz)
            if last is not None:
                stop = min(stop, last)
            if index < stop and (first := max(index, ceil_index(self._time(frame) - zero, rate_hz))) < stop:
                image = self.convert(frame)
                for j in range(first, stop):
                    yield j, image
                index = stop
            if last is not None and index >= last:
                return

    def every_frame(self) -> Iterator[tuple[Fraction, np.ndarray]]:
        """Yield (time on the container's clock, frame (H, W, C)) for every frame."""
        for frame, _ in self._spans():
            yield self._time(frame), self.convert(frame)

    def at_times(self, times: list[Fraction]) -> Iterator[tuple[Fraction, np.ndarray]]:
        """For ascending times on the container's clock: (pts, frame (H, W, C)) shown then; the nearest at the ends."""
        if self._first is None:
            return
        waiting = list(reversed(times))
        tick = self._stream.time_base
        self._is_needed = lambda pts, until: bisect.bisect_left(times, pts * tick) < bisect.bisect_left(times, until * tick)
        for frame, until in self._spans():
            image = None
            while waiting and (waiting[-1] < until or until == self.end):
                image = self.convert(frame) if image is None else image
                waiting.pop()
                yield self._time(frame), image
            if not waiting:
                return

    @property
    def container(self) -> str:
        """FFmpeg's first name of the container format."""
        return self._container.format.name.split(",")[0]

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._stream.codec_context.codec.canonical_name

    def first_frame(self) -> np.ndarray:
        """The first frame (H, W, C)."""
        return self.convert(self._first)

    def measure(self) -> Fraction:
        """Seconds from the first frame to the end of the last, by decoding all."""
        for _ in self._spans():
            pass
        return self.end - self.start if self.end is not None else Fraction(0)

    def convert(self, frame: Any) -> np.ndarray:
        """Scale to the square, turn upright."""
        if self._pixels == "rgb8":
            return to_rgb(self._scaler, frame, self.size_px)
        return gray_levels(self.path, frame, self.size_px, self._level)

    # -- decoding ---------------------------------------------------------------------------------------------

    def _spans(self) -> Iterator[tuple[Any, Fraction]]:
        """(frame, time until which it is shown) in order of pts; the last one is held for its duration."""
        current, previous = self._first, None
        if current is None:
            return
        now = self._time(current)
        for frame in self._frames:
            at = self._time(frame)
            if at < now or at - now > LONGEST_JUMP_S:  # a broken file: its time has passed, or the clock jumped
                self._note("frames with times out of order are left out")
                continue
            if at > now:
                yield current, at
                previous = now
            current, now = frame, at
        self.end = now + self._duration(current, previous)
        yield current, self.end

    def _decode(self) -> Iterator[Any]:
        context = self._stream.codec_context
        for packet, wanted in self._with_need(self._packets()):
            if self._unordered is None:
                context.skip_frame = "DEFAULT" if wanted else "NONREF"
            elif packet is not None and packet.pts is not None:
                heapq.heappush(self._unordered, packet.pts)
            try:
                for frame in self._stream.decode(packet):
                    yield self._timed(frame)
            except av.FFmpegError as error:
                self._note(error)

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:  # the file ends in the middle of a packet: flush what was decoded
                self._note(error)
                yield None
                return
            yield packet

    def _note(self, damage: Exception | str) -> None:
        """Warn of the first damage only."""
        if not self._damaged:
            self._damaged = True
            self.warnings.append(f"{self.path.name}: video is damaged: {getattr(damage, 'strerror', None) or damage}")

    def _with_need(self, packets: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
        """Say of each packet whether its frame may be on the grid, by looking at the pts around it."""
        ahead: deque[Any] = deque()
        behind: deque[int] = deque()
        known: list[int] = []  # sorted pts of `ahead` and `behind`
        regular = True
        for packet in packets:
            ahead.append(packet)
            if packet is None or packet.pts is None:
                regular = regular and not (packet and packet.size)  # only the flush packet may lack a pts
            else:
                bisect.insort(known, packet.pts)
            if len(ahead) > LOOKAHEAD:
                yield self._need(ahead, behind, known, regular)
        while ahead:
            yield self._need(ahead, behind, known, regular)

    def _need(self, ahead: deque, behind: deque, known: list[int], regular: bool) -> tuple[Any, bool]:
        packet = ahead.popleft()
        pts = packet.pts if packet is not None else None
        if pts is None:
            return packet, True
        behind.append(pts)
        if len(behind) > LOOKAHEAD:
            known.pop(bisect.bisect_left(known, behind.popleft()))
        if not regular or self._is_needed is None:
            return packet, True
        after = bisect.bisect_right(known, pts)
        if after == len(known):
            return packet, True
        return packet, self._is_needed(pts, known[after])

    def _seek(self, zero: Fraction, start_s: Fraction) -> None:
        """Start decoding shortly before `start_s`, where the index allows; decoding from the start is always right."""
        target = zero + start_s - 1
        if start_s < 10 or self._first is None:
            return
        try:
            self._container.seek(int(target / self._stream.time_base), stream=self._stream, backward=True)
        except av.FFmpegError:
            self._open()
            return
        self._frames = self._decode()
        first = next(self._frames, None)
        if first is None or self._time(first) > target + 1:
            self._open()  # the index led past the target
        else:
            self._first = first

    def _timed(self, frame: Any) -> Any:
        """A raw stream has no times: its frames are counted. AVI gives times in order of decoding: they are sorted."""
        if self._unordered is not None and self._unordered:
            frame.pts = heapq.heappop(self._unordered)
        elif frame.pts is None:
            rate_hz = Fraction(self._stream.average_rate or self._stream.guessed_rate or FALLBACK_RATE_HZ)
            frame.time_base = 1 / rate_hz
            frame.pts, frame.duration = self._counted, 1
        self._counted += 1
        return frame

    # -- time -------------------------------------------------------------------------------------------------

    def _time(self, frame: Any) -> Fraction:
        return frame.pts * frame.time_base

    def _duration(self, frame: Any, previous: Fraction | None) -> Fraction:
        """How long the last frame is shown: its own duration, else as long as the one before, else by the rate."""
        if frame.duration:
            return frame.duration * frame.time_base
        if previous is not None:
            return self._time(frame) - previous
        rate_hz = self._stream.average_rate or self._stream.guessed_rate or FALLBACK_RATE_HZ
        return 1 / Fraction(rate_hz)


def grid_of_ticks(tick_s: Fraction, zero: Fraction, rate_hz: Fraction) -> Callable[[int], int]:
    """`ceil_index` of a time in ticks, in whole numbers: it is asked twice of every packet."""
    step, shift = tick_s * rate_hz, -zero * rate_hz
    parts = math.lcm(step.denominator, shift.denominator)
    step, shift = int(step * parts), int(shift * parts)
    return lambda pts: -(-(pts * step + shift) // parts)


def new_scaler() -> Any:
    """What `to_rgb` keeps from frame to frame."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def to_rgb(scaler: Any, frame: Any, size_px: int | None) -> np.ndarray:
    """A decoded frame -> (H, W, 3) RGB uint8, upright, stretched to the square if there is one."""
    width, height = (size_px, size_px) if size_px else (frame.width, frame.height)
    scaled = scaler.reformat(frame, width, height, "rgb24", interpolation=_BILINEAR, threads=1)
    return upright(scaled.to_ndarray(), display_matrix(frame))


def gray_levels(path: Path, frame: Any, size_px: int | None, level: Level | None) -> np.ndarray:
    """A decoded frame of one channel -> (H, W, 1) uint16, upright, stretched to the square if there is one.

    Levels are as stored: gray10 has those up to 1023. Raises SidecarError naming `path`."""
    kind = frame.format.name
    if not GRAY.fullmatch(kind):
        bits = max((c.bits for c in frame.format.components), default=0)
        what = "of 8 bits" if bits <= 8 else "not of one channel"
        raise SidecarError(f"{path}: its pictures are {kind}, {what}; one channel of 16 bits is wanted",
                           fix="save the raw values as 16-bit grey PNG, as FFV1 in gray16le, or as an array")
    try:
        levels = to_levels(frame.to_ndarray(), level)
    except InputError as error:
        raise SidecarError(f"{path} {error.message}", fix=error.fix) from None
    return upright(scaled(levels, size_px), display_matrix(frame))


GRAY = re.compile(r"gray(9|10|12|14|16|f32)[lb]e")
_BILINEAR = av.video.reformatter.Interpolation.BILINEAR


def _unnamed(kind: type, value: int) -> Any:
    """A kind of side data that FFmpeg has and PyAV has no name for: without one it lists none of the frame's."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


av.sidedata.sidedata.Type._missing_ = classmethod(_unnamed)  # EXIF is one; the display matrix is beside it


def display_matrix(frame: Any) -> np.ndarray | None:
    """The 2x2 part of the frame's display matrix, (x', y') = (x, y) @ matrix, or None."""
    if not frame.side_data:
        return None
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(data), "<i4")[:9].reshape(3, 3)[:2, :2]
    return None


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Apply a display matrix (quarter turns and mirrors) to an image (H, W, C)."""
    if matrix is None:
        return image
    (a, b), (c, d) = matrix.tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.swapaxes(0, 1)
        a, d = c, b
    image = image[:, ::-1] if a < 0 else image
    image = image[::-1] if d < 0 else image
    return np.ascontiguousarray(image)
