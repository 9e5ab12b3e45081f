"""Fakes and makers for tests, shipped so that users can test their own parts with them.

    clock = FakeClock()                              time moves only when told to
    synthetic_packets(specs, 3.0)                    packets of every modality, no file
    run_stage(stage, given)                          everything a stage makes of what it is given
    slowed(agent, lambda: time.sleep(0.5))           an agent whose sessions perceive as slowly
    make_video(path, frames, ...), make_wav(...)     real media files (these need PyAV)
    make_levels_video(path, frames, ...)             the same of 16-bit pictures

Shapes: T frames or samples, H height, W width, C axes.
"""

from __future__ import annotations

import copy
import wave
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.media.spec import AUDIO, StreamSpec
from anymodal.types import Packet

PACKET_S = 0.2


class FakeClock:
    """A clock for `clock=` arguments: call it for the time, `advance` it by hand."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move time on. Raises ValueError for a negative step."""
        if seconds < 0:
            raise ValueError(f"time does not run back: {seconds!r}")
        self.now_s += seconds


def run_stage(stage: Any, given: Iterable[Any]) -> list[Any]:
    """Feed a stage (`push(item) -> iterable`, and `close() -> iterable` if it has one); returns all it produced."""
    produced: list[Any] = []
    for item in given:
        produced += stage.push(item)
    close: Callable[[], Iterable[Any]] | None = getattr(stage, "close", None)
    if close is not None:
        produced += close() or ()
    return produced


class SlowPerception:
    """As the perception that it holds, after `wait()` for each batch."""

    def __init__(self, perception: Any, wait: Callable[[], None]) -> None:
        self.spec, self._perception, self._wait = perception.spec, perception, wait

    def encode_many(self, items: Sequence[tuple[str, Any]], **given: Any) -> list[list[Any]]:
        self._wait()
        return self._perception.encode_many(items, **given)


def slowed(agent: Any, wait: Callable[[], None]) -> Any:
    """An Agent of the same parts, whose sessions call `wait` before each batch of windows. Needs `anymodal[run]`."""
    from anymodal.agent import Agent
    from anymodal.stages.together import Together

    bundle = copy.copy(agent.bundle)
    bundle.__dict__["shared_perception"] = Together(SlowPerception(agent.bundle.perception, wait))
    return Agent(bundle)


def synthetic_packets(specs: Mapping[str, StreamSpec], duration_s: float, seed: int = 0) -> Iterator[Packet]:
    """Packets of every stream in order of time: a drifting gradient, a tone with noise, smooth sensor curves."""
    rng = np.random.default_rng(seed)
    packets = [p for name, spec in specs.items() for p in _stream_packets(name, spec, duration_s, rng)]
    yield from sorted(packets, key=lambda p: p.pts_s)


def _stream_packets(name: str, spec: StreamSpec, duration_s: float, rng: np.random.Generator) -> Iterator[Packet]:
    count = int(np.ceil(duration_s * spec.rate_hz - 1e-9))
    if spec.is_picture:
        make = gradient_frame if spec.pixels == "rgb8" else gradient_levels
        for j in range(count):
            yield Packet(name, spec.modality, j / spec.rate_hz, make(spec.size_px or 64, j), spec.rate_hz)
        return
    t_s = np.arange(count) / spec.rate_hz
    if spec.modality == AUDIO:
        data = (0.4 * np.sin(2 * np.pi * 440 * t_s) + 0.01 * rng.standard_normal(count)).astype(np.float32)
    else:
        phases = rng.uniform(0, 2 * np.pi, len(spec.axes))
        data = np.sin(2 * np.pi * t_s[:, None] + phases).astype(np.float32)
    size = max(1, int(spec.rate_hz * PACKET_S))
    for at in range(0, count, size):
        yield Packet(name, spec.modality, at / spec.rate_hz, data[at : at + size], spec.rate_hz)


def gradient_frame(size_px: int, number: int, height_px: int | None = None) -> np.ndarray:
    """A smooth picture (H, W, 3) uint8 whose colours tell frame `number` from its neighbours."""
    y, x = np.mgrid[0 : height_px or size_px, 0:size_px].astype(np.float32)
    y, x = y / max(1, y.max()), x / max(1, x.max())
    phase = 0.7 * number
    channels = [0.5 + 0.4 * np.sin(phase + k + 2 * (x if k != 1 else y)) for k in range(3)]
    return (np.stack(channels, axis=2) * 255).astype(np.uint8)


