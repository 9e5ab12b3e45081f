"""What a file is, by its bytes, and whether it may be decoded here. No name and no type that a client gave is believed.

The looking is done by a process of its own for each file, with little memory and little time: a file that makes FFmpeg take
too much of either, or crash, ends that process, not the server. These are forks of one that has loaded FFmpeg already and
opens nothing itself: a look takes milliseconds. Clips are decoded by such forks too: see `decoding`.

    gateway --path--> Looker: python -m actors.gateway.sniff --fork, limits--> look: what it is
                                                             \\-fork, limits--> decode: windows, into a pipe
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import actors
from actors.gateway.settings import MIB, Settings
from anymodal.errors import MediaError, RuntimeFault

MEMORY = 2048 * MIB  # of the looking process, address space
START_S = 60.0  # until a process is there
END_S = 2.0  # for a process to end by itself, with the fork that it has
IMAGE, VIDEO, AUDIO = "image", "video", "audio"
KEPT_FORMATS = ("gif", "apng", "webp_anim")  # pictures that move are videos
PR_SET_PDEATHSIG = 1  # of Linux's prctl
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sniffed:
    """`kind`: image, video or audio, by what there is to see first; `sounds`: it has sound too."""

    kind: str
    container: str
    duration_s: float
    width_px: int = 0
    height_px: int = 0
    frames: int = 0
    sounds: bool = False


class Looker:
    """The process that forks, one fork at a time. For one thread at a time; `stop` is for any."""

    def __init__(self) -> None:
        env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
        env |= {"PYTHONPATH": str(Path(actors.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        self._channel, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen([sys.executable, "-m", "actors.gateway.sniff"], env=env, cwd="/",
                                             stdin=its, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, path: Path, most_s: float, seconds: float, patience_s: float) -> dict:
        """What the look says, or {"died": a signal}. Raises OSError where the process is gone, or does not answer."""
        self._channel.settimeout(patience_s)
        _say(self._channel, ["look", str(path), most_s, seconds])
        return _heard(self._channel)[0]

    def decode(self, request: dict, memory: int, out: int) -> int:
        """Begin to write the windows of a clip to a descriptor (see `decoding`); the process that does. Raises OSError."""
        self._channel.settimeout(START_S)
        _say(self._channel, ["decode", request, memory], out)
        return _heard(self._channel)[0]

    def stop(self) -> None:
        """Kill what decodes; where it has ended, nothing."""
        with suppress(OSError):
            _say(self._channel, ["stop"])

    def ended(self) -> int:
        """Wait until what decodes is no process any more: the signal that killed it, or 0. Raises OSError."""
        return _heard(self._channel)[0]

    def close(self) -> None:
        self._channel.close()  # at which it kills what it has forked, and ends
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Lookers:
    """As many as there are looks and clips at once; they are kept for the next. Any thread may ask."""

    def __init__(self) -> None:
        self._idle: queue.LifoQueue[Looker] = queue.LifoQueue()
        self._closed = False

    def ask(self, path: Path, most_s: float, seconds: float) -> dict:
        """Raises RuntimeFault where no process can be had."""
        looker, said = self.take(lambda looker: looker.ask(path, most_s, seconds, START_S + 2 * seconds))
        self.give_back(looker)
        return said

    def take(self, begin: Callable[[Looker], T]) -> tuple[Looker, T]:
        """A looker, the caller's until it is given back or closed, and what `begin` made of it. Raises RuntimeFault where
        no process can be had."""
        begun = 0
        while begun < 2:
            try:
                looker = self._idle.get_nowait()
            except queue.Empty:
                looker, begun = Looker(), begun + 1
            try:
                return looker, begin(looker)
            except (OSError, ValueError):  # it was killed: another may be had
                looker.close()
            except BaseException:
                looker.close()
                raise
        raise RuntimeFault("the process that looks at files has died twice", fix="look at the machine's memory")

    def give_back(self, looker: Looker) -> None:
        self._idle.put(looker)
        if self._closed:
            self.close()

    def close(self) -> None:
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


def _say(channel: socket.socket, said: Any, out: int | None = None) -> None:
    """A message, and a descriptor with it."""
    data = json.dumps(said).encode()
    data = len(data).to_bytes(4, "little") + data
    sent = 0 if out is None else socket.send_fds(channel, [data], [out])
    channel.sendall(data[sent:])


def _heard(channel: socket.socket) -> tuple[Any, int | None]:
    """A message, and the descriptor that came with it. Raises OSError where the other end is gone."""
    data, given, *_ = socket.recv_fds(channel, 4, 1)
    size = None
    while size is None or len(data) < size:
        if size is None and len(data) == 4:
            size, data = int.from_bytes(data, "little"), b""
            continue
        piece = channel.recv((4 if size is None else size) - len(data))
        if not piece:
            raise OSError("it does not answer")
        data += piece
    return json.loads(data), given[0] if given else None


def sniff(path: Path, settings: Settings, lookers: Lookers) -> Sniffed:
    """Raises MediaError for what is no media, is damaged, or larger than the settings allow."""
    said = lookers.ask(path, settings.most_media_s, settings.sniff_timeout_s)
    if "error" in said:
        raise MediaError(said["error"], fix=said["fix"])
    if "died" not in said:
        return _fitting(Sniffed(**said), settings)
    reason = {signal.SIGXCPU: "takes too much time", signal.SIGALRM: "takes too much time",
              signal.SIGSEGV: "is so damaged that its decoder broke down", signal.SIGABRT: "takes too much memory"}
    raise MediaError(f"the file {reason.get(said['died'], 'takes too much memory')} to look at",
                     fix="convert it, e.g. to mp4")


def _fitting(found: Sniffed, settings: Settings) -> Sniffed:
    if found.width_px * found.height_px > settings.most_pixels:
        raise MediaError(f"its frames have {found.width_px} x {found.height_px} pixels, at most "
                         f"{settings.most_pixels} are taken", fix="scale it down")
    if found.duration_s > settings.most_media_s:
        raise MediaError(f"it is {found.duration_s:.0f} s long, at most {settings.most_media_s:g} s are taken",
                         fix="cut it, or show it to a live session")
    return found


# -- in the process of its own -------------------------------------------------------------------------------------


def _limit(seconds: float) -> None:
    seconds = max(1, round(seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _look(path: Path, most_s: float) -> Sniffed:
    """What the packets say; headers only where packets have no times."""
    from anymodal.media import container as box

    container = box.open_container(path)
    with container:
        video = box.pick_stream(container, VIDEO, None)
        audio = box.pick_stream(container, AUDIO, None)
        picture = next((s for s in container.streams.video), None) if not (video or audio) else None
        seen = video or picture
        for stream in (s for s in (seen, audio) if s is not None and s.codec_context is None):
            raise box.no_codec_error(path, stream)
        name = container.format.name
        end_s, frames = _read(container, [s for s in (seen, audio) if s is not None], most_s)
        kind = AUDIO if seen is None else IMAGE if box.is_picture(container) or picture is not None else VIDEO
        size = (seen.codec_context.width, seen.codec_context.height) if seen is not None else (0, 0)
        if seen is not None and not frames:
            raise MediaError("it has no frame", fix="copy or export it again")
        return Sniffed(kind, name, 0.0 if kind == IMAGE else end_s, *size, frames, audio is not None)


def _read(container, streams, most_s: float) -> tuple[float, int]:
    """(the last packet's end from the first one's start, in seconds; video packets)."""
    from anymodal.media.container import av

    first_s, last_s, frames = None, 0.0, 0
    with suppress(av.FFmpegError):  # cut short: what was read counts
        for packet in container.demux(streams):
            frames += packet.stream.type == VIDEO and packet.size > 0
            if packet.pts is None or not packet.size:
                continue
            at_s = float(packet.pts * packet.time_base)
            first_s = at_s if first_s is None else min(first_s, at_s)
            last_s = max(last_s, at_s + float((packet.duration or 0) * packet.time_base))
            if last_s - first_s > most_s:
                break
    return (last_s - first_s if first_s is not None else 0.0), frames


def _apart(channel: socket.socket, work: Callable[[int], None], out: int | None = None) -> tuple[bytes, int]:
    """What a fork of this process wrote, whose end is not this one's, and the signal that killed it, or 0. It does not
    outlive the gateway's interest: any word on the channel kills it, and so does its end."""
    mine, its = os.pipe()
    me, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            os.close(mine)
            _die_with(me)
            work(its)
        finally:
            os._exit(0)
    os.close(its)
    if out is not None:
        os.close(out)  # what reads it has to see the fork's end
        with suppress(OSError):
            _say(channel, pid)
    text, watched = b"", [mine, channel]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if channel in ready:
            with suppress(OSError):
                _heard(channel)
            os.kill(pid, signal.SIGKILL)
            watched = [mine]
        elif piece := os.read(mine, 65536):
            text += piece
        else:
            break
    os.close(mine)
    _, status = os.waitpid(pid, 0)
    return text, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _die_with(parent: int) -> None:
    """End when the parent does, also where that is killed; elsewhere than on Linux the pipe's end has to do."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _look_apart(channel: socket.socket, path: str, most_s: float, seconds: float) -> dict:
    def work(its: int) -> None:
        _limit(seconds)
        signal.alarm(max(1, round(2 * seconds)))
        os.write(its, json.dumps(_said(path, most_s)).encode())

    text, died = _apart(channel, work)
    with suppress(ValueError):
        return json.loads(text)
    return {"died": died}  # 0: memory, where that is an exception


def _said(path: str, most_s: float) -> dict:
    try:
        return asdict(_look(Path(path), most_s))
    except MediaError as error:
        return {"error": error.message.replace(path, "the file"), "fix": error.fix.replace(path, "the file")}


def main() -> int:
    """Do what comes over stdin, a socket, until it ends: ["look", path, most_s, seconds] or
    ["decode", request, memory] with the descriptor to write to."""
    import anymodal.media.source  # noqa: F401  (FFmpeg is loaded once)
    import anymodal.media.windows  # noqa: F401
    from actors.gateway.decoding import decode

    for each in (signal.SIGINT, signal.SIGTERM):  # they are for the gateway, which finishes what is under way
        signal.signal(each, signal.SIG_IGN)
    with socket.socket(fileno=0) as channel, suppress(OSError):
        while True:
            (kind, *given), out = _heard(channel)
            if kind == "look":
                _say(channel, _look_apart(channel, *given))
            elif kind == "decode":
                _, died = _apart(channel, lambda _, given=given, out=out: decode(*given, out), out)
                _say(channel, died)
    return 0


if __name__ == "__main__":
    sys.exit(main())
