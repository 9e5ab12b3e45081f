"""Opening media: every way a file can be bad becomes one MediaError that says how to mend it."""

from __future__ import annotations

import functools
import re
import stat
from pathlib import Path
from typing import Any

from anymodal.errors import MediaError, need
from anymodal.media.spec import AUDIO, VIDEO

av = need("av", extra="run")

OPEN_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 20.0
MOST_PIXELS = 2**27  # of a frame: what a small file claims to be, at its start or midway, must not take all memory
IMAGE_SUFFIXES = frozenset(".png .jpg .jpeg .bmp .webp .tif .tiff .ppm .pgm .pbm .qoi".split())
IMAGE_FORMATS = frozenset("bmp_pipe jpeg_pipe pbm_pipe pgm_pipe png_pipe ppm_pipe qoi_pipe tiff_pipe webp_pipe".split())
IMAGE_BRANDS = frozenset("avif heic heix mif1".split())  # of a file in boxes, as mp4 is, that holds one picture
UNTOLD = 2**31 - 2**16  # bytes: from here on what a WAV says is what programs write that do not know yet
MOST_CHUNKS = 1000  # of a WAV's header
UNKNOWN = "unknown"  # a codec that the file does not name either
HEADER_ONLY = ("matroska", "flv")  # formats with a duration in the file's header alone

# Demuxers that would take any text or bytes for media, follow a list to other files, or read a file name as a
# pattern: what they open is not what the user named.
_REFUSED = frozenset(
    "tty bin xbin adf idf ffmetadata concat hls dash sdp rtsp rtp sap imf lavfi image2 image2pipe alias_pix "
    "brender_pix webvtt srt ass rawvideo data".split()
)

# What a picture begins with, where FFmpeg would go by its name: `jpg` alone, or `a?.png`, makes it take image2.
_PICTURES = {b"\xff\xd8\xff": "jpeg_pipe", b"\x89PNG\r\n\x1a\n": "png_pipe", b"BM": "bmp_pipe", b"II*\0": "tiff_pipe",
             b"MM\0*": "tiff_pipe", b"GIF8": "gif", b"P5": "pgm_pipe", b"P6": "ppm_pipe", b"qoif": "qoi_pipe"}


@functools.cache
def _format_whitelist() -> str:
    return ",".join(sorted(name for name in av.formats_available if name not in _REFUSED))


def natural_key(path: Path) -> list:
    """frame2 before frame10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name.lower())]


def is_image(path: Path) -> bool:
    """Is a file one picture? Raises MediaError for one that cannot be opened."""
    container = open_container(path)
    try:
        return is_picture(container)
    finally:
        container.close()


def is_picture(container: Any) -> bool:
    return container.format.name in IMAGE_FORMATS or container.metadata.get("major_brand") in IMAGE_BRANDS


def image_folder(path: Path) -> list[Path]:
    """The images of a folder in natural order. Raises MediaError if there is none."""
    images = sorted((p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()), key=natural_key)
    if not images:
        raise MediaError(
            f"{path} is a directory without images", fix="give a media file, or a folder of png or jpg frames"
        )
    return images


def check_file(path: Path) -> None:
    """Raise MediaError unless `path` is a readable, non-empty regular file (a pipe could block for ever)."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise MediaError(f"no file {path}", fix="check the path") from error
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}", fix="check its path and permissions") from error
    if stat.S_ISDIR(found.st_mode):
        raise MediaError(f"{path} is a directory", fix="give a media file, or a folder of png or jpg frames")
    if not stat.S_ISREG(found.st_mode):
        raise MediaError(f"{path} is not a regular file", fix="save the stream to a file first")
    if found.st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)", fix="copy or record the file again")


def open_container(path: Path) -> Any:
    """Open a local media file with PyAV. The caller closes it. Raises MediaError."""
    check_file(path)
    try:
        try:
            container = _open(path)
        except av.error.ArgumentError:
            if (picture := _picture_format(path)) is None:
                raise
            container = _open(path, picture)
    except PermissionError as error:
        raise MediaError(f"{path} cannot be read: permission denied", fix="check the file's permissions") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be opened as media: {_reason(path, error)}", fix=_open_fix(path)) from error
    if not (container.streams.video or container.streams.audio):
        container.close()
        raise MediaError(f"{path} ({container.format.name}) has no video and no audio stream", fix="give a media file")
    return container