def gradient_levels(size_px: int, number: int, height_px: int | None = None) -> np.ndarray:
    """The same in 16-bit levels, (H, W, 1) uint16."""
    colours = gradient_frame(size_px, number, height_px).astype(np.uint16)
    return colours[:, :, :1] * 200 + colours[:, :, 1:2]


def make_video(
    path: str | Path,
    frames: Sequence[np.ndarray],
    *,
    rate_hz: int | Fraction = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    audio: np.ndarray | None = None,
    audio_hz: int = 44100,
    audio_codec: str = "aac",
    audio_start_s: float = 0.0,
    rotation_deg: float | None = None,
    options: Mapping[str, str] | None = None,
    container_format: str | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode RGB frames (H, W, 3) and mono audio float32 (T,) to a real file with PyAV.

    `pts`: one per frame in units of `time_base`, for variable frame rates. `rotation_deg`: a display matrix,
    counterclockwise. Returns the path. Needs `anymodal[run]`.
    """
    import av

    path = Path(path)
    with av.open(str(path), "w", format=container_format, container_options=dict(container_options or {})) as out:
        stream = out.add_stream(codec, rate=rate_hz, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation_deg is not None:
            stream.set_display_rotation(rotation_deg)
        sound = _add_audio(out, audio_codec, audio_hz) if audio is not None else None
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24").reformat(format=pixel_format)
            frame.pts = pts[i] if pts is not None else i
            frame.time_base = time_base or 1 / Fraction(rate_hz)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            _encode_audio(out, sound, audio, audio_hz, audio_start_s)
    return path


def make_levels_video(
    path: str | Path,
    frames: np.ndarray,
    *,
    rate_hz: int = 25,
    times_s: Sequence[float] | None = None,
    pixel_format: str = "gray16le",
) -> Path:
    """Encode 16-bit pictures (T, H, W) without loss, at a rate or at times of their own. Needs `anymodal[run]`."""
    import av

    tick = Fraction(1, 1000) if times_s is not None else Fraction(1, rate_hz)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=rate_hz, options={"strict": "experimental"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = tick
        for i, levels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), pixel_format)
            frame.time_base, frame.pts = tick, i if times_s is None else round(times_s[i] / tick)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return Path(path)


def make_audio(
    path: str | Path,
    samples: np.ndarray,
    rate_hz: int,
    codec: str = "pcm_s16le",
    *,
    start_s: float = 0.0,
    container_format: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Encode mono float32 (T,) or multichannel (C, T) to an audio-only file with PyAV. Returns the path."""
    import av

    with av.open(str(path), "w", format=container_format) as out:
        layout = "mono" if samples.ndim == 1 else {2: "stereo", 6: "5.1"}[len(samples)]
        stream = _add_audio(out, codec, rate_hz, layout, options)
        _encode_audio(out, stream, samples, rate_hz, start_s)
    return Path(path)


def _add_audio(
    out: Any, codec: str, rate_hz: int, layout: str = "mono", options: Mapping[str, str] | None = None
) -> Any:
    return out.add_stream(codec, rate=rate_hz, layout=layout, options=dict(options or {}))


def _encode_audio(out: Any, stream: Any, samples: np.ndarray, rate_hz: int, start_s: float) -> None:
    import av

    planes = np.ascontiguousarray(np.atleast_2d(samples).astype(np.float32))
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
    frame.pts = round(start_s * rate_hz)
    size = stream.codec_context.frame_size or 4096
    resampler = av.AudioResampler(stream.format.name, stream.layout.name, rate_hz, frame_size=size)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(stream.encode(piece))
    out.mux(stream.encode(None))


def make_wav(path: str | Path, samples: np.ndarray, rate_hz: int) -> Path:
    """Write mono float32 (T,) as 16-bit PCM, without PyAV. Returns the path."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return Path(path)


def make_imu_csv(path: str | Path, times_s: np.ndarray, readings: np.ndarray, axes: Sequence[str]) -> Path:
    """Write a sensor sidecar: times (N,), readings (N, C). Returns the path."""
    lines = [",".join(("time_s", *axes))]
    lines += [",".join(f"{v:.15g}" for v in (t, *row)) for t, row in zip(times_s, readings)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def tokens_saying(lexicon: Sequence[str], *windows: Sequence[str]) -> list[np.ndarray]:
    """What a word reader makes of windows whose tokens say these words, spaces between them: (N, V) of each, 0 or 1."""
    return [np.array([[float(word in token.split()) for word in lexicon] for token in tokens], np.float32)
            for tokens in windows]
