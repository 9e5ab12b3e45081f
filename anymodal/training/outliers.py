"""Windows of no playground: pictures and sounds with the statistics of natural ones, drawn by procedure.

They show the model what it does not know, so that it doubts itself on footage it was never trained on (outlier
exposure: Hendrycks et al. 2019, arXiv 1812.04606). No recording is used.
Shapes: T frames, S side in pixels, N samples, R rows.
"""

from __future__ import annotations

import numpy as np

from anymodal.config import BundleSpec
from anymodal.types import Signal, Window

FIELD_LEVELS = {"depth": (300, 12000), "thermal": (27300, 31300)}  # 0.3 to 12 m; 0 to 40 degrees Celsius


def strange_window(rng: np.random.Generator, spec: BundleSpec) -> Window:
    """One window of every modality of the bundle that can be drawn: video, audio, imu, depth, thermal."""
    signals = {}
    for name, modality in spec.modalities.items():
        count = round(modality.rate_hz * spec.window_s)
        if name == "video":
            frames = natural_frames(rng, count + 1, modality.size_px)
            signals[name] = Signal(name, frames[:-1], modality.rate_hz, 0.0, frames[-1])
        elif name == "audio":
            signals[name] = Signal(name, natural_sound(rng, count, int(modality.rate_hz)), modality.rate_hz, 0.0)
        elif name in FIELD_LEVELS:
            frames = natural_field(rng, count + 1, modality.size_px, *FIELD_LEVELS[name])
            signals[name] = Signal(name, frames[:-1], modality.rate_hz, 0.0, frames[-1])
        elif name == "imu":
            signals[name] = Signal(name, natural_readings(rng, count), modality.rate_hz, 0.0)
    return Window(0, 0.0, spec.window_s, signals)


# --- pictures ----------------------------------------------------------------------------------------------------