def _open(path: Path, name: str | None = None) -> Any:
    """By the format of that name; without one FFmpeg finds it, and one that is refused is an ArgumentError."""
    options = {"format_whitelist": _format_whitelist(), "protocol_whitelist": "file"}
    timeouts_s = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
    return av.open(str(path), format=name, options=options, timeout=timeouts_s, metadata_errors="ignore")


def _picture_format(path: Path) -> str | None:
    """The format of a picture by how it begins."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "webp_pipe"
    return next((name for begins, name in _PICTURES.items() if head.startswith(begins)), None)


def _reason(path: Path, error: Exception) -> str:
    log = getattr(error, "log", None)
    detail = log[2].strip() if log and len(log) > 2 else ""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text}: {detail}" if detail and detail not in text else text


def _open_fix(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if head[4:8] == b"ftyp":
        return "the file is cut short or its index is missing: copy or export it again"
    if head and not head.strip(b"\0"):
        return "the file holds only zeros: copy it again"
    return "give a media file that FFmpeg reads, e.g. mp4, mkv, webm, mov, wav, mp3, flac, png"


def pick_stream(container: Any, modality: str, number: int | None) -> Any | None:
    """The stream to use: the `number`-th of its kind, or the first that is no attached picture; None if absent."""
    of_kind = list(container.streams.video if modality == VIDEO else container.streams.audio)
    for stream in of_kind if modality == VIDEO else ():
        if stream.codec_context is not None and not stream.codec_context.is_open:
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    if number is not None:
        if not 0 <= number < len(of_kind):
            raise MediaError(
                f"{container.name} has {len(of_kind)} {modality} stream(s), number {number} was asked for",
                fix=f"give a {modality} stream number from 0 to {len(of_kind) - 1}" if of_kind else "choose no stream",
            )
        return of_kind[number]
    return next((s for s in of_kind if not is_attached_picture(s)), None)


def is_attached_picture(stream: Any) -> bool:
    return stream.type == VIDEO and bool(stream.disposition & av.stream.Disposition.attached_pic)


def codec_name(path: Path, stream: Any) -> str:
    """The codec's name; where no decoder is known for it, what FFmpeg's log calls it, with its tag."""
    if stream.codec_context is not None:
        return stream.codec_context.name
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as lines:
            open_container(path).close()
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    pattern = re.compile(rf"stream {stream.index} \(\w+: (\w+)(?: \((\S+) / (\w+))?")
    for *_, text in reversed(lines):  # the first may repeat one of another file
        if match := pattern.search(text):
            name, tag, number = match.groups()
            tag = tag if tag is None or tag.isalnum() else number
            return f"{name} ({tag})" if tag and name != "none" else tag or UNKNOWN
    return UNKNOWN


def declared_s(stream: Any | None) -> float | None:
    """How long the header says a stream is, in seconds; None if it does not say."""
    return float(stream.duration * stream.time_base) if stream is not None and stream.duration else None


def container_s(container: Any) -> float | None:
    """How long the header says a file is whose streams say nothing of their own; None if it does not say."""
    tells = any(stream.duration for stream in (*container.streams.video, *container.streams.audio))
    says = container.format.name.startswith(HEADER_ONLY) and container.duration
    return container.duration / av.time_base if says and not tells else None


def wav_s(path: Path) -> float | None:
    """How long the header of a WAV that is cut short says it was, in seconds: FFmpeg tells what is left. Else None."""
    rate = size = 0  # bytes a second; bytes of sound
    with path.open("rb") as file:
        file.seek(12)
        for _ in range(MOST_CHUNKS):
            name, length = file.read(4), int.from_bytes(file.read(4), "little")
            if name == b"data":
                size = size or (length if length < UNTOLD else 0)
                return size / rate if rate and size > path.stat().st_size - file.tell() else None
            head = file.read(min(length, 16))
            if name == b"fmt ":
                rate = int.from_bytes(head[8:12], "little")
            elif name == b"ds64":  # of an RF64, where 32 bits are too few
                size = int.from_bytes(head[8:16], "little") % (2**64 - 1)
            file.seek(length - len(head) + length % 2, 1)
    return None


def only(container: Any, stream: Any) -> None:
    """Let the demuxer skip every other stream."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all


def no_codec_error(path: Path, stream: Any) -> MediaError:
    kind, name = VIDEO if stream.type == VIDEO else AUDIO, codec_name(path, stream)
    codec = f"codec {name}" if name != UNKNOWN else "codec, which it does not know"
    return MediaError(
        f"{path}: FFmpeg has no decoder for its {kind} {codec}",
        fix=f"convert it first, e.g. ffmpeg -i {path.name} -c:v libx264 -c:a aac out.mp4",
    )
