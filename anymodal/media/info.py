"""What a file holds, by its header; the duration by its packets where the header does not tell."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from anymodal.errors import InputError
from anymodal.media import container as box
from anymodal.media.container import av
from anymodal.media.fetch import local_file
from anymodal.media.sidecar import find_sidecars
from anymodal.media.spec import AUDIO, VIDEO, MediaInfo, StreamInfo

FOLDER_RATE_HZ = 25  # an image folder is a video of this rate unless another is given
MOST_FOLDER_RATE_HZ = 1000


def probe(path: str | Path, *, exact_duration: bool = False, folder_rate_hz: float = FOLDER_RATE_HZ) -> MediaInfo:
    """Streams, codecs, sizes, start times, duration and sidecars of a media file, image, image folder or address.

    `exact_duration` reads every packet's time instead of believing the header. Raises MediaError.
    """
    check_rate(folder_rate_hz)
    with local_file(path) as local:
        sidecars = {modality: str(found) for modality, found in find_sidecars(local).items()}
        if local.is_dir():
            return _folder_info(local, sidecars, folder_rate_hz)
        container = box.open_container(local)
        try:
            streams = tuple(_stream_info(local, s) for s in container.streams if s.type in (VIDEO, AUDIO))
            duration_s = None if exact_duration else _declared_duration_s(container, streams)
            if duration_s is None:
                duration_s = _packet_duration_s(container) or _decoded_duration_s(local, streams)
            is_image = box.is_picture(container)
            return MediaInfo(str(path), container.format.name, duration_s, streams, is_image, False, sidecars)
        finally:
            container.close()


def check_rate(folder_rate_hz: float) -> None:
    """Raise InputError for what is no rate of images."""
    if not 0 < folder_rate_hz <= MOST_FOLDER_RATE_HZ:
        raise InputError(f"a folder of images cannot have {folder_rate_hz:g} of them a second",
                         fix=f"give a rate above 0, up to {MOST_FOLDER_RATE_HZ}")


def _folder_info(folder: Path, sidecars: dict[str, str], rate_hz: float) -> MediaInfo:
    images = box.image_folder(folder)
    first = probe(images[0]).streams[0]
    stream = StreamInfo(
        0, VIDEO, first.codec, True, 0.0, len(images) / rate_hz, rate_hz, first.width_px, first.height_px,
        first.rotation_deg, first.pixel_format,
    )
    return MediaInfo(str(folder), "image folder", len(images) / rate_hz, (stream,), False, True, sidecars)


def _stream_info(path: Path, stream: Any) -> StreamInfo:
    context = stream.codec_context
    tick = stream.time_base
    common = {
        "index": stream.index,
        "modality": stream.type,
        "codec": box.codec_name(path, stream),
        "decodable": context is not None,
        "start_s": float(stream.start_time * tick) if stream.start_time is not None else None,
        "duration_s": float(stream.duration * tick) if stream.duration else None,
    }
    if context is None:
        return StreamInfo(**common)
    if stream.type == AUDIO:
        return StreamInfo(**common, rate_hz=float(context.sample_rate), channels=context.channels)
    rate_hz = stream.average_rate or stream.guessed_rate
    return StreamInfo(
        **common,
        rate_hz=float(rate_hz) if rate_hz else None,
        width_px=context.width,
        height_px=context.height,
        pixel_format=context.pix_fmt or "",
        attached_picture=box.is_attached_picture(stream),
    )


def _declared_duration_s(container: Any, streams: tuple[StreamInfo, ...]) -> float | None:
    """The header's word: the last moment of the streams that are used, counted from their earliest start."""
    used = [s for s in streams if not s.attached_picture]
    if used and all(s.duration_s for s in used):
        starts_s = [s.start_s or 0.0 for s in used]
        return max(start_s + s.duration_s for start_s, s in zip(starts_s, used)) - min(starts_s)
    is_timed = any(s.start_s is not None for s in used)  # else FFmpeg only guesses from the bit rate
    return container.duration / av.time_base if container.duration and is_timed else None


def _packet_duration_s(container: Any) -> float | None:
    """The span of all packets' times, or None where packets carry no time."""
    used = [s for s in container.streams if s.type in (VIDEO, AUDIO) and not box.is_attached_picture(s)]
    starts: dict[int, Fraction] = {s.index: s.start_time * s.time_base for s in used if s.start_time is not None}
    end: Fraction | None = None
    try:
        for packet in container.demux(used):
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None or packet.size == 0:
                continue
            starts.setdefault(packet.stream_index, pts * packet.time_base)
            stop = (pts + (packet.duration or 0)) * packet.time_base
            end = stop if end is None else max(end, stop)
    except av.FFmpegError:
        pass  # cut short: what was read counts
    return float(end - min(starts.values())) if end is not None and starts else None


def _decoded_duration_s(path: Path, streams: tuple[StreamInfo, ...]) -> float:
    from anymodal.media.audio import AudioReader
    from anymodal.media.video import VideoReader

    ends: list[Fraction] = []
    for modality, reader_type in ((VIDEO, VideoReader), (AUDIO, AudioReader)):
        if any(s.modality == modality and s.decodable and not s.attached_picture for s in streams):
            reader = reader_type(path)
            try:
                ends.append(reader.measure())
            finally:
                reader.close()
    return float(max(ends, default=Fraction(0)))
