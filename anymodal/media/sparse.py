"""A few frames of a file at given times, by PyAV or by decord. Both give the same frames at the same pts.

decord seeks fast in MP4 and Matroska, but is known to hang on broken files, knows no start times, and seeks to wrong
frames in some containers and codecs. So PyAV reads the frame times first, decord runs in a process of its own that is
killed when it takes too long, and a file that it is not trusted with, or whose frames it counts otherwise, is read
with PyAV.
"""

from __future__ import annotations

import atexit
import json
import math
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.errors import InputError, MediaError, QuestionError, need
from anymodal.media.audio import AudioReader
from anymodal.media.container import av, open_container, pick_stream
from anymodal.media.fetch import local_file
from anymodal.media.spec import VIDEO, exact
from anymodal.media.video import VideoReader

DECORD_TIMEOUT_S = 60.0
DECORD_TOLERANCE = 2.0  # mean absolute difference of pixel values (of 255) between the two backends' scalers
SAME_TIME_S = 2e-3
# Elsewhere decord was seen to return other frames than it says: transport streams, open groups of H.265, MPEG-2.
TRUSTED_CONTAINERS = ("mov", "matroska")
TRUSTED_CODECS = ("h264", "vp8", "vp9")


def sparse_frames(
    path: str | Path,
    times_s: Sequence[float],
    size_px: int | None = None,
    backend: str = "decord",
    *,
    timeout_s: float = DECORD_TIMEOUT_S,
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) RGB uint8 shown at `times_s` of the media clock, in that order, and their pts_s (T,) float64.

    The frame at time t is the last one with pts <= t; before the first frame it is the first, after the last the last.
    Raises MediaError, also where decord takes longer than `timeout_s`, and QuestionError for a time before 0.
    """
    if backend not in ("decord", "pyav"):
        raise InputError(f"unknown backend {backend!r}", fix="backend is 'decord' or 'pyav'")
    for time_s in times_s:
        if not (math.isfinite(time_s) and time_s >= 0):
            raise QuestionError(f"no frame at {time_s!r} s: a clip begins at 0", fix="give times of 0 or later")
    with local_file(path) as local:
        reader = VideoReader(local, size_px)
        try:
            if reader.start is None:
                raise MediaError(f"{local} has no decodable video frame", fix="give a file with video")
            zero = min(reader.start, _audio_start(local, reader.start))
            if not times_s:
                return np.zeros((0, *reader.first_frame().shape), np.uint8), np.zeros(0)
            wanted = [exact(t) + zero for t in times_s]
            found = _by_decord(local, reader, wanted, timeout_s) if backend == "decord" else None
            frames, pts = found or _by_pyav(reader, wanted)
        finally:
            reader.close()
    return frames, np.array([float(p - zero) for p in pts])


def _audio_start(path: Path, default: Fraction) -> Fraction:
    try:
        reader = AudioReader(path)
    except MediaError:
        return default
    reader.close()
    return default if reader.start is None else reader.start


# -- PyAV -----------------------------------------------------------------------------------------------------


def _by_pyav(reader: VideoReader, wanted: list[Fraction]) -> tuple[np.ndarray, list[Fraction]]:
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    images: list[Any] = [None] * len(wanted)
    pts: list[Fraction] = [Fraction(0)] * len(wanted)
    for i, (at, image) in zip(order, reader.at_times([wanted[i] for i in order])):
        images[i], pts[i] = image, at
    return np.stack(images), pts


# -- decord ---------------------------------------------------------------------------------------------------


def _by_decord(
    path: Path, reader: VideoReader, wanted: list[Fraction], timeout_s: float
) -> tuple[np.ndarray, list[Fraction]] | None:
    """As `_by_pyav`, or None where decord sees other frames than PyAV does."""
    need("decord", extra="run")
    times = _frame_times(path) if reader.container in TRUSTED_CONTAINERS and reader.codec in TRUSTED_CODECS else []
    if not times or times[0] != reader.start:
        return None
    at = np.searchsorted(np.array(times, dtype=object), np.array(wanted, dtype=object), side="right") - 1
    indices = [max(0, int(i)) for i in at]
    size_px = reader.size_px or 0
    answer = _worker.ask({"path": str(path), "size_px": size_px, "indices": indices}, timeout_s)
    if answer is None:
        return None
    frames, seen_s = answer
    expected_s = np.array([float(t - times[0]) for t in times])
    if len(seen_s) != len(times) or np.abs(np.array(seen_s) - expected_s).max() > SAME_TIME_S:
        return None
    return frames, [times[i] for i in indices]


def _frame_times(path: Path) -> list[Fraction]:
    """Every frame's pts in order, from the packets alone; empty where packets carry none."""
    container = open_container(path)
    try:
        stream = pick_stream(container, VIDEO, None)
        packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        if any(p.pts is None for p in packets):
            return []
        return sorted(p.pts * p.time_base for p in packets)
    except av.FFmpegError:
        return []
    finally:
        container.close()


class _DecordWorker:
    """A process that runs decord: started on first use, killed on a timeout, started again when needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def ask(self, request: dict, timeout_s: float) -> tuple[np.ndarray, list[float]] | None:
        """Frames (T, H, W, 3) and decord's times of all frames; None where decord cannot read the file."""
        with self._lock:
            process = self._running()
            deadline_s = time.monotonic() + timeout_s
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                size = int.from_bytes(self._read(8, deadline_s), "little")
                head = json.loads(self._read(size, deadline_s))
                if "error" in head:
                    return None
                shape = head["shape"]
                data = self._read(math.prod(shape), deadline_s)
            except TimeoutError as error:
                self.stop()
                raise MediaError(
                    f"{request['path']}: decord gave no frame within {timeout_s:g} s",
                    fix="use backend='pyav', or convert the file",
                ) from error
            except (OSError, EOFError, ValueError):  # it crashed on the file
                self.stop()
                return None
            return np.frombuffer(data, np.uint8).reshape(shape), head["times_s"]

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            script = Path(__file__).with_name("decord_worker.py")
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            )
        return self._process

    def _read(self, count: int, deadline_s: float) -> bytes:
        return b"".join(self._chunks(count, deadline_s))

    def _chunks(self, count: int, deadline_s: float) -> Iterator[bytes]:
        pipe = self._process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while count:
                if not selector.select(max(0.0, deadline_s - time.monotonic())):
                    raise TimeoutError
                chunk = pipe.read(min(count, 1 << 20))
                if not chunk:
                    raise EOFError
                count -= len(chunk)
                yield chunk


_worker = _DecordWorker()
atexit.register(_worker.stop)
