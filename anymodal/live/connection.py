"""One opened source: packets as they come, frames decoded from them. No wait is without a limit."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from anymodal.errors import InputError, MediaError
from anymodal.live.address import CAMERA, FILE, MICROPHONE, Address, hide
from anymodal.media.container import av, pick_stream
from anymodal.media.spec import AUDIO, VIDEO

OPEN_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 10.0
PROBE_S = 1.5  # of a stream, to learn what is in it
WAITED_S = 0.002  # a packet that took longer to come had not been there yet
SEGMENTED = ("hls", "dash")


class Connection:
    """Iterate `packets` in one thread, and `decode` each. `streams`: modality -> PyAV's stream. `finite`: it has an end,
    and may be read as slowly as one likes; `segmented`: seconds of it come at once."""

    def __init__(self, address: Address, *, wanted: frozenset[str] = frozenset((VIDEO, AUDIO)),
                 open_timeout_s: float = OPEN_TIMEOUT_S, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self.address, self._read_timeout_s = address, read_timeout_s
        wanted -= {CAMERA: {AUDIO}, MICROPHONE: {VIDEO}}.get(address.kind, set())
        self._container = open_live(address, open_timeout_s, read_timeout_s)
        self.streams = {}
        try:
            for modality in sorted(wanted):
                stream = pick_stream(self._container, modality, None)
                if stream is not None and stream.codec_context is not None:
                    self.streams[modality] = stream
            if not self.streams:
                raise MediaError(f"{address.shown} has none of what is asked for: {', '.join(sorted(wanted))}",
                                 fix="give a source with video or sound")
        except BaseException:
            self.close()
            raise
        self._modalities = {stream.index: modality for modality, stream in self.streams.items()}
        for stream in self._container.streams:
            if stream.index not in self._modalities:
                stream.discard = av.stream.Discard.all
        for stream in self.streams.values():
            stream.thread_type = "SLICE"  # threads by frame would add their number of frames of delay
        self.segmented = self._container.format.name.startswith(SEGMENTED)
        self.finite = bool(self._container.duration) and address.kind not in (CAMERA, MICROPHONE) and \
            self._container.format.name not in ("rtsp", "rtp", "sdp")
        self._only_keys = False

    def packets(self) -> Iterator[tuple[str, Any, bool]]:
        """(modality, packet, whether it was waited for), until the other side ends it. Raises MediaError when it breaks
        off or nothing comes for the read timeout."""
        packets = self._container.demux(list(self.streams.values()))
        while True:
            began_s = time.perf_counter()
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                raise lost(self.address, error) from error
            waited_s = time.perf_counter() - began_s
            if waited_s > 0.95 * self._read_timeout_s:  # a demuxer hands out its rest when it has waited in vain
                raise lost(self.address, TimeoutError())
            if packet.size and (packet.dts is not None or packet.pts is not None):
                yield self._modalities[packet.stream_index], packet, waited_s > WAITED_S

    def decode(self, packet: Any, *, hurry: bool = False) -> Iterator[Any]:
        """Frames that a packet completes; damaged ones are left out. `hurry`: of video only those that stand alone, until
        one of them comes after the hurry is over."""
        context = packet.stream.codec_context
        if packet.stream.type == VIDEO and hurry != self._only_keys and (hurry or packet.is_keyframe):
            self._only_keys = hurry
            context.skip_frame = "NONKEY" if hurry else "DEFAULT"
        try:
            yield from packet.stream.decode(packet)
        except av.FFmpegError:
            return

    def close(self) -> None:
        """By the thread that reads."""
        self._container.close()


def packet_s(packet: Any) -> Fraction:
    """When a packet is decoded, on its connection's own clock."""
    return (packet.dts if packet.dts is not None else packet.pts) * packet.time_base


def open_live(address: Address, open_timeout_s: float, read_timeout_s: float) -> Any:
    """A PyAV container. Raises MediaError that says what is wrong and how to mend it."""
    options = {"analyzeduration": str(int(PROBE_S * 1e6)), **address.options}
    scheme = address.url.partition("://")[0]
    if address.format == "alsa":
        _find_alsa()
    if address.format is None and scheme in ("rtsp", "rtsps", "udp", "tcp"):
        options["timeout"] = str(int(read_timeout_s * 1e6))
    elif address.format is None and address.kind != FILE:
        options["rw_timeout"] = str(int(read_timeout_s * 1e6))
    try:
        return av.open(address.url, format=address.format, options=options, timeout=(open_timeout_s, read_timeout_s),
                       metadata_errors="ignore")
    except ValueError as error:  # PyAV was built without that device
        raise InputError(f"{address.kind} {address.shown}: {error}", fix="see docs/live.md for the devices") from error
    except (av.FFmpegError, OSError) as error:
        raise lost(address, error) from error


def lost(address: Address, error: Exception) -> MediaError:
    """FFmpeg's error as ours."""
    number = getattr(error, "errno", None)
    if isinstance(error, (av.ExitError, TimeoutError)):
        return MediaError(f"{address.shown}: nothing came in time", fix="check that it is sending")
    reason = hide(getattr(error, "strerror", None) or str(error))
    if address.kind == CAMERA or address.kind == MICROPHONE:
        fixes = {errno.ENOENT: _how_to_list(address), errno.EBUSY: "end the other program that uses it",
                 errno.EACCES: "let your user use it, e.g. add it to the groups video and audio"}
        return MediaError(f"{address.kind} {address.shown} cannot be used: {reason}",
                          fix=fixes.get(number, _how_to_list(address)))
    fixes = {errno.ECONNREFUSED: "start the server, or check host and port", errno.ENOENT: "check the address",
             errno.EADDRINUSE: "another program listens on that port: end it or use another"}
    fix = "check user and password" if "401" in reason or "403" in reason else \
        fixes.get(number, "check the address and the network")
    return MediaError(f"{address.shown}: {reason}", fix=fix)


def _find_alsa() -> None:
    """PyAV's own ALSA looks for its configuration where it was built; the system's is that of the user's devices."""
    plugins = sorted(Path("/usr/lib").glob("*-linux-gnu/alsa-lib"))
    for name, paths in (("ALSA_CONFIG_PATH", [Path("/usr/share/alsa/alsa.conf")]), ("ALSA_PLUGIN_DIR", plugins[:1])):
        for path in paths:
            if path.exists():
                os.environ.setdefault(name, str(path))


def _how_to_list(address: Address) -> str:
    devices = {"v4l2": "see what there is: ls /dev/video*", "alsa": "see what there is: arecord -L"}
    return devices.get(address.format, "check the device's name")
