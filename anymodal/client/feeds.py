"""Files and cameras into a live session. The decoder is that of the library, and comes with the extra `run`."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal.client.errors import WaitedTooLongError
from anymodal.client.events import CameraBack, CameraLost
from anymodal.client.options import Backoff, Options
from anymodal.errors import InputError, MediaError, need

if TYPE_CHECKING:
    from anymodal.client.live import LiveSession

LEAD_WINDOWS = 4  # pushed ahead of what was seen, where a file goes as fast as it can: a server sheds what is far ahead
SMALL_PX = 128  # frames up to this are sent as they are: JPEG would save little
LOOK_EVERY_S = 0.01
DEVICES = {"linux": ("v4l2", "/dev/video0"), "darwin": ("avfoundation", "0"), "win32": ("dshow", "video=0")}
CAMERA_TIMEOUT_S = 20.0


async def stream_file(session: LiveSession, path: str | Path, *, speed: float | None, at_s: float | None,
                      sidecars: Mapping[str, str | Path] | None, options: Options) -> float:
    if speed is not None and not 0 < speed < math.inf:
        raise InputError(f"speed must be positive, found {speed!r}", fix="1.0 is the file's own, None as fast as it goes")
    need("av", extra="run")
    from anymodal.media import StreamSpec, open_media

    extras = session.session.anymodal
    streams = extras and extras.streams or {name: name for name in session.wants}
    first = {modality: stream for stream, modality in reversed(streams.items()) if modality in session.wants}
    specs = {stream: StreamSpec(modality, wants.rate_hz, wants.size_px, wants.axes or (), wants.pixels, wants.level)
             for modality, stream in first.items() for wants in [session.wants[modality]]}
    specs = specs or {"video": StreamSpec("video", 4.0, 96), "audio": StreamSpec("audio", 16000.0)}
    source = await asyncio.to_thread(open_media, path, specs, sidecars)
    window_s = extras and extras.window_s or 1.0
    if at_s is None:  # whole windows, so that the file is cut as it would be alone
        at_s = math.ceil(session.pushed_s / window_s - 1e-9) * window_s
    pace = _Pace(session, at_s, speed, LEAD_WINDOWS * window_s, options.answer_timeout_s)
    end_s = at_s
    with closing(source):
        packets = iter(source)
        while (packet := await asyncio.to_thread(next, packets, None)) is not None:
            pts_s = at_s + packet.pts_s
            await pace.until(pts_s)
            if packet.data.dtype == np.uint8:
                small = max(packet.data.shape[:2]) <= SMALL_PX
                await session.push_frame(packet.data, pts_s, stream=packet.stream, encoding="rgb8" if small else None)
                end_s = max(end_s, pts_s + 1 / packet.rate_hz)
            else:
                await session.push(packet.stream, packet.modality, packet.data, pts_s, rate_hz=packet.rate_hz)
                end_s = max(end_s, pts_s + (1 if packet.data.ndim == 3 else len(packet.data)) / packet.rate_hz)
        end_s = max(end_s, at_s + (source.duration_s or 0.0))
    await session.flush()
    return end_s


class _Pace:
    """Waits until media of a time may go: at the file's own speed, or a few windows ahead of what was seen."""

    def __init__(self, session: LiveSession, at_s: float, speed: float | None, lead_s: float, timeout_s: float) -> None:
        self._session, self._at_s, self._speed, self._lead_s, self._timeout_s = session, at_s, speed, lead_s, timeout_s
        self._began_s = time.monotonic()

    async def until(self, pts_s: float) -> None:
        if self._speed is not None:
            await asyncio.sleep(max(0.0, (pts_s - self._at_s) / self._speed - (time.monotonic() - self._began_s)))
            return
        seen_s, since_s = self._session.seen_s, time.monotonic()
        while pts_s > max(self._session.seen_s, self._at_s) + self._lead_s:
            await asyncio.sleep(LOOK_EVERY_S)
            self._session.check()
            if self._session.seen_s > seen_s:
                seen_s, since_s = self._session.seen_s, time.monotonic()
            if time.monotonic() - since_s > self._timeout_s:
                raise WaitedTooLongError(f"the server has seen nothing new for {self._timeout_s:g} s",
                                         fix="raise answer_timeout_s if the server is slow")


async def stream_camera(session: LiveSession, device: str | None, *, stream: str, duration_s: float | None,
                        format: str | None, settings: Mapping[str, str] | None, options: Options,
                        tell: Callable[[Any], None]) -> None:
    av = need("av", extra="run")
    kind, first = DEVICES.get(sys.platform, DEVICES["linux"])
    device, format = device or first, format or kind
    began_s, backoff = session.now_s(), Backoff(options.backoff_first_s, options.backoff_most_s)
    end_s, lost_s, seen = math.inf if duration_s is None else began_s + duration_s, 0.0, False
    while True:
        try:
            frames = _frames(av, device, format, dict(settings or {}))
            async for pts_s, frame, due in _shown(session, frames, stream, end_s):
                if lost_s:
                    tell(CameraBack(stream, time.monotonic() - lost_s))
                seen, lost_s = True, 0.0
                backoff.reset()
                if due:
                    pixels = await asyncio.to_thread(frame.to_ndarray, format="rgb24")
                    await session.push_frame(pixels, pts_s, stream=stream)
            return
        except MediaError as error:
            if not seen or (lost_s and time.monotonic() - lost_s > options.reconnect_s):
                raise
            if not lost_s:
                lost_s = time.monotonic()
                tell(CameraLost(stream, error.message))
        session.check()
        if session.now_s() >= end_s:
            return
        await asyncio.sleep(min(backoff.next_s(), max(0.0, end_s - session.now_s())))


async def _shown(session: LiveSession, frames: Iterator[Any], stream: str,
                 end_s: float) -> AsyncIterator[tuple[float, Any, bool]]:
    """(pts_s, frame, whether the server has use for it) until a media time."""
    try:
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            pts_s = session.now_s()
            if pts_s >= end_s:
                return
            yield pts_s, frame, session.frame_due(pts_s, stream)
    finally:
        with suppress(ValueError):  # cancelled while a thread reads: it ends with that frame
            frames.close()


def _frames(av: Any, device: str, format: str, settings: dict[str, str]) -> Iterator[Any]:
    try:
        with av.open(device, format=format, options=settings, timeout=(CAMERA_TIMEOUT_S, CAMERA_TIMEOUT_S)) as container:
            yield from container.decode(video=0)
    except (av.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError(f"the camera {device} ({format}) cannot be read: {error}",
                         fix="is it there, free, and may you read it? ls -l /dev/video*") from error
