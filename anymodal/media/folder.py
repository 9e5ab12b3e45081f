"""A folder of images as a video: image i, in natural order of names, is shown from i / rate to (i + 1) / rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from anymodal.errors import MediaError
from anymodal.media.spec import ceil_index
from anymodal.media.video import VideoReader


class FolderReader:
    """The same interface as VideoReader. An image that cannot be read is skipped: the one before stays."""

    def __init__(self, images: list[Path], folder_rate_hz: Fraction, size_px: int | None) -> None:
        self._images, self._step_s, self._size_px = images, 1 / folder_rate_hz, size_px
        self.warnings: list[str] = []
        self.declared_s = None
        self.start: Fraction | None = next(
            (i * self._step_s for i in range(len(images)) if self._image(i) is not None), None
        )
        self.end: Fraction | None = None

    def close(self) -> None:
        pass

    def sample(
        self, zero: Fraction, rate_hz: Fraction, start_s: Fraction = Fraction(0), end_s: Fraction | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (grid index j, frame (H, W, 3)) for grid times in [start_s, end_s)."""
        length_s = len(self._images) * self._step_s - zero
        stop_s = length_s if end_s is None else min(end_s, length_s)
        number, image = -1, None
        for j in range(max(0, ceil_index(start_s, rate_hz)), ceil_index(stop_s, rate_hz)):
            shown = (j / rate_hz + zero) // self._step_s
            while shown != number:
                number, image = shown, self._readable(shown)
            yield j, image
        self.end = zero + length_s

    def _readable(self, number: int) -> np.ndarray:
        """The image, or the nearest readable one before it."""
        for i in range(number, -1, -1):
            if (image := self._image(i)) is not None:
                return image
        raise MediaError(f"{self._images[number]} became unreadable", fix="check the folder")

    def _image(self, number: int) -> np.ndarray | None:
        path = self._images[number]
        try:
            reader = VideoReader(path, self._size_px)
            try:
                return next((image for _, image in reader.every_frame()), None) if reader.start is not None else None
            finally:
                reader.close()
        except MediaError as error:
            warning = str(error)
            if warning not in self.warnings:
                self.warnings.append(warning)
            return None
