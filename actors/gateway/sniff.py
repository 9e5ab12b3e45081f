"""What a file is, by its bytes, and whether it may be decoded here. No name and no type that a client gave is believed.

The looking is done by a process of its own with little memory and little time: a file that makes FFmpeg take too much of
either ends that process, not the server.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import actors
from actors.gateway.settings import MIB, Settings
from anymodal.errors import MediaError

MEMORY = 2048 * MIB  # of the looking process, address space
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


def sniff(path: Path, settings: Settings) -> Sniffed:
    """Raises MediaError for what is no media, is damaged, or larger than the settings allow."""
    command = [sys.executable, "-m", "actors.gateway.sniff", str(path), str(settings.most_media_s),
               str(settings.sniff_timeout_s)]
    env = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")}
    env |= {"PYTHONPATH": str(Path(actors.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, cwd="/",
                              timeout=2 * settings.sniff_timeout_s)
    except subprocess.TimeoutExpired as error:
        raise MediaError("the file takes too long to look at", fix="convert it, e.g. to mp4") from error
    with suppress(ValueError):
        said = json.loads(done.stdout)
        if "error" in said:
            raise MediaError(said["error"], fix=said["fix"])
        return _fitting(Sniffed(**said), settings)
    reason = "time" if -done.returncode == signal.SIGXCPU else "memory"
    raise MediaError(f"the file takes too much {reason} to look at", fix="convert it, e.g. to mp4")


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


def main(argv: list[str]) -> int:
    path, most_s, seconds = argv
    _limit(float(seconds))
    try:
        said = asdict(_look(Path(path), float(most_s)))
    except MediaError as error:
        said = {"error": error.message.replace(path, "the file"), "fix": error.fix.replace(path, "the file")}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
