"""Pictures of one 16-bit measurement a pixel: levels, and how other numbers become levels.

Levels stay as they came up to the encoder, which knows their meaning. Scaling takes the nearest pixel: a mean of two
distances is where nothing is, and a level for "no reading" must not mix with readings.
Legend: H, W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anymodal.errors import InputError

HIGHEST = 65535


@dataclass(frozen=True, slots=True)
class Level:
    """What a level says: value = level * scale + offset, in `unit`. Without it, floats cannot become levels."""

    unit: str
    scale: float
    offset: float = 0.0


def to_levels(values: np.ndarray, level: Level | None) -> np.ndarray:
    """uint16 (H, W) or (H, W, 1), or floats in the unit of `level` -> uint16 (H, W, 1). Raises InputError."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] != 1 or not values.size:
        raise InputError(f"is {values.dtype} {values.shape}, not a picture of one channel", fix="give it as (H, W)")
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return values.astype(np.uint16, copy=False)  # of either byte order
    if values.dtype.kind != "f":
        raise InputError(f"is {values.dtype}, 16-bit levels are wanted", fix="give the raw values as np.uint16")
    if level is None:
        raise InputError("holds floats, and the bundle does not say what a level is",
                         fix="give the raw values as np.uint16, or set `level` in the bundle's modality")
    if not np.isfinite(values).all():
        raise InputError("holds values that are no numbers", fix="give what was not measured the value of level 0")
    levels = np.rint((values.astype(np.float64) - level.offset) / level.scale)
    if levels.min() < 0 or levels.max() > HIGHEST:
        low, high = sorted((level.offset, HIGHEST * level.scale + level.offset))
        raise InputError(f"holds values from {values.min():g} to {values.max():g}, levels are {low:g} to {high:g} "
                         f"{level.unit}", fix=f"give values in {level.unit}")
    return levels.astype(np.uint16)


def scaled(frame: np.ndarray, size_px: int | None) -> np.ndarray:
    """(H, W, 1) -> (size_px, size_px, 1), each pixel the one whose centre is nearest; or as it is without a size."""
    height, width = frame.shape[:2]
    if size_px is None or (height, width) == (size_px, size_px):
        return frame
    rows, columns = ((2 * np.arange(size_px) + 1) * side // (2 * size_px) for side in (height, width))
    return frame[rows[:, None], columns]
