"""A file's windows: what the agent reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anymodal.errors import QuestionError
from anymodal.media.fetch import local_file
from anymodal.media.spec import stream_specs
from anymodal.types import Window

AT_TOLERANCE_S = 1e-6


def read_windows(
    path: str | Path,
    bundle: Any,
    at_s: float | None = None,
    *,
    sidecars: Mapping[str, str | Path] | None = None,
    require: Sequence[str] = (),
    first_window: int = 0,
    **options: Any,
) -> WindowReader:
    """The windows of a media file, image, image folder or address, in order, as they are decoded.

    `bundle`: has `window_s` and `modalities` (name -> rate_hz, size_px, axes); streams are named as modalities.
    `at_s`: only windows that had ended by then. `first_window`: where to resume. `options`: see `open_media`.
    Raises MediaError, SidecarError, and QuestionError for a time before 0 or past the end.
    """
    return WindowReader(path, bundle, at_s, dict(sidecars or {}), tuple(require), first_window, options)


class WindowReader:
    """An iterator of Windows and a context manager. `warnings`, `dropped` (packets) and `duration_s` as read so far."""

    def __init__(
        self,
        path: str | Path,
        bundle: Any,
        at_s: float | None,
        sidecars: dict[str, str | Path],
        require: tuple[str, ...],
        first_window: int,
        options: dict[str, Any],
    ) -> None:
        from anymodal.media.container import is_image
        from anymodal.media.source import open_media
        from anymodal.media.windows import Windower

        self._path, self._at_s, self._hop_s = path, at_s, float(bundle.window_s)
        if at_s is not None and not at_s >= 0:
            raise QuestionError(f"cannot answer as of {at_s:g} s: a clip begins at 0", fix="give a time of 0 or later")
        self._fetched = local_file(path)
        local = self._fetched.__enter__()
        try:
            if at_s is not None:
                self._check_at(local, options)
            end_s = None if at_s is None else at_s + AT_TOLERANCE_S
            self.source = open_media(
                local, stream_specs(bundle.modalities), sidecars, first_window * self._hop_s, end_s,
                require=require, **options,
            )
        except BaseException:
            self._fetched.__exit__(None, None, None)
            raise
        self.windower = Windower(
            self._hop_s, self.source.streams, first_window=first_window, max_ahead_s=float("inf")
        )
        self._still = not local.is_dir() and is_image(local)
        self._windows = self._read()

    @property
    def streams(self):
        """The specs of the streams that are there, by name."""
        return self.source.streams

    @property
    def warnings(self) -> list[str]:
        return self.source.warnings

    @property
    def dropped(self) -> int:
        return sum(t.late + t.malformed for t in self.windower.totals.values())

    @property
    def duration_s(self) -> float | None:
        return self.source.duration_s

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        return next(self._windows)

    def __enter__(self) -> WindowReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._windows.close()
        self.source.close()
        self._fetched.__exit__(None, None, None)

    def _read(self) -> Iterator[Window]:
        try:
            for packet in self.source:
                yield from self._ended(self.windower.push(packet))
            yield from self._ended(self.windower.close(self._end_s()))
            if self._at_s is not None and self.source.duration_s is not None:
                self._check_within(self.source.duration_s)  # the header may have promised more
        finally:
            self.source.close()

    def _end_s(self) -> float:
        return math.inf if self.source.duration_s is None else self.source.duration_s

    def _ended(self, windows: list[Window]) -> Iterator[Window]:
        for window in windows:
            if self._still:
                window = replace(window, signals={n: replace(s, still=True) for n, s in window.signals.items()})
            if self._at_s is None or window.t1_s <= self._at_s + AT_TOLERANCE_S:
                yield window

    def _check_at(self, local: Path, options: dict[str, Any]) -> None:
        from anymodal.media.info import FOLDER_RATE_HZ, probe

        rate_hz = options.get("folder_rate_hz", FOLDER_RATE_HZ)
        if self._at_s > probe(local, folder_rate_hz=rate_hz).duration_s + self._hop_s:
            self._check_within(probe(local, exact_duration=True, folder_rate_hz=rate_hz).duration_s)

    def _check_within(self, duration_s: float) -> None:
        if self._at_s > duration_s + self._hop_s + AT_TOLERANCE_S:
            raise QuestionError(
                f"cannot answer as of {self._at_s:g} s: {self._path} is {duration_s:.2f} s long",
                fix=f"give a time from 0 to {duration_s:.2f}",
            )
