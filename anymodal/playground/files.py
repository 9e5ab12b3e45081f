"""Scenes as real files: NAME.mp4 (H.264 and AAC), NAME.imu.csv, NAME.depth.mkv and NAME.thermal.mkv (FFV1, 16 bits a
pixel), and the truth in NAME.json.

A clip's bytes are a pure function of (split, seed, index) on one build of FFmpeg: how it is encoded is drawn like
the scene itself, and every encoder runs on one thread, since their output depends on the number of threads.
Shapes: T frames, H height, W width, N samples, C channels.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anymodal.config import BundleSpec
from anymodal.errors import InputError, OutputError, nearest, need
from anymodal.playground.fields import RENDER
from anymodal.playground.questions import KINDS, make_questions
from anymodal.playground.render import IMU_AXES, render_frames, render_imu
from anymodal.playground.sound import render_audio
from anymodal.playground.truth import ClipTruth, load_truth, truth_to_json
from anymodal.playground.world import SPLITS, Scene, make_scene

__all__ = ["MODALITIES", "ClipTruth", "Encoding", "clip_scene", "clip_truth", "load_truth", "render_clip",
           "render_clips"]

Made = TypeVar("Made")
MODALITIES = ("video", "audio", "imu", "depth", "thermal")
USUAL = MODALITIES[:3]  # what a phone has
FIELD_PX, FIELD_HZ = (160, 120), 10  # of depth and thermal cameras: small and slow, as most of them are
SIZES_PX = {4 / 3: ((320, 240), (320, 240), (400, 300)), 16 / 9: ((448, 252), (480, 270)),
            1.0: ((320, 320), (352, 352)), 3 / 4: ((324, 432), (360, 480))}
SOUND_HZ = 16000  # sounds are drawn at this rate and resampled without loss to the file's
CHUNK_FRAMES = 16  # bounds memory, and fits a processor's cache
AAC_FRAME = 1024
SHORTEST_S = 1.0
COUNTS = ((3, 4, 3, 4, 5), (1, 2, 2, 1, 5))  # of objects in clips of even and of odd numbers: 1 to 5 stay about as frequent
_ENCODING_STREAM = 1  # of a clip's entropy, apart from its scene's


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a clip's files are written."""

    width_px: int
    height_px: int
    rate_hz: int
    crf: int
    gop: int
    audio_hz: int
    audio_bits_s: int
    pan: float | None  # stereo with this balance in [-1, 1], or mono
    imu_hz: int


def render_clips(
    folder: str | Path,
    *,
    split: str = "test",
    seed: int = 0,
    count: int = 1,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    held_out_wordings: bool = True,
    modalities: Sequence[str] = USUAL,
    kinds: Sequence[str] | None = None,
    first: int = 0,
    workers: int = 1,
) -> list[Path]:
    """Render `count` clips from index `first` on; returns the paths of their mp4 files, in order.

    seconds: one length for all, else 4 to 30 s each. kinds: question types to ask, else one of every type that the
    scene answers. modalities: "video" or "audio" or both, and "imu", "depth", "thermal". progress: called with
    (clips done, count). workers: threads that render at once. Raises InputError for a wrong argument, OutputError for a
    folder or a file that cannot be written.
    """
    folder = Path(folder)
    _check(split, count, seconds, modalities, kinds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}", fix="give another folder") from error

    def one(index: int) -> Path:
        return render_clip(folder, split=split, seed=seed, index=index, seconds=seconds, kinds=kinds,
                           held_out_wordings=held_out_wordings, modalities=modalities)

    paths: list[Path] = []
    for path in in_threads(one, range(first, first + count), workers):
        paths.append(path)
        if progress:
            progress(len(paths), count)
    return paths


