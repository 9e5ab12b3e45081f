"""Several streams of one file, merged in media time.

Media time zero is the earliest first sample of the streams that are read; the streams keep their offsets to each
other. Every stream is demuxed on its own, so that a badly interleaved file needs no more memory than a good one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from anymodal.errors import MediaError, SidecarError, nearest
from anymodal.media.audio import AudioReader
from anymodal.media.container import container_s, image_folder, no_codec_error, open_container, pick_stream
from anymodal.media.fetch import local_file
from anymodal.media.folder import FolderReader, Stills
from anymodal.media.info import FOLDER_RATE_HZ, check_rate
from anymodal.media.pictures import TIMESTAMPS, open_pictures
from anymodal.media.sidecar import PICTURES, TABLES, find_sidecars, read_sidecar, resample
from anymodal.media.spec import AUDIO, VIDEO, StreamSpec, exact
from anymodal.media.video import VideoReader
from anymodal.types import Packet

PACKET_S = 0.2  # length of audio and sensor packets


def open_media(
    path: str | Path,
    specs: Mapping[str, StreamSpec],
    sidecars: Mapping[str, str | Path] | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    require: Sequence[str] = (),
    video_stream: int | None = None,
    audio_stream: int | None = None,
    folder_rate_hz: float = FOLDER_RATE_HZ,
) -> MediaSource:
    """Open a media file, image, image folder or address for the streams in `specs` (by stream name).

    `sidecars`: modality -> path, beside those found next to the clip. `require`: modalities that must be there.
    `video_stream`, `audio_stream`: the n-th stream of its kind instead of the first.
    `folder_rate_hz`: images a second of folders whose pictures have no times.
    Packets in [start_s, end_s) of the media clock, roughly in order of time. Raises MediaError, SidecarError, InputError.
    """
    check_rate(folder_rate_hz)
    return MediaSource(
        path, dict(specs), dict(sidecars or {}), exact(start_s), None if end_s is None else exact(end_s),
        tuple(require), {VIDEO: video_stream, AUDIO: audio_stream}, exact(folder_rate_hz),
    )


class MediaSource:
    """Iterate it once for Packets; a context manager. Made by `open_media`.

    `streams`: the specs of the streams that are there. `warnings`: damage met so far, in words.
    `duration_s`: the media clock's last moment, known once everything was read (else None).
    """

    def __init__(
        self,
        path: str | Path,
        specs: dict[str, StreamSpec],
        sidecars: dict[str, str | Path],
        start_s: Fraction,
        end_s: Fraction | None,
        require: tuple[str, ...],
        numbers: dict[str, int | None],
        folder_rate_hz: Fraction,
    ) -> None:
        self.path = str(path)
        self._specs = specs
        self._start_s, self._end_s = start_s, end_s
        self._numbers = numbers
        self._folder_rate_hz = folder_rate_hz
        self._warnings: list[str] = []
        self._readers: dict[str, Any] = {}  # by stream name
        self._tables: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._pictures: dict[str, VideoReader | Stills] = {}  # of sidecars: they do not move the media clock
        self._declared_s: float | None = None  # of the file, where its streams do not tell
        self._stack = ExitStack()
        try:
            self._local = self._stack.enter_context(local_file(path))
            self._open_readers()
            self._open_sidecars(sidecars)
            self._check(require)
        except BaseException:
            self.close()
            raise
        self._zero = min((r.start for r in self._readers.values()), default=Fraction(0))

    # -- what is there ----------------------------------------------------------------------------------------

    @property
    def streams(self) -> dict[str, StreamSpec]:
        return {name: s for name, s in self._specs.items()
                if name in self._readers or name in self._tables or name in self._pictures}

    @property
    def warnings(self) -> list[str]:
        readers = (*self._readers.values(), *self._pictures.values())
        return self._warnings + [w for reader in readers for w in reader.warnings]

    @property
    def duration_s(self) -> float | None:
        ends = [r.end for r in self._readers.values()]
        if not ends or None in ends:
            return None
        return float(max(ends) - self._zero)

    def __enter__(self) -> MediaSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    # -- opening ----------------------------------------------------------------------------------------------

    def _open_readers(self) -> None:
        if self._local.is_dir():
            images = image_folder(self._local)
            present = {VIDEO}
        else:
            images = []
            present = self._present()
        for name, spec in self._specs.items():
            if spec.modality not in present:
                continue
            if images:
                reader = FolderReader(images, self._folder_rate_hz, spec.size_px, spec.pixels, level=spec.level)
            elif spec.modality == VIDEO:
                reader = VideoReader(self._local, spec.size_px, self._numbers[VIDEO], pixels=spec.pixels, level=spec.level)
            else:
                reader = AudioReader(self._local, self._numbers[AUDIO])
            self._stack.callback(reader.close)
            if reader.start is None:
                self._warnings += reader.warnings
                self._warnings.append(f"{self._local.name}: its {spec.modality} stream has no decodable frame")
            else:
                self._readers[name] = reader

    def _present(self) -> set[str]:
        """The kinds of stream in the file that have a decoder."""
        container = open_container(self._local)
        try:
            found = {m: pick_stream(container, m, self._numbers[m]) for m in (VIDEO, AUDIO)}
            if {m for m, s in found.items() if s is not None} <= {s.modality for s in self._specs.values()}:
                self._declared_s = container_s(container)
            decodable = {m for m, s in found.items() if s is not None and s.codec_context is not None}
            lacking = [s for s in found.values() if s is not None and s.codec_context is None]
            for stream in lacking:
                error = no_codec_error(self._local, stream)
                if not decodable:
                    raise error
                self._warnings.append(str(error))
            return decodable
        finally:
            container.close()

    def _open_sidecars(self, given: dict[str, str | Path]) -> None:
        by_modality = {s.modality: name for name, s in self._specs.items() if s.modality not in (VIDEO, AUDIO)}
        for modality in given:
            if modality not in by_modality:
                raise SidecarError(f"no sensor {modality!r} is asked for", fix=nearest(modality, by_modality))
        tables, pictures = find_sidecars(self._local, TABLES), find_sidecars(self._local, PICTURES)
        for modality, name in by_modality.items():
            spec = self._specs[name]
            path = given.get(modality) or (pictures if spec.is_picture else tables).get(modality)
            if path is None:
                continue
            if spec.is_picture:
                self._pictures[name] = open_pictures(path, spec, self._folder_rate_hz)
                self._stack.callback(self._pictures[name].close)
            else:
                self._tables[name] = read_sidecar(path, spec.axes)

    def _check(self, require: tuple[str, ...]) -> None:
        there = {spec.modality for spec in self.streams.values()}
        damage = "; ".join(self._warnings)
        for modality in require:
            if modality not in there:
                has = f"has only {', '.join(sorted(there))}" if there else "has nothing that is asked for"
                raise MediaError(
                    f"{self.path} has no usable {modality}: {damage or has}", fix=f"give a file with {modality}"
                )
        if not self._readers and not ((self._tables or self._pictures) and self._local.exists()):
            asked = ", ".join(sorted({s.modality for s in self._specs.values()}))
            if damage:
                raise MediaError(f"{self.path} has no decodable frame: {damage}", fix="copy or export the file again")
            raise MediaError(f"{self.path} has none of what is asked for: {asked}", fix=f"give a file with {asked}")

    # -- packets ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Packet]:
        keyed = [self._keyed(name) for name in self.streams]
        running = {name for name in self._readers}
        for _, name, packet in heapq.merge(*keyed, key=lambda item: item[0]):
            if packet is None:
                running.discard(name)
                continue
            if name not in self._readers and self._readers and not running:
                packet = self._until_media_end(packet)
            if packet is not None:
                yield packet
        self._check_length()

    def _keyed(self, name: str) -> Iterator[tuple[float, str, Packet | None]]:
        """(time when due, stream, packet): a sensor packet is due at its end, so that media's end is known by then."""
        if name in self._tables:
            for packet in self._sensor_packets(name):
                yield packet.pts_s + len(packet.data) / packet.rate_hz - 1e-9, name, packet
            return
        end_s = float(self._start_s)
        packets = self._picture_packets(name) if self._specs[name].is_picture else self._audio_packets(name)
        for packet in packets:
            yield packet.pts_s, name, packet
            end_s = packet.pts_s
        yield end_s, name, None

    def _picture_packets(self, name: str) -> Iterator[Packet]:
        spec = self._specs[name]
        rate_hz = exact(spec.rate_hz)
        reader, zero = (self._readers[name], self._zero) if name in self._readers else (self._pictures[name], Fraction(0))
        for j, image in reader.sample(zero, rate_hz, self._start_s, self._end_s):
            yield Packet(name, spec.modality, float(j / rate_hz), image, float(rate_hz))

    def _audio_packets(self, name: str) -> Iterator[Packet]:
        rate_hz = int(self._specs[name].rate_hz)
        size = max(1, int(rate_hz * PACKET_S))
        runs = self._readers[name].sample(self._zero, rate_hz, self._start_s, self._end_s)
        for at, samples in _repacked(runs, size):
            yield Packet(name, AUDIO, at / rate_hz, samples, self._specs[name].rate_hz)

    def _sensor_packets(self, name: str) -> Iterator[Packet]:
        spec = self._specs[name]
        rate_hz = exact(spec.rate_hz)
        size = max(1, int(spec.rate_hz * PACKET_S))
        for first, rows in resample(*self._tables[name], rate_hz):
            for at in range(first, first + len(rows), size):
                piece = rows[at - first : at - first + size]
                keep = [i for i in range(len(piece)) if self._is_wanted((at + i) / rate_hz)]
                if keep:
                    piece = piece[keep[0] : keep[-1] + 1]
                    yield Packet(name, spec.modality, float((at + keep[0]) / rate_hz), piece, spec.rate_hz)

    def _is_wanted(self, time_s: Fraction) -> bool:
        return self._start_s <= time_s and (self._end_s is None or time_s < self._end_s)

    def _until_media_end(self, packet: Packet) -> Packet | None:
        """A sidecar may run on after the clip: those readings belong to nothing."""
        if self.duration_s is None:
            return packet
        if self._specs[packet.stream].is_picture:
            return packet if packet.pts_s < self.duration_s - 1e-9 else None
        times_s = packet.pts_s + np.arange(len(packet.data)) / packet.rate_hz
        count = int((times_s < self.duration_s - 1e-9).sum())
        if count == 0:
            return None
        return Packet(packet.stream, packet.modality, packet.pts_s, packet.data[:count], packet.rate_hz)

    def _check_length(self) -> None:
        """Warn where what was read is not what a header or a sidecar promised."""
        starts_s = {name: times_s[0] for name, (times_s, _) in self._tables.items()}
        starts_s |= {name: float(reader.start) for name, reader in self._pictures.items()}
        for name, start_s in starts_s.items():
            if self.duration_s is not None and start_s >= self.duration_s:
                self._warnings.append(
                    f"{name}: its times begin at {start_s:.10g} s, after the clip's end at {self.duration_s:.2f} s: "
                    "they count from the clip's start"
                )
        for name, reader in self._pictures.items():
            if not reader.rate_is_known and self.duration_s is not None and reader.end is not None:
                self._check_assumed(name, float(reader.end))
        for name, reader in self._readers.items():
            if reader.end is not None:
                decoded_s = float(reader.end - reader.start)
                self._check_declared(self._specs[name].modality, decoded_s, reader.declared_s)
        if self.duration_s is not None:
            self._check_declared("it", self.duration_s, self._declared_s)

    def _check_assumed(self, name: str, lasts_s: float) -> None:
        if abs(lasts_s - self.duration_s) > max(0.5, 0.05 * self.duration_s):
            self._warnings.append(
                f"{name}: its pictures last {lasts_s:.2f} s at {float(self._folder_rate_hz):g} a second, the clip "
                f"{self.duration_s:.2f} s: give their times in {TIMESTAMPS}"
            )

    def _check_declared(self, what: str, decoded_s: float, declared_s: float | None) -> None:
        if declared_s is not None and decoded_s < declared_s - max(0.5, 0.05 * declared_s):
            self._warnings.append(f"{self._local.name}: {what} ends after {decoded_s:.2f} s, its header says "
                                  f"{declared_s:.2f} s")


def _repacked(runs: Iterator[tuple[int, np.ndarray]], size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Contiguous runs of samples -> pieces that start at multiples of `size`."""
    parts: list[np.ndarray] = []
    begin = at = 0
    for start, samples in runs:
        if not parts:
            begin = at = start
        while len(samples):
            room = size - at % size
            parts.append(samples[:room])
            at += len(parts[-1])
            samples = samples[room:]
            if at % size == 0:
                yield begin, np.concatenate(parts)
                parts, begin = [], at
    if parts:
        yield begin, np.concatenate(parts)
