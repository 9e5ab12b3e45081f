"""Arrays as the protocol carries them: frames as JPEG where pillow is installed, else as RGB; sound as PCM.

Legend: H height, W width, T samples or rows, C channels or axes.
"""

from __future__ import annotations

import base64
import functools
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from anymodal.errors import InputError, PacketError
from anymodal.media.levels import Level, scaled, to_levels

QUALITY = 90  # of JPEG, without subsampled colours: small frames have few pixels to spare
PIECE_BYTES = 2**18  # of samples in one message
FRAMES = ("video", "depth", "thermal")  # where a server does not say of what its modalities are


def frame_of(array: Any, modality: str = "video", *, shorter_px: int | None = None,
             encoding: str | None = None, pixels: str | None = None, level: Level | None = None) -> dict[str, Any]:
    """A frame's `encoding`, `shape` and `data`. `array`: uint8 (H, W, 3) RGB or (H, W) grey; of depth and thermal also
    uint16 or float (H, W). `shorter_px`: larger ones are scaled down to it. `encoding`: "jpeg", "png" or "rgb8" instead of
    the best there is. `pixels`, `level`: what the server wants. Raises PacketError."""
    found = _array(array, f"a {modality} frame")
    if pixels == "gray16":
        return _levels_of(found, modality, shorter_px, level)
    if found.ndim == 2 and modality != "video" and (found.dtype.kind == "f" or found.dtype == np.uint16):
        return {"encoding": "float32", "shape": found.shape, "data": _base64(found.astype("<f4"))}
    if found.ndim == 2 and found.dtype == np.uint8:
        found = np.repeat(found[:, :, None], 3, axis=2)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3 or not found.size:
        raise PacketError(f"a {modality} frame must be uint8 (H, W, 3), found {found.dtype} {found.shape}",
                          fix="RGB from 0 to 255: np.uint8(frame[:, :, :3])")
    pillow = _pillow()
    encoding = encoding or ("jpeg" if pillow else "rgb8")
    if pillow is None and encoding != "rgb8":
        raise PacketError(f"{encoding} needs pillow", fix="pip install pillow")
    found = _scaled(found, shorter_px, pillow)
    if encoding == "rgb8":
        return {"encoding": encoding, "shape": found.shape, "data": _base64(found)}
    buffer = io.BytesIO()
    options = {"quality": QUALITY, "subsampling": 0} if encoding == "jpeg" else {"compress_level": 1}
    pillow.fromarray(found).save(buffer, encoding, **options)
    return {"encoding": encoding, "data": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _levels_of(found: np.ndarray, modality: str, size_px: int | None, level: Level | None) -> dict[str, Any]:
    """Levels as a PNG of one channel of 16 bits, of the size that the server would scale them to."""
    try:
        levels = scaled(to_levels(found, level), size_px)
    except InputError as error:
        raise PacketError(f"a {modality} frame {error.message}", fix=error.fix) from None
    height, width = levels.shape[:2]
    rows = np.zeros((height, 1 + 2 * width), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = levels[:, :, 0].astype(">u2").view(np.uint8)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)),
              (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return {"encoding": "png", "data": base64.b64encode(png).decode("ascii")}


def sound_of(samples: Any) -> np.ndarray:
    """Mono samples (T,) of (T,) or (T, C): int16 stays, floats in [-1, 1] are float32. Raises PacketError."""
    found = _array(samples, "sound")
    if found.dtype.kind == "f":
        found = np.clip(np.nan_to_num(found.astype(np.float32)), -1.0, 1.0)
        found = found.mean(axis=1) if found.ndim == 2 and found.shape[1] else found
    elif found.dtype == np.int16 and found.ndim == 2 and found.shape[1]:
        found = found.astype(np.int32).mean(axis=1).astype(np.int16)
    if found.dtype not in (np.int16, np.float32) or found.ndim != 1:
        raise PacketError(f"sound must be int16 or float, (T,) or (T, C), found {found.dtype} {found.shape}",
                          fix="one row per moment: samples.T if the channels come first")
    return found


def readings_of(rows: Any, modality: str) -> np.ndarray:
    """float32 (T, C) of a sensor's rows, or of one row (C,). Raises PacketError."""
    found = _array(rows, modality)
    if found.dtype.kind not in "fiu" or found.ndim not in (1, 2) or 0 in found.shape:
        raise PacketError(f"{modality} must be numbers (T, C), found {found.dtype} {found.shape}", fix="one row per moment")
    found = np.atleast_2d(found).astype(np.float32)
    if not np.isfinite(found).all():
        raise PacketError(f"{modality} has readings that are no finite numbers", fix="leave those rows out")
    return found


def pieces_of(samples: np.ndarray, pts_s: float, rate_hz: float) -> Iterator[tuple[float, dict[str, Any]]]:
    """Samples as messages of a bounded size: (time of the first sample, `encoding`, `shape` and `data`)."""
    encoding, kind = ("pcm16", "<i2") if samples.dtype == np.int16 else ("float32", "<f4")
    step = max(1, PIECE_BYTES // max(1, samples[:1].nbytes))
    for first in range(0, len(samples), step):
        piece = samples[first : first + step].astype(kind)
        yield pts_s + first / rate_hz, {"encoding": encoding, "shape": piece.shape, "data": _base64(piece)}


@functools.cache
def _pillow() -> Any:
    """PIL.Image, or None: the light install does without."""
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image


def _scaled(frame: np.ndarray, shorter_px: int | None, pillow: Any) -> np.ndarray:
    """The shorter side at `shorter_px`, or with no pillow the nearest whole fraction above it."""
    shorter = min(frame.shape[:2])
    if not shorter_px or shorter <= shorter_px:
        return np.ascontiguousarray(frame)
    if pillow:
        height, width = (max(1, round(side * shorter_px / shorter)) for side in frame.shape[:2])
        return np.asarray(pillow.fromarray(np.ascontiguousarray(frame)).resize((width, height), pillow.Resampling.BOX))
    by = shorter // shorter_px
    height, width = (side // by for side in frame.shape[:2])
    cells = frame[: height * by, : width * by].reshape(height, by, width, by, 3)
    return np.rint(cells.mean(axis=(1, 3))).astype(np.uint8)


def _array(found: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(found)
    except (ValueError, TypeError) as error:
        raise PacketError(f"{what} is no array: {error}", fix="give a numpy array") from error


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array)).decode("ascii")
