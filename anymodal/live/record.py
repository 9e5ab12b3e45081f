"""What live sources bring, as it came, in one mkv on the session's clock.

Packets are copied, not encoded again; raw video, which would fill a disk, is encoded, and sound that mkv cannot hold is
stored as PCM. A cluster is written each second
and nothing in it is mended later, so a recording that is killed can be read up to its last second. A track cannot change
within a file: where a source comes back as something else, or comes for the first time, `NAME-2.mkv` goes on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from anymodal.errors import OutputError
from anymodal.media.container import av
from anymodal.media.spec import VIDEO

OPTIONS = {"cluster_time_limit": "1000", "flush_packets": "1", "max_interleave_delta": "1000000"}
TICK = Fraction(1, 1_000_000)
RAW = ("rawvideo", "wrapped_avframe")
PCM = "pcm_s16le"
BEFORE = -(2**62)

log = logging.getLogger("anymodal")


@dataclass
class _Track:
    """One stream of one source. `kind`: what tells it from another stream that does not fit the same track."""

    stream: Any
    kind: tuple
    last: int = BEFORE  # dts, in ticks
    began: bool = False
    encodes: bool = False
    resampler: Any = None


class Recorder:
    """Written by the threads of several sources. A disk that is full ends the recording, with a warning, not the session.
    `paths`: the files written so far. Raises OutputError where the first cannot be made."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mkv":
            raise OutputError(f"--record {self.path} is no mkv: others do not survive a kill", fix="name it .mkv")
        if not self.path.parent.is_dir():
            raise OutputError(f"no folder {self.path.parent}", fix="make it first")
        if self.path.exists():
            raise OutputError(f"{self.path} is there already", fix="name another file, or move it away")
        try:
            self.path.touch()
            self.path.unlink()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}", fix="name another place") from error
        self.paths: list[Path] = []
        self.error = ""
        self._lock = threading.Lock()
        self._out: Any = None
        self._tracks: dict[tuple[str, str], _Track] = {}
        self._closed = False

    def connect(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        """Sources are there: name -> modality -> stream. A new part begins unless their tracks are those being written."""
        with self._lock:
            if self._closed:
                return
            given = {(source, m): stream for source, streams in sources.items() for m, stream in streams.items()}
            for key in given.keys() & self._tracks.keys():
                self._tracks[key].began = False  # go on with a frame that stands alone
            if any(key not in self._tracks or self._tracks[key].kind != _kind(s) for key, s in given.items()):
                self._guarded(self._next_part, given)

    def write(self, source: str, modality: str, packet: Any, offset_s: float) -> None:
        """A packet as it came, at its own times and `offset_s`."""
        with self._lock:
            track = self._tracks.get((source, modality))
            if not self._closed and self._out is not None and track is not None and not track.encodes:
                self._guarded(self._write, track, modality, packet, offset_s)

    def write_frame(self, source: str, modality: str, frame: Any, offset_s: float) -> None:
        """What was decoded of it: used only of what cannot be copied."""
        with self._lock:
            track = self._tracks.get((source, modality))
            if not self._closed and self._out is not None and track is not None and track.encodes:
                self._guarded(self._encode, track, frame, offset_s)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._guarded(self._end_part)

    # -- under the lock ---------------------------------------------------------------------------------------

    def _guarded(self, call: Any, *args: Any) -> None:
        try:
            call(*args)
        except (av.FFmpegError, OSError, ValueError) as error:
            self.error = f"{self.paths[-1] if self.paths else self.path}: {getattr(error, 'strerror', None) or error}"
            self._closed, self._out = True, None
            log.warning(f"the recording has ended: {self.error}")

    def _next_part(self, given: Mapping[tuple[str, str], Any]) -> None:
        number = len(self.paths) + 1
        path = self.path if number == 1 else self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")
        out = av.open(str(path), "w", format="matroska", container_options=OPTIONS)
        tracks = {key: _track(out, track.stream, track.kind, track.encodes)  # of other sources, as in the part before
                  for key, track in self._tracks.items() if key not in given}
        for key, stream in given.items():
            name = stream.codec_context.name
            tracks[key] = _track(out, stream, _kind(stream), name in RAW or name not in out.supported_codecs)
        for (name, _), track in tracks.items():
            track.stream.metadata["title"] = name
        self._end_part()
        self._out, self._tracks = out, tracks
        self.paths.append(path)
        out.start_encoding()

    def _end_part(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            for track in self._tracks.values():
                if track.encodes and track.last > BEFORE:
                    out.mux(track.stream.encode(None))
            out.close()

    def _write(self, track: _Track, modality: str, packet: Any, offset_s: float) -> None:
        dts = packet.dts if packet.dts is not None else packet.pts
        pts = packet.pts if packet.pts is not None else dts
        base, offset = Fraction(packet.time_base), Fraction(offset_s)
        at = round((dts * base + offset) / TICK)
        if at <= track.last or not (track.began or modality != VIDEO or packet.is_keyframe):
            return
        track.last, track.began = at, True
        copy = av.Packet(bytes(packet))
        copy.stream, copy.time_base = track.stream, TICK
        copy.dts, copy.pts, copy.is_keyframe = at, round((pts * base + offset) / TICK), packet.is_keyframe
        if packet.duration:
            copy.duration = round(packet.duration * base / TICK)
        self._out.mux(copy)

    def _encode(self, track: _Track, frame: Any, offset_s: float) -> None:
        if frame.pts is None:
            return
        at = round((frame.pts * Fraction(frame.time_base) + Fraction(offset_s)) / TICK)
        if at <= track.last:
            return
        track.last, track.began = at, True
        if track.stream.type == VIDEO:
            made = [frame.reformat(track.stream.width, track.stream.height, "yuv420p")]
        else:
            track.resampler = track.resampler or av.AudioResampler("s16")
            made = track.resampler.resample(frame)
        came = frame.pts, frame.time_base  # what needs no conversion is the frame itself
        for each in made:
            each.pts, each.time_base = at, TICK
            self._out.mux(track.stream.encode(each))
        frame.pts, frame.time_base = came


def _kind(stream: Any) -> tuple:
    context = stream.codec_context
    shape = (context.width, context.height) if stream.type == VIDEO else (context.sample_rate, context.layout.name)
    return context.name, shape, bytes(context.extradata or b"")


def _track(out: Any, stream: Any, kind: tuple, encodes: bool) -> _Track:
    """A track for what `stream` brings, or for what a track of the part before held."""
    if not encodes:
        return _Track(out.add_stream_from_template(stream), kind)
    _, shape, _ = kind
    if stream.type != VIDEO:
        return _Track(out.add_stream(PCM, rate=shape[0], layout=shape[1]), kind, encodes=True)
    made = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
    made.width, made.height, made.pix_fmt = shape[0] // 2 * 2, shape[1] // 2 * 2, "yuv420p"
    made.codec_context.time_base = TICK
    return _Track(made, kind, encodes=True)