def in_threads(make: Callable[[int], Made], numbers: Sequence[int], workers: int) -> Iterator[Made]:
    """make(n) for each number in order, run ahead in threads; left early, it starts no more of them."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(make, numbers)
    finally:
        pool.shutdown(cancel_futures=True)


def render_clip(folder: Path, *, split: str, seed: int, index: int, seconds: float | None = None,
                held_out_wordings: bool = True, modalities: Sequence[str] = USUAL,
                kinds: Sequence[str] | None = None) -> Path:
    """Write one clip's files into an existing folder; returns its mp4. The JSON comes last: it marks a whole clip."""
    truth = clip_truth(split, seed, index, seconds=seconds, held_out_wordings=held_out_wordings,
                       modalities=modalities, kinds=kinds)
    encoding = draw_encoding(truth.scene, split, seed, index)
    truth.made.update({"modalities": list(modalities), **asdict(encoding)})
    media = folder / f"clip-{index:05d}.mp4"
    try:
        if "imu" in modalities:
            rows = render_imu(truth.scene, encoding.imu_hz)
            _replace(media.with_suffix(".imu.csv"), lambda path: _write_imu(path, rows, encoding.imu_hz))
        for name in RENDER.keys() & set(modalities):
            _replace(media.with_suffix(f".{name}.mkv"), lambda path, n=name: _write_field(path, truth.scene, RENDER[n]))
        _replace(media, lambda path: _write_media(path, truth.scene, encoding, modalities))
        _replace(media.with_suffix(".json"), lambda path: path.write_text(truth_to_json(truth), encoding="utf-8"))
    except OSError as error:  # PyAV's errors of reading and writing are OSErrors too
        raise OutputError(f"{media} cannot be written: {error.strerror or error}",
                          fix="give a folder with room that can be written") from error
    return media


def senses_of(spec: BundleSpec) -> tuple[str, ...]:
    """What clips for a bundle hold: every modality that it and the playground know."""
    return tuple(m for m in MODALITIES if m in spec.modalities)


def clip_scene(split: str, seed: int, index: int, seconds: float | None = None) -> Scene:
    """The scene of a clip. All of even numbers have three objects or more: at least half of the first, however few."""
    return make_scene(split, seed, index, seconds=seconds, counts=COUNTS[index % 2], least=(3, 0)[index % 2])


def clip_truth(split: str, seed: int, index: int, *, seconds: float | None = None, held_out_wordings: bool = True,
               modalities: Sequence[str] = USUAL, kinds: Sequence[str] | None = None) -> ClipTruth:
    """The scene of a clip and its questions, without files."""
    scene = clip_scene(split, seed, index, seconds)
    rng = random.Random(f"{split}/{seed}/{index}")
    questions = make_questions(scene, rng, held_out=held_out_wordings, kinds=kinds, present=tuple(modalities))
    return ClipTruth(scene, tuple(questions), {"split": split, "seed": seed, "index": index})


def draw_encoding(scene: Scene, split: str, seed: int, index: int) -> Encoding:
    """How a clip is encoded: sizes, rates and qualities vary as they do in the wild."""
    rng = np.random.default_rng(np.random.SeedSequence([SPLITS[split], seed, index, _ENCODING_STREAM]))
    sizes = SIZES_PX[min(SIZES_PX, key=lambda aspect: abs(aspect - scene.aspect))]
    width, height = sizes[rng.integers(len(sizes))]
    rate_hz = int(rng.choice([12, 15, 24, 25, 30]))
    return Encoding(
        width, height, rate_hz, crf=int(rng.integers(18, 27)), gop=int(rng.choice([1, 2, 10]) * rate_hz),
        audio_hz=int(rng.choice([44100, 48000])), audio_bits_s=int(rng.choice([64, 96, 128])) * 1000,
        pan=float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.5 else None, imu_hz=int(rng.choice([50, 100])))


