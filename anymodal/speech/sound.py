"""Sound at the rate that speech is heard at: an utterance at once, or a microphone piece by piece."""

from __future__ import annotations

import numpy as np

from anymodal.errors import InputError, need

SPEECH_HZ = 16000
RATES_HZ = (4000, 192000)  # of microphones, from and to


def check_rate(rate_hz: int) -> None:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or rate_hz != int(rate_hz):
        raise InputError(f"sound of {rate_hz} Hz is no speech", fix=f"send {RATES_HZ[0]} to {RATES_HZ[1]} samples/s")


def to_rate(samples: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """float32 (T,) at another rate, by its spectrum: no filter, hence no delay. Raises InputError for no sound."""
    check_rate(rate_hz)
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise InputError(f"an utterance of shape {samples.shape} is no mono sound", fix="finite samples, float32 (T,)")
    if rate_hz == wanted_hz or not len(samples):
        return samples
    count = round(len(samples) * wanted_hz / rate_hz)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return (np.fft.irfft(spectrum, count) * (count / len(samples))).astype(np.float32)


class Resampler:
    """Pieces of one stream -> pieces at SPEECH_HZ, without seams."""

    def __init__(self, rate_hz: int) -> None:
        check_rate(rate_hz)
        self._rate_hz = int(rate_hz)
        self._av = None
        if rate_hz != SPEECH_HZ:
            self._av = need("av", extra="run")
            self._through = self._av.AudioResampler(format="flt", layout="mono", rate=SPEECH_HZ)

    def push(self, samples: np.ndarray) -> np.ndarray:
        if self._av is None or not len(samples):
            return samples
        frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), "flt", "mono")
        frame.sample_rate = self._rate_hz
        pieces = [piece.to_ndarray()[0] for piece in self._through.resample(frame)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
