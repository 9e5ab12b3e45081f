"""Streams of a live session: what comes at a client's own rates and times -> Packets on the bundle's grids.

Sound is resampled as it is of files, sensors are interpolated; either goes on from piece to piece without a seam, and
jitter of the client's clock below JITTER_S moves nothing. One thread at a time.
"""

from __future__ import annotations

import math

import av
import numpy as np

from actors.gateway.faults import Fault
from anymodal.media.spec import StreamSpec
from anymodal.types import Packet

JITTER_S = 0.04  # pieces whose times are this near to where the last one ended follow it without a gap
BRIDGE_S = 0.5  # between two readings of a sensor; a longer gap is one
LEAST_HZ, MOST_HZ = 4000, 192_000  # of sound


class SoundInput:
    """Mono samples at a rate of their own -> the grid's."""

    def __init__(self, name: str, spec: StreamSpec) -> None:
        self.name, self.spec = name, spec
        self._rate_hz = 0
        self._resampler: av.AudioResampler | None = None
        self._next_s = -math.inf  # where the next piece is expected
        self._index = self._from = 0  # on the grid: of the next sample out of the resampler, and the first to be used

    def push(self, data: np.ndarray, pts_s: float, rate_hz: float | None) -> list[Packet]:
        """float32 (T,), its first sample at pts_s. Raises Fault for a rate that sound has not."""
        if rate_hz is None or rate_hz != int(rate_hz) or not LEAST_HZ <= rate_hz <= MOST_HZ:
            raise Fault(400, "invalid_rate", f"rate_hz is {rate_hz}, sound has a whole number of "
                        f"{LEAST_HZ} to {MOST_HZ} Hz", param="rate_hz", fix="say the rate that the samples were taken at")
        if rate_hz != self._rate_hz or abs(pts_s - self._next_s) > JITTER_S:
            self._begin(int(rate_hz), pts_s)
            self._next_s = pts_s
        self._next_s += len(data) / rate_hz
        out = data if self._resampler is None else pull(self._resampler, data, self._rate_hz)
        skip = max(0, self._from - self._index)
        first, self._index = self._index + skip, self._index + len(out)
        if len(out) <= skip:
            return []
        hz = self.spec.rate_hz
        return [Packet(self.name, self.spec.modality, first / hz, out[skip:], hz)]

    def _begin(self, rate_hz: int, pts_s: float) -> None:
        """A run whose first sample is at pts_s: behind silence from the last time that is on both grids."""
        grid_hz = int(self.spec.rate_hz)
        position = round(pts_s * rate_hz)
        self._rate_hz = rate_hz
        if rate_hz == grid_hz:
            self._resampler, self._index = None, position
            self._from = position
            return
        common = math.gcd(rate_hz, grid_hz)
        block, lead = divmod(position, rate_hz // common)
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=grid_hz)
        self._from = -(-position * grid_hz // rate_hz)
        self._index = block * (grid_hz // common)
        if lead:
            self._index += len(pull(self._resampler, np.zeros(lead, np.float32), rate_hz))


class SensorInput:
    """Readings at a rate of their own, or one by one at any times -> the grid's, linear between them."""

    def __init__(self, name: str, spec: StreamSpec) -> None:
        self.name, self.spec = name, spec
        self._last_s, self._last = -math.inf, np.zeros(0, np.float32)

    def push(self, data: np.ndarray, pts_s: float, rate_hz: float | None) -> list[Packet]:
        """float32 (T, C). Raises Fault where its times are not after those before."""
        if rate_hz is None and len(data) > 1:
            raise Fault(400, "invalid_rate", f"rate_hz is missing, and there are {len(data)} readings", param="rate_hz",
                        fix="say how many there are in a second")
        times_s = pts_s + np.arange(len(data)) / (rate_hz or 1.0)
        new = times_s > self._last_s
        if not new.any():
            raise Fault(400, "clock_back", f"readings of {self.name!r} end at {times_s[-1]:g} s, there are some of "
                        f"{self._last_s:g} s already", param="pts_s", fix="send them in order of time, each once")
        times_s, data = times_s[new], data[new]
        if times_s[0] - self._last_s <= BRIDGE_S:
            times_s, data = np.r_[self._last_s, times_s], np.vstack([self._last, data])
            first = math.floor(self._last_s * self.spec.rate_hz + 1e-6) + 1
        else:
            first = math.ceil(times_s[0] * self.spec.rate_hz - 1e-6)
        self._last_s, self._last = float(times_s[-1]), data[-1]
        stop = math.floor(times_s[-1] * self.spec.rate_hz + 1e-6) + 1
        if first >= stop:
            return []
        grid_s = np.arange(first, stop) / self.spec.rate_hz
        columns = [np.interp(grid_s, times_s, data[:, c]) for c in range(data.shape[1])]
        rows = np.stack(columns, axis=1).astype(np.float32)
        return [Packet(self.name, self.spec.modality, first / self.spec.rate_hz, rows, self.spec.rate_hz)]


def pull(resampler: av.AudioResampler, data: np.ndarray, rate_hz: int) -> np.ndarray:
    """What a resampler gives for float32 (T,)."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data[None]), format="flt", layout="mono")
    frame.sample_rate = rate_hz
    parts = [f.to_ndarray()[0] for f in resampler.resample(frame)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def behind(packet: Packet, from_s: float) -> Packet | None:
    """What of a packet is not before a time."""
    if packet.data.ndim == 3:
        return packet if packet.pts_s >= from_s - 1e-9 else None
    skip = max(0, math.ceil((from_s - packet.pts_s) * packet.rate_hz - 1e-6))
    if skip == 0:
        return packet
    if skip >= len(packet.data):
        return None
    return Packet(packet.stream, packet.modality, packet.pts_s + skip / packet.rate_hz, packet.data[skip:], packet.rate_hz)
