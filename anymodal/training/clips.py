"""Training clips without files: a scene rendered straight to the signals of its windows.

The same grid as the file path: video frames at j / rate with the window's closing frame, audio and IMU cut at the
window's edges. Shapes: K windows, T frames a window, H W pixels, N audio samples, R sensor rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anymodal.playground.fields import RENDER
from anymodal.playground.render import render_frames, render_imu
from anymodal.playground.sound import render_audio
from anymodal.playground.world import Scene

VIDEO_HZ, AUDIO_HZ, IMU_HZ, FIELD_HZ = 4, 16000, 50, 2


@dataclass(slots=True)
class ClipSignals:
    """Frames uint8 (F, H, W, 3), those of each window `index` (K, T) with `valid` (K, T); audio float32 (K, N), imu
    float32 (K, R, 6). A closing frame is the next window's first, so it is rendered and encoded once. Depth and thermal
    pictures, where there are any: uint16 (F, H, W, 1) by name, with an index and a validity that both share.
    """

    frames: np.ndarray
    index: np.ndarray
    valid: np.ndarray
    audio: np.ndarray
    imu: np.ndarray
    fields: dict[str, np.ndarray]
    fields_index: np.ndarray
    fields_valid: np.ndarray


def clip_signals(scene: Scene, image_px: int, windows: np.ndarray | None = None, *, rng=None,
                 fields_px: int = 0) -> ClipSignals:
    """Signals of the given windows (default all) of one second each. `rng` adds what a codec would. `fields_px`: the
    side of depth and thermal pictures; 0 is none.
    """
    last = int(np.ceil(scene.duration_s))
    windows = np.arange(last) if windows is None else windows
    times_s, index, valid = _grid(scene, windows, VIDEO_HZ)
    frames = render_frames(scene, times_s, image_px, image_px)
    if rng is not None:
        frames = coded(frames, rng)
    audio = _cut(render_audio(scene, AUDIO_HZ), windows, AUDIO_HZ)
    imu = _cut(render_imu(scene, IMU_HZ), windows, IMU_HZ)
    return ClipSignals(frames, index, valid, audio, imu, *field_signals(scene, windows, fields_px))


def field_signals(scene: Scene, windows: np.ndarray, side_px: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Depth and thermal pictures of the windows: by name, with their index (K, T) and validity (K, T)."""
    times_s, index, valid = _grid(scene, windows, FIELD_HZ)
    return {n: render(scene, times_s, side_px, side_px) for n, render in RENDER.items() if side_px}, index, valid


def _grid(scene: Scene, windows: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The times (F,) of all frames that windows need with their closing ones, and which (K, T) each needs and has."""
    grid = windows[:, None] * rate_hz + np.arange(rate_hz + 1)
    needed, where = np.unique(grid, return_inverse=True)
    times_s = np.minimum(needed / rate_hz, scene.duration_s - 1e-3)
    return times_s, where.reshape(grid.shape), grid / rate_hz < scene.duration_s - 1e-6


def _cut(samples: np.ndarray, windows: np.ndarray, rate_hz: int) -> np.ndarray:
    short = int((windows.max() + 1) * rate_hz) - len(samples)
    if short > 0:
        samples = np.concatenate([samples, np.zeros((short, *samples.shape[1:]), samples.dtype)])
    return np.stack([samples[k * rate_hz : (k + 1) * rate_hz] for k in windows])


def coded(frames: np.ndarray, rng) -> np.ndarray:
    """Roughly what a video codec and a scaler do: colour at half resolution, a little softness, coarse levels."""
    if rng.random() < 0.25:
        return frames
    soft = frames.astype(np.float32)
    luma = soft @ np.array([0.299, 0.587, 0.114], np.float32)
    if rng.random() < 0.7:
        chroma = soft - luma[..., None]
        small = chroma.reshape(len(soft), soft.shape[1] // 2, 2, soft.shape[2] // 2, 2, 3).mean((2, 4))
        chroma = np.repeat(np.repeat(small, 2, 1), 2, 2)
        soft = luma[..., None] + chroma
    if rng.random() < 0.4:
        share = np.float32(rng.uniform(0.05, 0.2))
        soft = soft * (1 - 2 * share) + share * (np.roll(soft, 1, 1) + np.roll(soft, -1, 2))
    step = rng.uniform(1, 5)
    soft = np.round(soft / step) * step * np.float32(rng.uniform(0.97, 1.03)) + np.float32(rng.uniform(-4, 4))
    return np.clip(soft, 0, 255).astype(np.uint8)


def join(clips: list[ClipSignals]) -> ClipSignals:
    """Several clips as one: windows one after another."""
    def after(counts: list[int], indices: list[np.ndarray]) -> np.ndarray:
        starts = np.cumsum([0, *counts[:-1]])
        return np.concatenate([index + start for index, start in zip(indices, starts, strict=True)])

    fields = {n: np.concatenate([c.fields[n] for c in clips]) for n in clips[0].fields}
    return ClipSignals(
        np.concatenate([c.frames for c in clips]), after([len(c.frames) for c in clips], [c.index for c in clips]),
        *(np.concatenate([getattr(c, name) for c in clips]) for name in ("valid", "audio", "imu")), fields,
        after([int(c.fields_index.max()) + 1 for c in clips], [c.fields_index for c in clips]),
        np.concatenate([c.fields_valid for c in clips]))
