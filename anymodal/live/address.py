"""What a user calls a source: a camera, a microphone, an address or a file, each maybe with a name of its own."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anymodal.errors import InputError, nearest

CAMERA, MICROPHONE, STREAM, FILE = "camera", "mic", "stream", "file"
DEVICE_FORMATS = frozenset("v4l2 alsa pulse avfoundation dshow x11grab gdigrab jack oss lavfi".split())
SCHEMES = frozenset("http https rtsp rtsps rtmp rtmps tcp udp rtp srt".split())
_PROTOCOLS = {  # what a scheme may open in turn: a playlist never reaches files, a stream no other kind of address
    "http": "http,https,tcp,tls,crypto,httpproxy", "https": "http,https,tcp,tls,crypto,httpproxy",
    "rtsp": "rtsp,rtsps,rtp,udp,tcp,tls,http", "rtsps": "rtsp,rtsps,rtp,udp,tcp,tls,http",
    "rtmp": "rtmp,rtmps,tcp,tls", "rtmps": "rtmp,rtmps,tcp,tls", "tcp": "tcp", "udp": "udp", "rtp": "rtp,udp",
    "srt": "srt,udp",
}
_NAMED = re.compile(r"([A-Za-z][\w.-]{0,39})=(.+)", re.S)
_SECRET = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Address:
    """How a source is opened. `name`: what it is called, `named` if by the user; `shown`: the address without a
    password."""

    kind: str
    url: str
    name: str
    shown: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    named: bool = False


def camera(text: str) -> Address:
    """'/dev/video0', '0', or FORMAT:NAME of FFmpeg's devices, such as x11grab::0."""
    name, given = _name(text)
    format_, device = _device(given, {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"})
    if format_ == "v4l2" and device.isdigit():
        device = f"/dev/video{device}"
    if format_ == "dshow" and not device.startswith("video="):
        device = f"video={device}"
    return Address(CAMERA, device, name or "camera", given, format_, named=bool(name))


def microphone(text: str) -> Address:
    """'default', an ALSA name such as hw:1, or FORMAT:NAME of FFmpeg's devices, such as pulse:default."""
    name, given = _name(text)
    format_, device = _device(given, {"linux": "alsa", "darwin": "avfoundation", "win32": "dshow"})
    if format_ == "avfoundation" and not device.startswith(":"):
        device = f":{device}"
    if format_ == "dshow" and not device.startswith("audio="):
        device = f"audio={device}"
    return Address(MICROPHONE, device, name or "mic", given, format_, named=bool(name))


def parse(text: str) -> Address:
    """An address or a file. Raises InputError for a scheme that is not known and for a file that is not there."""
    name, given = _name(text)
    if "://" not in given:
        return _file(given, name)
    parts = urlsplit(given)
    scheme = parts.scheme.lower()
    if scheme == "file":
        return _file(unquote(parts.path), name)
    if scheme not in SCHEMES:
        raise InputError(f"{hide(given)}: the scheme {scheme!r} is no live source", fix=nearest(scheme, SCHEMES))
    if scheme != "udp" and not parts.hostname:
        raise InputError(f"{hide(given)} names no host", fix=f"for example {scheme}://192.0.2.7/live")
    options = {"protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_flags": "prefer_tcp"}
    if scheme in ("http", "https"):
        options |= {"live_start_index": "-1", "allowed_extensions": "ALL"}
    if scheme == "udp":
        options |= {"overrun_nonfatal": "1", "fifo_size": "50000"}
    return Address(STREAM, given, name or (parts.hostname or "stream"), hide(given), options=options,
                   named=bool(name))


def hide(text: str) -> str:
    """An address without the user and password in it."""
    return _SECRET.sub("", text)


def _name(text: str) -> tuple[str, str]:
    """'front=rtsp://x/y' -> ('front', 'rtsp://x/y'); a file may have '=' in its name."""
    found = _NAMED.fullmatch(text.strip())
    if found and not Path(text).exists():
        return found[1], found[2]
    if not text.strip():
        raise InputError("a source is empty", fix="give a file, an address or a device")
    return "", text.strip()


def _device(text: str, default: dict[str, str]) -> tuple[str, str]:
    before, colon, after = text.partition(":")
    if colon and before in DEVICE_FORMATS:
        return before, after
    return default.get(sys.platform, "v4l2"), text


def _file(text: str, name: str) -> Address:
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(f"no file {text}", fix="check the path; an address begins with rtsp:// or http://")
    return Address(FILE, str(path), name or path.stem[:40] or "file", text, named=bool(name))
