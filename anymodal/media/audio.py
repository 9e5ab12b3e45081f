"""One audio stream on the sampling grid: output sample n is the sound at media time n / rate_hz, mono float32.

The first decoded sample is placed by its pts, rounded to the nearest source sample; those that follow are placed
by counting, and by their pts again only where the two differ by more than `RESYNC_S` (a gap becomes silence, an
overlap is cut). Mono is the mean of the channels. The resampler is started at a source sample that falls on the
output grid, so that no fraction of a sample is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.errors import MediaError
from anymodal.media.container import av, declared_s, no_codec_error, only, open_container, pick_stream, wav_s
from anymodal.media.spec import AUDIO, ceil_index

ALIKE_S = 600  # AAC is filled up with noise that goes on from all before: read from the start so far, it comes out alike
RESYNC_S = Fraction(1, 50)
LONGEST_JUMP_S = 3600  # a gap beyond this is a broken clock, not a pause
MOST_HZ = 1_536_000  # of a file; the resampler takes memory by it


class AudioReader:
    """Decodes one stream of a file. `start` and `end` are on the container's own clock, in exact seconds."""

    def __init__(self, path: Path, stream_number: int | None = None) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.start: Fraction | None = None
        self.end: Fraction | None = None
        self._damaged = False
        self._number = stream_number
        self._container: Any = None
        self._first: Any = None
        self._open()
        if self._first is not None:
            self.start = _time(self._first)
        self.declared_s = wav_s(path) if self._container.format.name == "wav" else declared_s(self._stream)

    def _open(self) -> None:
        self.close()
        self._container = open_container(self.path)
        self._stream = pick_stream(self._container, AUDIO, self._number)
        if self._stream is None:
            return
        if self._stream.codec_context is None:
            raise no_codec_error(self.path, self._stream)
        only(self._container, self._stream)
        self._frames = self._decode()
        self._first = next(self._frames, None)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def sample(
        self, zero: Fraction, rate_hz: int, start_s: Fraction = Fraction(0), end_s: Fraction | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index n of the first sample, float32 (T,)) without holes from start_s to the stream's end."""
        if self._first is None:
            return
        self._seek(zero + start_s)
        first = ceil_index(start_s, Fraction(rate_hz))
        last = math.inf if end_s is None else ceil_index(end_s, Fraction(rate_hz))
        for at, samples in self._resampled(zero, rate_hz, start_s):
            low, high = max(first - at, 0), min(len(samples), last - at)
            if low < high:
                yield at + low, samples[low : int(high)]
            if at + len(samples) >= last:
                return

    def measure(self) -> Fraction:
        """Seconds from the first sample to the last, by decoding all."""
        if self.start is None:
            return Fraction(0)
        for _ in self._resampled(self.start, self._first.sample_rate, Fraction(0)):
            pass
        return self.end - self.start

    # -- placing and resampling -------------------------------------------------------------------------------

    def _resampled(self, zero: Fraction, rate_hz: int, start_s: Fraction) -> Iterator[tuple[int, np.ndarray]]:
        """Runs of one source rate, each through its own resampler; silence between and before them."""
        at = None
        for source_hz, position, chunks in self._runs(zero, start_s):
            resampler = _GridResampler(source_hz, rate_hz, position)
            if at is None:
                at = resampler.index
            for samples in resampler.run(chunks):
                skip = at - resampler.index  # after a change of rate: what is out already, or a hole of a sample
                resampler.index += len(samples)
                if skip < 0:
                    yield at, np.zeros(-skip, np.float32)
                    at -= skip
                samples = samples[max(skip, 0) :]
                if len(samples):
                    yield at, samples
                    at += len(samples)

    def _runs(self, zero: Fraction, start_s: Fraction) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
        """Split the stream where its sample rate changes: (rate, index of the first sample, chunks without holes)."""
        pending = [self._first]
        begin = _time(self._first) - zero
        position = min(start_s, begin)

        def chunks(source_hz: int, at: int, tolerance: int) -> Iterator[np.ndarray]:
            nonlocal position
            to_mono = ToMono()
            while (frame := pending.pop() if pending else next(self._frames, None)) is not None:
                if frame.sample_rate != source_hz:
                    pending.append(frame)
                    break
                ahead = 0 if frame.pts is None else round((_time(frame) - zero) * source_hz) - at
                if ahead > LONGEST_JUMP_S * source_hz:
                    self._note("sound with times out of order is left out")
                    continue
                try:
                    samples = to_mono(frame)
                except ValueError as error:  # FFmpeg's too
                    self._note(error)
                    continue
                if ahead > tolerance:
                    yield from _silence(ahead)
                    at += ahead
                elif -ahead > tolerance:
                    samples = samples[-ahead:]
                yield samples
                at += len(samples)
                tolerance = int(RESYNC_S * source_hz)
            position = Fraction(at, source_hz)
            self.end = zero + position

        tolerance = 0  # the first sample is placed by its pts alone
        while pending:
            source_hz = pending[0].sample_rate
            if not 0 < source_hz <= MOST_HZ:
                raise MediaError(f"{self.path} says that it has {source_hz} samples a second",
                                 fix="the file is damaged: copy or export it again")
            at = round(position * source_hz)
            yield source_hz, at, chunks(source_hz, at, tolerance)
            tolerance = int(RESYNC_S * source_hz)

    # -- decoding ---------------------------------------------------------------------------------------------

    def _decode(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:  # the file ends in the middle of a packet
                self._note(error)
                packet = None
            try:
                yield from (f for f in self._stream.decode(packet) if f.samples)
            except av.FFmpegError as error:
                self._note(error)
            if packet is None:
                return

    def _note(self, damage: Exception | str) -> None:
        """Warn of the first damage only."""
        if not self._damaged:
            self._damaged = True
            self.warnings.append(f"{self.path.name}: audio is damaged: {getattr(damage, 'strerror', None) or damage}")

    def _seek(self, target: Fraction) -> None:
        """Skip ahead where the index is exact to the sample (mov, mp4, wav); elsewhere decode from the start."""
        near_s = ALIKE_S if self._stream.codec_context.name == "aac" else 10
        if target - self.start < near_s or self._container.format.name.split(",")[0] not in ("mov", "wav"):
            return
        try:
            self._container.seek(int((target - 1) / self._stream.time_base), stream=self._stream)
            self._frames = self._decode()
            next(self._frames, None)  # a codec with overlapping blocks needs one before its output is right
            self._first = next(self._frames, None)
        except av.FFmpegError:
            self._first = None
        if self._first is None or self._first.pts is None or _time(self._first) > target - Fraction(1, 10):
            self._open()


class ToMono:
    """Any sample format and layout -> float32 (T,), the mean of the channels."""

    def __init__(self) -> None:
        self._convert: Any = None

    def __call__(self, frame: Any) -> np.ndarray:
        try:
            return self._mono(frame)
        except ValueError:  # the layout changed
            self._convert = None
            return self._mono(frame)

    def _mono(self, frame: Any) -> np.ndarray:
        """Raises ValueError for a frame that FFmpeg cannot convert."""
        if self._convert is None:
            self._convert = av.AudioResampler(format="flt")  # interleaved: a frame has room for eight planes, not for more
        count = frame.layout.nb_channels
        pieces = [f.to_ndarray()[0].reshape(-1, count) for f in self._convert.resample(frame)]
        mono = [p[:, 0] if count == 1 else p.mean(axis=1) for p in pieces]
        return np.concatenate(mono).astype(np.float32, copy=False) if len(mono) != 1 else mono[0]


class _GridResampler:
    """Resamples a run whose first source sample is at `position` / source_hz of the media clock."""

    def __init__(self, source_hz: int, rate_hz: int, position: int) -> None:
        common = math.gcd(source_hz, rate_hz)
        self._source_step, self._step = source_hz // common, rate_hz // common
        self._block, self._lead = divmod(position, self._source_step)
        self._position = position
        self._source_hz, self._rate_hz = source_hz, rate_hz
        self.index = -(-position * rate_hz // source_hz)  # of the next output sample on the grid

    def run(self, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield float32 (T,), exactly the grid samples that lie in the run."""
        if self._source_hz == self._rate_hz:
            yield from (c for c in chunks if len(c))
            return
        resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate_hz)
        index = self._block * self._step
        first, end = self.index, self._position
        for chunk in _with_lead(self._lead, chunks):
            out = pull(resampler, mono_frame(chunk, self._source_hz))
            end += len(chunk)
            low = max(first - index, 0)
            index += len(out)
            if len(out) > low:
                yield out[low:]
        stop = -(-(end - self._lead) * self._rate_hz // self._source_hz)
        rest = np.zeros(max(stop - index, 0), np.float32)
        tail = pull(resampler, None)[: len(rest)]
        rest[: len(tail)] = tail
        low = max(first - index, 0)
        if len(rest) > low:
            yield rest[low:]


def _with_lead(lead: int, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Silence from the last source sample on the output grid up to the first real one."""
    if lead:
        yield np.zeros(lead, np.float32)
    yield from (c for c in chunks if len(c))


def _silence(count: int) -> Iterator[np.ndarray]:
    for at in range(0, count, 65536):
        yield np.zeros(min(65536, count - at), np.float32)


def mono_frame(samples: np.ndarray, source_hz: int) -> Any:
    """Float32 (T,) as a frame for a resampler."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate = source_hz
    return frame


def pull(resampler: Any, frame: Any) -> np.ndarray:
    """What a resampler has ready after a frame; None as a frame is the end."""
    parts = [f.to_ndarray()[0] for f in resampler.resample(frame)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _time(frame: Any) -> Fraction:
    return frame.pts * frame.time_base if frame.pts is not None else Fraction(0)
