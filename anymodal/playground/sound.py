"""Scene -> audio samples, in numpy.

What a kind of sound is, is the least that all of its renderings share: a chirp rises, clicks are short and many. All else
is drawn for each: waveforms, partials, spectra, how it swells and fades, and the room and the noise around it. A half of
the sounds are in the plain form that each kind has, too. Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from anymodal.playground.world import Scene, Sound

Wave = np.ndarray  # float (N,)
CLICK_S = 0.01


def render_audio(scene: Scene, rate_hz: int = 16000, *, plain: bool = False) -> Wave:
    """The clip's sound, float32 (N,) in [-1, 1]. plain: every sound in its plain form and at a loudness of its own, over
    nothing but white noise."""
    rng = np.random.default_rng(scene.look + 1)
    samples = int(round(scene.duration_s * rate_hz))
    out = rng.standard_normal(samples, dtype=np.float32) * np.float32(10 ** rng.uniform(-4.0, -2.3))
    room = np.random.default_rng([scene.look, 6])
    if not plain and room.random() < 0.5:
        out = _around(room, samples, rate_hz)
    echo = _echo(room, rate_hz) if not plain and room.random() < 0.3 else None
    for number, sound in enumerate(scene.sounds):
        start = int(sound.t0_s * rate_hz)
        dice = np.random.default_rng([scene.look, 7, number])
        is_plain = plain or dice.random() < 0.5
        t = np.arange(int((sound.t1_s - sound.t0_s) * rate_hz), dtype=np.float32) / rate_hz
        wave = PLAIN[sound.kind](sound, t, rate_hz, rng) if is_plain else VARIED[sound.kind](sound, t, rate_hz, dice)
        fade = np.minimum(1.0, np.minimum(t, t[-1] - t) / (0.01 if is_plain else dice.uniform(0.003, 0.03)))
        wave = wave * fade * 10 ** rng.uniform(-0.9, -0.25)
        if echo is not None:
            size = len(wave) + len(echo) - 1
            wave = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(echo, size), size)
        wave = wave[: samples - start].astype(np.float32)
        out[start : start + len(wave)] += wave
    return np.clip(out, -1, 1).astype(np.float32)


def tone_hz(sound: Sound) -> float:
    """The tone of a pitched sound."""
    return 230 + 200 * sound.variant if sound.pitch == "low" else 1150 + 900 * sound.variant


# --- the plain form of each kind -------------------------------------------------------------------------------------

def _plain_beep(sound: Sound, t: Wave, rate_hz: int, rng: np.random.Generator) -> Wave:
    phase = 2 * np.pi * tone_hz(sound) * t
    return np.sin(phase) + (0.3 * np.sin(3 * phase) if rng.random() < 0.5 else 0)


def _plain_chirp(sound: Sound, t: Wave, rate_hz: int, rng: np.random.Generator) -> Wave:
    first, last = _ends(sound, 2.1 / 0.8)
    return np.sin(2 * np.pi * (first * t + (last - first) * t * t / (2 * max(len(t) / rate_hz, 1e-3))))


def _plain_bell(sound: Sound, t: Wave, rate_hz: int, rng: np.random.Generator) -> Wave:
    return sum(a * np.sin(2 * np.pi * tone_hz(sound) * k * t) * np.exp(-t * d)
               for k, a, d in ((1.0, 1.0, 3.0), (2.76, 0.6, 5.0), (5.4, 0.35, 8.0), (0.5, 0.3, 2.5)))


def _plain_noise(sound: Sound, t: Wave, rate_hz: int, rng: np.random.Generator) -> Wave:
    wave = rng.standard_normal(len(t)).astype(np.float32)
    return _even(np.cumsum(wave - wave.mean()) if sound.pitch == "low" else np.diff(wave, prepend=0))


def _plain_clicks(sound: Sound, t: Wave, rate_hz: int, rng: np.random.Generator) -> Wave:
    ring = np.exp(-np.arange(160) / 25.0) * np.sin(2 * np.pi * (700 if sound.pitch == "low" else 3000)
                                                   * np.arange(160) / rate_hz)
    wave = np.zeros(len(t), np.float32)
    for at in np.arange(0, len(t) - 160, rate_hz / (8 + 8 * sound.variant)).astype(int):
        wave[at : at + 160] += ring
    return wave


# --- others ----------------------------------------------------------------------------------------------------------

def _beep(sound: Sound, t: Wave, rate_hz: int, dice: np.random.Generator) -> Wave:
    """One steady tone: any harmonics, a little vibrato or tremolo."""
    shake = 1 + dice.choice([0, 0, 0.004, 0.012]) * np.sin(2 * np.pi * dice.uniform(4, 8) * t)
    tone = _tone(sound, dice)
    wave = _harmonic(np.cumsum(tone * shake) / rate_hz, tone, rate_hz, dice)
    swing = dice.choice([0, 0, 0.3]) * np.sin(2 * np.pi * dice.uniform(5, 12) * t)
    return _even(wave) * (1 + swing)


def _chirp(sound: Sound, t: Wave, rate_hz: int, dice: np.random.Generator) -> Wave:
    """A tone that goes all the way from one pitch to another, on a line or a curve."""
    first, last = _ends(sound, dice.uniform(1.7, 3.2), _tone(sound, dice))
    share = np.linspace(0, 1, len(t)) ** dice.uniform(0.6, 1.6)
    hz = first * (last / first) ** share if dice.random() < 0.6 else first + (last - first) * share
    return _even(_harmonic(np.cumsum(hz) / rate_hz, max(first, last), rate_hz, dice))


def _bell(sound: Sound, t: Wave, rate_hz: int, dice: np.random.Generator) -> Wave:
    """Struck: partials that are no harmonics, each dying away, the higher the sooner; at times the stroke itself."""
    tone, count = _tone(sound, dice), dice.integers(3, 10)
    parts = np.concatenate([[1.0, dice.uniform(0.45, 0.6)], np.sort(dice.uniform(1.15, 6.5, count))])
    parts = parts[tone * parts < 0.45 * rate_hz]
    loud = np.concatenate([[1.0, dice.uniform(0, 0.5)], dice.uniform(0.15, 1.0, count)])[: len(parts)]
    dies = dice.uniform(1.5, 8.0) * (0.5 + 0.5 * parts) ** dice.uniform(0.4, 1.3)
    wave = sum(a * np.sin(2 * np.pi * tone * k * t + dice.uniform(0, 6.3)) * np.exp(-t * d)
               for k, a, d in zip(parts, loud, dies, strict=True))
    stroke = dice.standard_normal(len(t)) * np.exp(-t / 0.004) * dice.choice([0, 0, 0.5, 1.0])
    return _even(wave + stroke)


def _noise(sound: Sound, t: Wave, rate_hz: int, dice: np.random.Generator) -> Wave:
    """All frequencies of a low or a high band at once, at any slope; it bursts, swells or stays."""
    low, slope = sound.pitch == "low", dice.uniform(-1.0, 0.6)
    edge_hz = dice.uniform(300, 1100) if low else dice.uniform(1300, 4500)
    steep, other_hz = dice.uniform(2, 12), dice.uniform(0, 150) if low else dice.uniform(5500, 8000)

    def gain(hz: Wave) -> Wave:
        below = 1 / (1 + (hz / edge_hz) ** (2 * steep))
        band = below * (hz >= other_hz) if low else (1 - below) * (hz <= other_hz)
        return band * ((hz + 40) / edge_hz) ** slope

    shapes = (np.ones(len(t)), np.exp(-t * dice.uniform(2, 7)), np.sin(np.pi * np.linspace(0.02, 0.98, len(t))))
    return _even(_shaped(dice.standard_normal(len(t)), gain, rate_hz) * shapes[dice.integers(3)])


def _clicks(sound: Sound, t: Wave, rate_hz: int, dice: np.random.Generator) -> Wave:
    """Many short strokes, evenly or not: a ring that dies at once, or a puff of noise."""
    size = int(rate_hz * CLICK_S)
    own = np.arange(size) / rate_hz
    hz = dice.uniform(400, 1000) if sound.pitch == "low" else dice.uniform(2200, 5000)
    stroke = np.sin(2 * np.pi * hz * own) * np.exp(-own / dice.uniform(0.0006, 0.0025))
    if dice.random() < 0.3:
        stroke = stroke + 0.4 * dice.standard_normal(size) * np.exp(-own / 0.0008)
    wave, apart, uneven = np.zeros(len(t)), rate_hz / dice.uniform(7, 18), dice.choice([0.0, 0.0, 0.15])
    for at in np.arange(0, len(t) - 2 * size, apart):
        start = min(len(t) - size, int(at + apart * uneven * dice.random()))
        wave[start : start + size] += stroke * dice.uniform(0.8, 1.0)
    return _even(wave)


PLAIN: dict[str, Callable[..., Wave]] = {"beep": _plain_beep, "rising chirp": _plain_chirp, "falling chirp": _plain_chirp,
                                         "bell": _plain_bell, "noise burst": _plain_noise, "clicks": _plain_clicks}
VARIED: dict[str, Callable[..., Wave]] = {"beep": _beep, "rising chirp": _chirp, "falling chirp": _chirp, "bell": _bell,
                                          "noise burst": _noise, "clicks": _clicks}


# --- parts of sounds -------------------------------------------------------------------------------------------------

def _tone(sound: Sound, dice: np.random.Generator) -> float:
    return dice.uniform(200, 470) if sound.pitch == "low" else dice.uniform(1050, 2200)


def _ends(sound: Sound, ratio: float, tone: float | None = None) -> tuple[float, float]:
    """Where a chirp begins and ends, in Hz."""
    low = 0.8 * (tone_hz(sound) if tone is None else tone)
    return (low, low * ratio) if sound.kind == "rising chirp" else (low * ratio, low)


def _harmonic(turns: Wave, most_hz: float, rate_hz: int, dice: np.random.Generator) -> Wave:
    """A tone whose phase is `turns`: all harmonics or the odd ones, weaker by a power of their number."""
    step, power = int(dice.choice([1, 2])), dice.uniform(0.8, 3.0)
    numbers = np.arange(1, int(dice.choice([1, 2, 6, 16])) + 1, step)
    numbers = numbers[(numbers == 1) | (numbers * most_hz < 0.45 * rate_hz)]
    return sum(n**-power * np.sin(2 * np.pi * n * turns) for n in numbers)


def _shaped(wave: Wave, gain: Callable[[Wave], Wave], rate_hz: int) -> Wave:
    spectrum = np.fft.rfft(wave)
    return np.fft.irfft(spectrum * gain(np.fft.rfftfreq(len(wave), 1 / rate_hz)), len(wave))


def _even(wave: Wave) -> Wave:
    """Loudest at 1."""
    return wave / (np.abs(wave).max() + 1e-6)


def _around(dice: np.random.Generator, samples: int, rate_hz: int) -> Wave:
    """What is heard of a room where nothing sounds: noise at any slope, and at times the hum of the mains."""
    slope = dice.uniform(-1.0, 0.2)
    noise = _even(_shaped(dice.standard_normal(samples), lambda hz: (hz + 20) ** slope, rate_hz))
    t = np.arange(samples) / rate_hz
    mains_hz = dice.choice([50, 60])
    hum = sum(np.sin(2 * np.pi * mains_hz * n * t) / n for n in (1, 2, 3)) * dice.choice([0, 0, 0.5])
    return ((noise + hum) * 10 ** dice.uniform(-3.6, -1.9)).astype(np.float32)


def _echo(dice: np.random.Generator, rate_hz: int) -> Wave:
    """A room's answer to a click: the click, and noise that dies away."""
    t = np.arange(int(0.25 * rate_hz)) / rate_hz
    answer = dice.standard_normal(len(t)) * np.exp(-t / dice.uniform(0.02, 0.06))
    answer *= dice.uniform(0.05, 0.35) / np.sqrt((answer**2).sum())
    answer[0] = 1.0
    return answer
