"""Pictures one by one: each is shown from its time until the next one's. A folder of images is a video of that kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from anymodal.errors import MediaError
from anymodal.media.levels import Level
from anymodal.media.spec import ceil_index, exact
from anymodal.media.video import VideoReader

TOLERANCE_S = 1e-9  # times are floats


class Stills:
    """The same interface as VideoReader. `load(i)` gives picture i, or None if it cannot be read: the one before stays.

    `times_s`: ascending, (N,). `end`: of the last one. `rate_is_known`: or only assumed.
    """

    declared_s = None
    rate_is_known = True

    def __init__(self, times_s: np.ndarray, end: Fraction, load: Callable[[int], np.ndarray | None]) -> None:
        self._times_s, self._end, self._load = times_s, end, load
        self.warnings: list[str] = []
        self.end: Fraction | None = None
        self._first = next((i for i in range(len(times_s)) if load(i) is not None), None)
        self.start: Fraction | None = None if self._first is None else exact(float(times_s[self._first]))

    def close(self) -> None:
        pass

    def sample(
        self, zero: Fraction, rate_hz: Fraction, start_s: Fraction = Fraction(0), end_s: Fraction | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (grid index j, frame (H, W, C)) for grid times in [start_s, end_s)."""
        first_s = max(start_s, self.start - zero, Fraction(0))
        stop_s = self._end - zero if end_s is None else min(end_s, self._end - zero)
        number, image = -1, None
        for j in range(ceil_index(first_s, rate_hz), ceil_index(stop_s, rate_hz)):
            shown = int(np.searchsorted(self._times_s, float(j / rate_hz + zero) + TOLERANCE_S, side="right")) - 1
            if shown != number:
                number, image = shown, self._readable(shown)
            yield j, image
        self.end = self._end

    def _readable(self, number: int) -> np.ndarray:
        """The picture, or the nearest readable one before it."""
        for i in range(number, self._first - 1, -1):
            if (image := self._load(i)) is not None:
                return image
        raise MediaError(f"picture {self._first} became unreadable", fix="check the folder")


class FolderReader(Stills):
    """Images in their order, at a rate or at `times_s` of their own."""

    def __init__(self, images: list[Path], rate_hz: Fraction, size_px: int | None, pixels: str = "rgb8", *,
                 level: Level | None = None, times_s: np.ndarray | None = None, rate_is_known: bool = True) -> None:
        self._images, self._size_px, self._pixels, self._level = images, size_px, pixels, level
        self.rate_is_known = rate_is_known
        self._damage: list[str] = []
        if times_s is None:
            times_s, end = np.arange(len(images)) / float(rate_hz), len(images) / rate_hz
        else:
            end = exact(float(times_s[-1] + (times_s[-1] - times_s[-2] if len(times_s) > 1 else 1 / rate_hz)))
        super().__init__(times_s, end, self._image)
        self.warnings = self._damage

    def _image(self, number: int) -> np.ndarray | None:
        path = self._images[number]
        try:
            reader = VideoReader(path, self._size_px, pixels=self._pixels, level=self._level)
            try:
                return next((image for _, image in reader.every_frame()), None) if reader.start is not None else None
            finally:
                reader.close()
        except MediaError as error:
            warning = str(error)
            if warning not in self._damage:
                self._damage.append(warning)
            return None
