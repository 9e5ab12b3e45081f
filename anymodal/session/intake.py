"""What a user pushes: packets in, windows out, and a clear error for each packet that is no use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from anymodal.config import BundleSpec
from anymodal.errors import PacketError, SessionError, nearest
from anymodal.media.spec import StreamSpec, stream_specs
from anymodal.media.windows import Windower
from anymodal.types import Packet, Window


def session_streams(spec: BundleSpec, streams: Mapping[str, str] | None) -> dict[str, StreamSpec]:
    """Stream name -> modality, as the user gave it; None is one stream for each usual modality, of its name."""
    known = stream_specs(spec.modalities)
    if streams is None:
        return {name: known[name] for name, modality in spec.modalities.items() if modality.usual}
    for name, modality in streams.items():
        if modality not in known:
            raise SessionError(f"stream {name!r} is {modality!r}, which {spec.name!r} does not know",
                               fix=nearest(str(modality), known))
    return {name: known[modality] for name, modality in streams.items()}


class Intake:
    """The windower of pushed packets, from window `first_window` on. One thread at a time."""

    def __init__(self, window_s: float, streams: Mapping[str, StreamSpec], first_window: int, *,
                 idle_timeout_s: float = math.inf, clock: Callable[[], float] = time.monotonic,
                 patient: bool = False) -> None:
        self._windower = Windower(window_s, streams, first_window=first_window, idle_timeout_s=idle_timeout_s,
                                  clock=clock, patient=patient)
        self._streams = streams

    def push(self, packet: Packet) -> tuple[list[Window], PacketError | None]:
        """The windows that a packet completed, and what was wrong with it, if anything: it is counted as dropped."""
        if not isinstance(packet, Packet) or not isinstance(packet.stream, str):
            return [], PacketError(f"{packet!r:.80} is no packet of a stream that has a name",
                                   fix="push anymodal.Packet(stream, modality, pts_s, data, rate_hz)")
        fault = self._windower.fault(packet)
        before = self._late(packet.stream)
        windows = self._windower.push(packet)
        name = f"packet of {packet.stream!r}"
        if fault:
            known = self._streams.get(packet.stream)
            fix = f"push {_wanted(known)}" if known else nearest(str(packet.stream), self._streams)
            return windows, PacketError(f"{name} {fault}", fix=fix)
        if self._late(packet.stream) > before:
            at = f"{float(packet.pts_s):g} s"
            return windows, PacketError(f"{name} at {at} is too late: it belongs to a window that is out",
                                        fix="push packets roughly in order of time, each once")
        return windows, None

    def be_patient(self) -> None:
        self._windower.patient = True

    def tick(self) -> list[Window]:
        """Windows that silent streams are no longer waited for."""
        return self._windower.tick()

    def flush(self) -> list[Window]:
        """All that is left; this is its last call."""
        return self._windower.close()

    @property
    def newest_s(self) -> float:
        """The end of the newest sample."""
        return self._windower.newest_s

    def _late(self, stream: str) -> int:
        totals = self._windower.totals.get(stream)
        return totals.late if totals else 0


def _wanted(spec: StreamSpec) -> str:
    if spec.is_picture:
        return f"{spec.frame.replace(' ', ' frames ', 1)} with finite times"
    shape = f"(T, {len(spec.axes)})" if spec.axes else "(T,)"
    return f"finite float32 {shape} at {spec.rate_hz:g} Hz with finite times"