def natural_frames(rng: np.random.Generator, count: int, side_px: int) -> np.ndarray:
    """uint8 (T, S, S, 3): a camera that may pan slowly over a still picture."""
    margin = side_px // 8
    whole = side_px + 2 * margin
    picture = _dead_leaves(rng, whole) if rng.random() < 0.75 else _pink(rng, whole, rng.uniform(0.7, 1.6)) \
        * rng.uniform(0.08, 0.3) + rng.uniform(0.2, 0.7)
    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    reach = rng.integers(-margin, margin + 1, 2) * rng.integers(0, 2)
    starts = [margin + reach * k // max(1, count - 1) for k in range(count)]
    return np.stack([pixels[y : y + side_px, x : x + side_px] for y, x in starts])


def natural_field(rng: np.random.Generator, count: int, side_px: int, low: int, high: int) -> np.ndarray:
    """uint16 (T, S, S, 1): a picture of such things as levels of a depth or a thermal camera."""
    near, far = np.sort(rng.uniform(low, high, 2))
    shades = natural_frames(rng, count, side_px).mean(-1, keepdims=True) / 255
    return (near + (far - near) * shades + rng.standard_normal(shades.shape) * 5).clip(0, 65535).astype(np.uint16)


def _pink(rng: np.random.Generator, side: int, slope: float) -> np.ndarray:
    """Noise (S, S, 3) of unit spread whose spectrum falls as 1 / frequency^slope, its channels alike."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    shape = (3, *frequency.shape)
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / frequency**slope
    planes = np.fft.irfft2(spectrum, (side, side)).transpose(1, 2, 0)
    mixed = (planes / planes.std()) @ (1.0 + 0.35 * rng.standard_normal((3, 3)))
    return mixed / mixed.std()


def _dead_leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """Shapes of all sizes that cover one another, shaded and textured: the statistics of photographs come out of this
    (Lee, Mumford and Huang 2001, "Occlusion models for natural images")."""
    picture = _pink(rng, side, 1.2) * rng.uniform(0.05, 0.25) + rng.uniform(0.1, 0.8, 3)
    texture = _pink(rng, side, rng.uniform(0.5, 1.3))
    y, x = np.mgrid[0:side, 0:side] / side
    for _ in range(int(rng.integers(10, 90))):
        radius = float(np.exp(rng.uniform(np.log(0.02), np.log(0.45))))
        turn, flat, power = rng.uniform(0, np.pi), rng.uniform(0.3, 1), rng.choice([1.0, 2.0, 6.0])
        cx, cy = rng.uniform(0, 1, 2)
        u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / radius
        v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / radius
        inside = 1 - (np.abs(u) ** power + np.abs(v / flat) ** power) ** (1 / power)
        cover = np.clip(inside * radius * side / rng.uniform(0.7, 4), 0, 1)[..., None]
        color = rng.uniform(0.02, 0.95) * (1 + rng.uniform(-0.35, 0.35, 3))
        shade = np.clip(1 + rng.uniform(-0.8, 0.8) * u + rng.uniform(-0.8, 0.8) * v, 0.2, 1.8)[..., None]
        picture = picture * (1 - cover) + cover * (color * shade + texture * rng.uniform(0, 0.2))
    return picture


# --- sounds and readings -----------------------------------------------------------------------------------------

def natural_sound(rng: np.random.Generator, count: int, rate_hz: int) -> np.ndarray:
    """float32 (N,): voices, wind and clatter, one over another, over a room's noise."""
    t = np.arange(count) / rate_hz
    out = np.zeros(count)
    for _ in range(int(rng.integers(1, 5))):
        source = rng.choice([_voice, _wind, _clatter], p=[0.35, 0.45, 0.2])(rng, count, rate_hz)
        rise = np.interp(t, np.sort(rng.uniform(0, t[-1], 8)), rng.uniform(0, 1, 8) ** 2)
        out += source / (np.abs(source).max() + 1e-9) * rise * rng.uniform(0.1, 1)
    out += rng.standard_normal(count) * 10 ** rng.uniform(-4, -1.5)
    return (out / (np.abs(out).max() + 1e-9) * 10 ** rng.uniform(-1, -0.02)).astype(np.float32)


def _voice(rng: np.random.Generator, count: int, rate_hz: int) -> np.ndarray:
    """Harmonics over a gliding pitch."""
    pitch_hz = rng.uniform(80, 500) * np.exp(rng.normal(0, 0.25, 4))
    glide = np.interp(np.arange(count), np.linspace(0, count, 4), np.log(pitch_hz))
    phase = 2 * np.pi * np.cumsum(np.exp(glide)) / rate_hz
    fall = rng.uniform(0.3, 1.2)
    return sum(np.sin(k * phase + rng.uniform(0, 6.3)) * rng.uniform(0.2, 1) / k**fall
               for k in range(1, int(rng.integers(6, 20))))


def _wind(rng: np.random.Generator, count: int, rate_hz: int) -> np.ndarray:
    """Coloured noise through a few resonances."""
    frequency = np.fft.rfftfreq(count, 1 / rate_hz)
    spectrum = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    spectrum /= np.maximum(frequency, 30) ** rng.uniform(0, 1.2)
    for _ in range(int(rng.integers(0, 4))):
        width = (frequency - rng.uniform(100, 6000)) / rng.uniform(50, 900)
        spectrum *= 1 + rng.uniform(2, 15) * np.exp(-(width**2))
    return np.fft.irfft(spectrum, count)


def _clatter(rng: np.random.Generator, count: int, rate_hz: int) -> np.ndarray:
    """Knocks at random times."""
    out, long = np.zeros(count), rate_hz // 20
    for at in rng.integers(0, max(1, count - long), int(rng.integers(5, 120))):
        knock = rng.standard_normal(long) * np.exp(-np.arange(long) * 800 / rate_hz / rng.uniform(1, 10))
        out[at : at + long] += knock[: count - at]
    return out


def natural_readings(rng: np.random.Generator, count: int) -> np.ndarray:
    """float32 (R, 6): a device that turns and jolts without rhythm."""
    drift = np.cumsum(rng.standard_normal((count, 6)), 0) * rng.uniform(0.05, 0.6)
    gravity = rng.standard_normal(3)
    rows = drift * ([1.0] * 3 + [0.3] * 3)
    rows[:, :3] += 9.81 * gravity / np.linalg.norm(gravity)
    return (rows + rng.standard_normal((count, 6)) * rng.uniform(0.02, 2.0)).astype(np.float32)