def _check(split: str, count: int, seconds: float | None, modalities: Sequence[str],
           kinds: Sequence[str] | None) -> None:
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}", fix=nearest(split, SPLITS))
    if count < 1:
        raise InputError(f"cannot render {count} clips", fix="give a count of 1 or more")
    if seconds is not None and not SHORTEST_S <= seconds <= 3600:
        raise InputError(f"cannot render clips of {seconds:g} s", fix=f"give a length from {SHORTEST_S:g} to 3600 s")
    for given, known in ((modalities, MODALITIES), (kinds or (), KINDS)):
        for name in given:
            if name not in known:
                raise InputError(f"unknown {'modality' if known is MODALITIES else 'question type'} {name!r}",
                                 fix=nearest(name, known))
    if not {"video", "audio"} & set(modalities):
        raise InputError("a clip needs video or audio", fix='add "video" or "audio" to its modalities')


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside, then put it in place: what has its final name is whole."""
    beside = path.with_name(path.name + ".part")
    try:
        write(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


# --- media -------------------------------------------------------------------------------------------------------

def _write_media(path: Path, scene: Scene, encoding: Encoding, modalities: Sequence[str]) -> None:
    av = need("av", extra="run")
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        video = _video_stream(out, encoding) if "video" in modalities else None
        audio = _audio_stream(out, encoding) if "audio" in modalities else None
        sound = _audio_frames(scene, encoding) if audio else iter(())
        if video:
            for end_s, frames in _video_frames(scene, encoding):
                out.mux([packet for frame in frames for packet in video.encode(frame)])
                for frame in sound:  # up to the same time, so that the file is interleaved
                    out.mux(audio.encode(frame))
                    if frame.time >= end_s:
                        break
            out.mux(video.encode(None))
        if audio:
            for frame in sound:
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))


def _video_stream(out: Any, encoding: Encoding) -> Any:
    # x264's macroblock tree reads what it has not written: with it the same frames encode in more than one way
    options = {"crf": str(encoding.crf), "preset": "veryfast", "x264-params": "mbtree=0"}
    stream = out.add_stream("libx264", rate=encoding.rate_hz, options=options)
    stream.width, stream.height, stream.pix_fmt = encoding.width_px, encoding.height_px, "yuv420p"
    stream.codec_context.thread_count, stream.gop_size = 1, encoding.gop
    return stream


def _audio_stream(out: Any, encoding: Encoding) -> Any:
    stream = out.add_stream("aac", rate=encoding.audio_hz, layout="mono" if encoding.pan is None else "stereo")
    stream.bit_rate = encoding.audio_bits_s
    return stream


def _video_frames(scene: Scene, encoding: Encoding) -> Iterator[tuple[float, list[Any]]]:
    """Pieces of the clip as (end in seconds, PyAV frames)."""
    av = need("av", extra="run")
    times_s = np.arange(round(scene.duration_s * encoding.rate_hz)) / encoding.rate_hz
    for at in range(0, len(times_s), CHUNK_FRAMES):
        piece_s = times_s[at : at + CHUNK_FRAMES]
        frames = []
        for i, pixels in enumerate(render_frames(scene, piece_s, encoding.width_px, encoding.height_px), at):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, encoding.rate_hz)
            frames.append(frame)
        yield float(piece_s[-1]) + 1 / encoding.rate_hz, frames


def _audio_frames(scene: Scene, encoding: Encoding) -> Iterator[Any]:
    av = need("av", extra="run")
    mono = resample(render_audio(scene, SOUND_HZ), SOUND_HZ, encoding.audio_hz)
    if encoding.pan is None:
        planes, layout = mono[None], "mono"
    else:
        planes, layout = np.stack([mono * (1 - encoding.pan), mono * (1 + encoding.pan)]), "stereo"
    for at in range(0, len(mono), AAC_FRAME):
        piece = np.ascontiguousarray(planes[:, at : at + AAC_FRAME])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = encoding.audio_hz, at, Fraction(1, encoding.audio_hz)
        yield frame


def resample(samples: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """float32 (N,) at a higher rate, by zero-padding its spectrum: no filter, hence no delay."""
    count = round(len(samples) * wanted_hz / rate_hz)
    spectrum = np.fft.rfft(samples)
    return (np.fft.irfft(spectrum, count) * (count / len(samples))).astype(np.float32)


def _write_imu(path: Path, rows: np.ndarray, rate_hz: int) -> None:
    """rows (N, C), columns IMU_AXES -> CSV with a time column."""
    table = np.concatenate([np.arange(len(rows))[:, None] / rate_hz, rows], axis=1)
    np.savetxt(path, table, fmt=["%.3f", *["%.5g"] * rows.shape[1]], delimiter=",", comments="",
               header=",".join(("time_s", *IMU_AXES)))


def _write_field(path: Path, scene: Scene, render: Callable[..., np.ndarray]) -> None:
    """Depth or thermal pictures as FFV1 in Matroska: every level as it is."""
    av = need("av", extra="run")
    width, height = FIELD_PX
    times_s = np.arange(round(scene.duration_s * FIELD_HZ)) / FIELD_HZ
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("ffv1", rate=FIELD_HZ)
        stream.width, stream.height, stream.pix_fmt = width, height, "gray16le"
        stream.codec_context.thread_count = 1
        for i, levels in enumerate(render(scene, times_s, width, height)):
            frame = av.VideoFrame.from_ndarray(levels[..., 0], "gray16le")
            frame.pts, frame.time_base = i, Fraction(1, FIELD_HZ)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
