"""A live session: frames, sound and readings in; answers, rule events and windows out.

    async with client.live() as session:
        await session.push_frame(frame)
        answer = await session.ask("what do you see?")
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anymodal import protocol
from anymodal.client import feeds
from anymodal.client.asking import Asking
from anymodal.client.desk import Desk
from anymodal.client.encode import FRAMES, frame_of, pieces_of, readings_of, sound_of
from anymodal.client.errors import ClosedError
from anymodal.client.link import Link, Ticket
from anymodal.client.options import Options
from anymodal.client.rules import Rules
from anymodal.errors import PacketError, QuestionError

AUDIO_HZ, IMU_HZ = 16000.0, 50.0
KEEP_TIMES = 2.0  # frames are thinned to so many times the rate that is wanted: one on show is at most half a step old


@dataclass(frozen=True, slots=True)
class Stats:
    """`dropped`: media that found no room here, by stream; `thinned`: frames that the server has no use for, by stream;
    `events_lost`: events of the server that came too late; `events_dropped`: events that nobody fetched in time."""

    dropped: Mapping[str, int]
    thinned: Mapping[str, int]
    events_lost: int
    events_dropped: int
    reconnections: int


class LiveSession:
    """Made by `AsyncClient.live`; a context manager. For one event loop. Everything raises ClientError."""

    def __init__(self, make_link: Callable[..., Link], options: Options, streams: Mapping[str, str] | None = None,
                 instructions: str | None = None) -> None:
        self._options, self._declared, self._instructions = options, dict(streams or {}), instructions
        self._desk = Desk(lambda event: self._link.put(event), options.answer_timeout_s, options.most_events)
        self._link = make_link(self._take, self._desk.end)
        self._pushing = asyncio.Lock()
        self._began_s: float | None = None  # on the monotonic clock, when media time was `_origin_s`
        self._origin_s = 0.0
        self._ends_s: dict[str, float] = {}  # of what was pushed, by stream
        self._sent_s: dict[str, float] = {}  # time of the last frame that was sent, by stream
        self._thinned: Counter[str] = Counter()
        self._seen_s = 0.0
        self.rules = Rules(self._desk.command)

    async def __aenter__(self) -> LiveSession:
        await self._link.start()
        self._origin_s = self._seen_s = self._extras.end_s or 0.0
        update: dict[str, Any] = {"type": "realtime"}
        if self._declared:
            update["anymodal"] = {"streams": self._declared}
        if self._instructions is not None:
            update["instructions"] = self._instructions
        if len(update) > 1:
            try:
                await self._desk.command({"type": "session.update", "session": update}, _as(protocol.SessionUpdated))
            except BaseException:
                await self._link.close()
                raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, *, keep: bool = False) -> None:
        """Send what waits, for no longer than `close_timeout_s`, and end the session. `keep`: it lives on for as long as
        the server keeps it, for `client.live(ticket=...)`. May be called twice."""
        await self._link.close(None if keep else {"type": "anymodal.session.close"})
        self._desk.end(ClosedError("the session was closed meanwhile"))

    # -- what is known of it -------------------------------------------------------------------------------------

    @property
    def ticket(self) -> Ticket:
        """What to come back with, also from another process."""
        return self._link.ticket

    @property
    def session(self) -> protocol.SessionConfig:
        """As the server tells it."""
        return self._link.session

    @property
    def wants(self) -> Mapping[str, protocol.Wants]:
        """What the server would like to get, by modality."""
        return self._extras.wants or {}

    def check(self) -> None:
        """Raises what ended the session, if anything has."""
        self._link.check()

    @property
    def connected(self) -> bool:
        return self._link.connected.is_set()

    @property
    def stats(self) -> Stats:
        link = self._link
        return Stats(link.dropped, dict(self._thinned), link.events_lost, self._desk.events_dropped, link.reconnections)

    def now_s(self) -> float:
        """The session's media clock: it goes with this machine's from when it is first asked for."""
        if self._began_s is None:
            self._began_s, self._origin_s = time.monotonic(), max([self._origin_s, *self._ends_s.values()])
        return self._origin_s + time.monotonic() - self._began_s

    @property
    def pushed_s(self) -> float:
        """Media time up to which something was pushed."""
        return max(self._ends_s.values(), default=self._origin_s)

    @property
    def seen_s(self) -> float:
        """Media time up to which the server has seen what was pushed."""
        return self._seen_s

    # -- in ------------------------------------------------------------------------------------------------------

    async def push_frame(self, frame: Any, pts_s: float | None = None, *, stream: str = "video",
                         encoding: str | None = None) -> None:
        """A frame, uint8 (H, W, 3) RGB, or uint16 (H, W) of a sense of 16-bit pictures, shown from `pts_s` (now). Scaled
        down and thinned out to what the server has use for; never waits for the network. Raises PacketError."""
        await self._push_frame(frame, pts_s, stream, self._modality(stream, "video"), encoding)

    async def _push_frame(self, frame: Any, pts_s: float | None, stream: str, modality: str,
                          encoding: str | None = None) -> None:
        pts_s = self._time(pts_s)
        if not self.frame_due(pts_s, stream):
            self._thinned[stream] += 1
            return
        wants = self.wants.get(self._modality(stream, modality))
        async with self._pushing:
            made = await asyncio.to_thread(frame_of, frame, modality, shorter_px=wants and wants.size_px, encoding=encoding,
                                           pixels=wants and wants.pixels, level=wants and wants.level)
            self._sent_s[stream] = pts_s
            self._append(stream, modality, pts_s, None, made)

    async def push_audio(self, samples: Any, pts_s: float | None = None, *, rate_hz: float = AUDIO_HZ,
                         stream: str = "audio") -> None:
        """Sound, int16 or float in [-1, 1], (T,) or (T, C), the first sample at `pts_s`: right behind what came before, if
        not given. Raises PacketError."""
        async with self._pushing:
            self._samples(stream, self._modality(stream, "audio"), sound_of(samples), pts_s, rate_hz)

    async def push_imu(self, rows: Any, pts_s: float | None = None, *, rate_hz: float = IMU_HZ,
                       stream: str = "imu") -> None:
        """Rows (T, 6) of acceleration in m/s2 and rotation in rad/s, the first at `pts_s`: right behind what came before,
        if not given. Raises PacketError."""
        async with self._pushing:
            modality = self._modality(stream, "imu")
            self._samples(stream, modality, readings_of(rows, modality), pts_s, rate_hz)

    async def push(self, stream: str, modality: str, data: Any, pts_s: float | None = None, *,
                   rate_hz: float | None = None) -> None:
        """Anything of any stream: frames of video and of further senses of pictures, sound, and the rows of any other
        sensor, which need `rate_hz`. Raises PacketError."""
        known = self._modality(stream, modality)
        if known != modality and not (known == "video" and modality in FRAMES):  # depth may be shown as pictures
            raise PacketError(f"stream {stream!r} is {known}, not {modality}", fix="give another stream name")
        if self._is_picture(modality):
            await self._push_frame(data, pts_s, stream, modality)
        elif modality == "audio":
            await self.push_audio(data, pts_s, rate_hz=rate_hz or AUDIO_HZ, stream=stream)
        elif rate_hz is None and modality != "imu":
            raise PacketError(f"{modality} needs a rate", fix="push(..., rate_hz=)")
        else:
            await self.push_imu(data, pts_s, rate_hz=rate_hz or IMU_HZ, stream=stream)

    async def flush(self) -> float:
        """Nothing more comes for now: all that was pushed is seen. Returns the media time up to which it is."""
        done = await self._desk.command({"type": "anymodal.input.flush"}, _as(protocol.InputFlushed))
        return done.end_s

    async def stream_file(self, path: str | Path, *, speed: float | None = 1.0, at_s: float | None = None,
                          sidecars: Mapping[str, str | Path] | None = None) -> float:
        """Show a file at `speed` times its own, or with None as fast as it is seen, behind what was pushed before or from
        `at_s` on; returns where it ends. Needs the extra `run`. Raises MediaError, MissingExtraError."""
        return await feeds.stream_file(self, path, speed=speed, at_s=at_s, sidecars=sidecars, options=self._options)

    async def stream_camera(self, device: str | None = None, *, stream: str = "video", duration_s: float | None = None,
                            format: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        """Show a camera, such as /dev/video0, until it ends, for `duration_s`, or until this is cancelled. One that is
        lost on the way is opened again for `reconnect_s`: `CameraLost` and `CameraBack` tell of it. `format`, `settings`:
        FFmpeg's input format and its options. Needs the extra `run`. Raises MediaError, MissingExtraError."""
        await feeds.stream_camera(self, device, stream=stream, duration_s=duration_s, format=format, settings=settings,
                                  options=self._options, tell=self._desk.take)

    # -- out -----------------------------------------------------------------------------------------------------

    def ask(self, question: str, *, at_s: float | None = None, wait_s: float = 0.0, dialogue: str | None = None) -> Asking:
        """Asked at once. `at_s`: as of this media time, for which it waits `wait_s`. `dialogue`: questions of one name
        refer to each other. Raises QuestionError; the rest when it is iterated or awaited."""
        if not question.strip():
            raise QuestionError("the question is empty", fix="ask something")
        extras = {"at_s": at_s, "wait_s": wait_s, "dialogue": dialogue}
        return self._desk.ask(question, {key: value for key, value in extras.items() if value is not None})

    async def search(self, query: str) -> tuple[protocol.Hit, ...]:
        """Where in all that was seen something is, best first."""

        def found(event: Any) -> Any:
            return event if isinstance(event, protocol.SearchResults) and event.query == query else None

        return (await self._desk.command({"type": "anymodal.search", "query": query}, found)).hits

    def __aiter__(self) -> LiveSession:
        return self

    async def __anext__(self) -> Any:
        """The next event, each once; it ends when the session is closed. Raises what ended it otherwise."""
        while not self._desk.events:
            try:
                self._link.check()
            except ClosedError:
                raise StopAsyncIteration from None
            self._desk.news.clear()
            await self._desk.news.wait()
        return self._desk.events.popleft()

    async def next_event(self, timeout_s: float | None = None) -> Any:
        """The next event, or None where none comes for so long, or the session was closed."""
        try:
            async with asyncio.timeout(timeout_s):
                return await anext(self, None)
        except TimeoutError:
            return None

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _extras(self) -> protocol.SessionExtras:
        session = self._link.session
        return session and session.anymodal or protocol.SessionExtras()

    def frame_due(self, pts_s: float, stream: str = "video") -> bool:
        """Has the server use for a frame of this time, after those that were sent?"""
        wants, last_s = self.wants.get(self._modality(stream, "video")), self._sent_s.get(stream)
        return wants is None or last_s is None or not 0 <= pts_s - last_s < 1 / (KEEP_TIMES * wants.rate_hz) - 1e-6

    def _is_picture(self, modality: str) -> bool:
        wants = self.wants.get(modality)
        return bool(wants.pixels) if wants and (wants.pixels or wants.axes) else modality in FRAMES

    def _modality(self, stream: str, otherwise: str) -> str:
        return self._declared.get(stream) or (self._extras.streams or {}).get(stream) or otherwise

    def _time(self, pts_s: float | None) -> float:
        found = self.now_s() if pts_s is None else float(pts_s)
        if not 0 <= found <= 1e9:
            raise PacketError(f"pts_s must be seconds from the session's beginning, found {pts_s!r}",
                              fix="leave it out for now")
        return found

    def _samples(self, stream: str, modality: str, samples: Any, pts_s: float | None, rate_hz: float) -> None:
        if not 0 < rate_hz <= 1e6:
            raise PacketError(f"rate_hz must be positive, found {rate_hz!r}", fix="samples a second")
        length_s = len(samples) / rate_hz
        if pts_s is None:  # what is given now has just been heard
            pts_s = self._ends_s[stream] if stream in self._ends_s else max(0.0, self.now_s() - length_s)
        pts_s = self._time(pts_s)
        for at_s, piece in pieces_of(samples, pts_s, rate_hz):
            self._append(stream, modality, at_s, rate_hz, piece)
        self._ends_s[stream] = pts_s + length_s

    def _append(self, stream: str, modality: str, pts_s: float, rate_hz: float | None, made: dict[str, Any]) -> None:
        event = {"type": "anymodal.input.append", "stream": stream, "modality": modality, "pts_s": pts_s, **made}
        self._link.put(event if rate_hz is None else {**event, "rate_hz": rate_hz}, stream)
        self._ends_s[stream] = max(self._ends_s.get(stream, 0.0), pts_s)

    def _take(self, event: Any) -> None:
        if isinstance(event, protocol.WindowSeen):
            self._seen_s = max(self._seen_s, event.end_s)
        self._desk.take(event)


def _as(kind: type) -> Callable[[Any], Any]:
    return lambda event: event if isinstance(event, kind) else None
