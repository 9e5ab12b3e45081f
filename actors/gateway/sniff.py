"""What a file is, by its bytes, and whether it may be decoded here. No name and no type that a client gave is believed.

The looking is done by a process of its own for each file, with little memory and little time: a file that makes FFmpeg take
too much of either, or crash, ends that process, not the server. These are forks of one that has loaded FFmpeg already and
opens nothing itself: a look takes milliseconds.

    gateway --path--> Looker: python -m actors.gateway.sniff --fork, limits--> look: what it is
"""

from __future__ import annotations

import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import actors
from actors.gateway.settings import MIB, Settings
from anymodal.errors import MediaError, RuntimeFault

MEMORY = 2048 * MIB  # of the looking process, address space
START_S = 60.0  # until a process is there
IMAGE, VIDEO, AUDIO = "image", "video", "audio"
KEPT_FORMATS = ("gif", "apng", "webp_anim")  # pictures that move are videos


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
    """The process that forks. For one thread at a time."""

    def __init__(self) -> None:
        env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
        env |= {"PYTHONPATH": str(Path(actors.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen([sys.executable, "-m", "actors.gateway.sniff"], env=env, cwd="/",
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def ask(self, path: Path, most_s: float, seconds: float, patience_s: float) -> dict:
        """What the look says, or {"died": a signal}. Raises OSError where the process is gone, or does not answer."""
        self._process.stdin.write(json.dumps([str(path), most_s, seconds]).encode() + b"\n")
        self._process.stdin.flush()
        answers, _, _ = select.select([self._process.stdout], [], [], patience_s)
        if not answers or not (line := self._process.stdout.readline()):
            raise OSError("it does not answer")
        return json.loads(line)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                pipe.close()
        self._process.kill()  # a look under way ends by its own limits
        self._process.wait()


class Lookers:
    """As many as there are looks at once; they are kept for the next. Any thread may ask."""

    def __init__(self) -> None:
        self._idle: queue.LifoQueue[Looker] = queue.LifoQueue()
        self._closed = False

    def ask(self, path: Path, most_s: float, seconds: float) -> dict:
        """Raises RuntimeFault where no process can be had."""
        begun = 0
        while begun < 2:
            try:
                looker = self._idle.get_nowait()
            except queue.Empty:
                looker, begun = Looker(), begun + 1
            try:
                said = looker.ask(path, most_s, seconds, START_S + 2 * seconds)
            except (OSError, ValueError):  # it was killed: another may be had
                looker.close()
                continue
            except BaseException:
                looker.close()
                raise
            self._idle.put(looker)
            if self._closed:
                self.close()
            return said
        raise RuntimeFault("the process that looks at files has died twice", fix="look at the machine's memory")

    def close(self) -> None:
        self._closed = True
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


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
        kind = AUDIO if seen is None else IMAGE if name in box.IMAGE_FORMATS or picture is not None else VIDEO
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


def _apart(path: str, most_s: float, seconds: float) -> dict:
    """A look by a fork of this process, whose end is not this one's."""
    mine, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            os.close(mine)
            _limit(seconds)
            signal.alarm(max(1, round(2 * seconds)))
            os.write(its, json.dumps(_said(path, most_s)).encode())
        finally:
            os._exit(0)
    os.close(its)
    with os.fdopen(mine, "rb") as said:
        text = said.read()
    _, status = os.waitpid(pid, 0)
    with suppress(ValueError):
        return json.loads(text)
    return {"died": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}  # 0: memory, where that is an exception


def _said(path: str, most_s: float) -> dict:
    try:
        return asdict(_look(Path(path), most_s))
    except MediaError as error:
        return {"error": error.message.replace(path, "the file"), "fix": error.fix.replace(path, "the file")}


def main() -> int:
    """Look at what stdin names, a JSON [path, most_s, seconds] a line, until it ends."""
    import anymodal.media.container  # noqa: F401  (FFmpeg is loaded once)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the gateway, which closes stdin
    for line in sys.stdin:
        print(json.dumps(_apart(*json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
