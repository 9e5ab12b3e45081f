"""Pictures of a further sense beside a clip: NAME.<sense>/ of images, NAME.<sense>.mkv, .npz or .npy.

Their times are on the clip's media clock. A video has its own; images and arrays have them in a table (`timestamps.csv`
in the folder, NAME.<sense>.timestamps.csv beside an array) or, of an .npz, in `time_s` or `rate_hz`; a folder without
any is shown at a fixed rate. Everything is read picture by picture, as it is needed.
Legend: T pictures, H, W pixels, C channels.
"""

from __future__ import annotations

import csv
import math
import re
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from anymodal.errors import InputError, MediaError, SidecarError
from anymodal.media.container import MOST_PIXELS, av, image_folder
from anymodal.media.folder import FolderReader, Stills
from anymodal.media.levels import scaled, to_levels
from anymodal.media.sidecar import TABLES, check_times, read_sidecar
from anymodal.media.spec import StreamSpec, exact
from anymodal.media.video import VideoReader, new_scaler, to_rgb

TIMESTAMPS = "timestamps.csv"
MOST_PICTURES = 10**7  # of an array: what a small file claims must not take all memory
ARRAYS = (".npz", ".npy")


def open_pictures(path: str | Path, spec: StreamSpec, folder_rate_hz: Fraction) -> VideoReader | Stills:
    """A sidecar of pictures as frames of `spec`. The caller closes it. Raises SidecarError."""
    path = Path(path)
    if not path.exists():
        raise SidecarError(f"no sidecar {path}", fix="check the path")
    if path.suffix.lower() in TABLES:
        raise SidecarError(f"{path} is a table, and {spec.modality} are pictures, {spec.frame}",
                           fix="give a folder of images, a video or an array")
    try:
        reader = _reader(path, spec, folder_rate_hz)
    except MediaError as error:
        raise SidecarError(error.message, fix=error.fix) from error
    if reader.start is None:
        reader.close()
        raise SidecarError(f"{path} has no picture that can be read: {'; '.join(reader.warnings) or 'it has none'}",
                           fix="copy or export it again")
    return reader


def _reader(path: Path, spec: StreamSpec, folder_rate_hz: Fraction) -> VideoReader | Stills:
    if path.is_dir():
        return _folder(path, spec, folder_rate_hz)
    if path.suffix.lower() in ARRAYS:
        return ArrayReader(path, spec)
    return VideoReader(path, spec.size_px, pixels=spec.pixels, level=spec.level)


# --- folders ----------------------------------------------------------------------------------------------------------

def _folder(path: Path, spec: StreamSpec, rate_hz: Fraction) -> FolderReader:
    images = image_folder(path)
    table = path / TIMESTAMPS
    if not table.exists():
        _check_numbers(path, images)
        return FolderReader(images, rate_hz, spec.size_px, spec.pixels, level=spec.level, rate_is_known=False)
    times_s, names = read_times(table)
    if names is not None:
        images = [path / name for name in names]
        for i, image in enumerate(images):
            if Path(names[i]).name != names[i] or not image.is_file():
                raise SidecarError(f"{table} names {names[i]!r}, which is not in {path}", fix="add it, or remove its row")
    elif len(images) != len(times_s):
        raise SidecarError(f"{table} has {len(times_s)} times, and {path} has {len(images)} pictures",
                           fix="give each picture a row, or name them in a column `file`")
    return FolderReader(images, rate_hz, spec.size_px, spec.pixels, level=spec.level, times_s=times_s)


def read_times(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """A table of times: `time_s` (N,) in seconds, strictly increasing, and the names in its column `file`, if it has one.
    Raises SidecarError."""
    times_s, _ = read_sidecar(path, ())
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows)]
        if "file" not in header:
            return times_s, None
        at = header.index("file")
        return times_s, [row[at].strip() for row in rows if any(cell.strip() for cell in row)]


def _check_numbers(path: Path, images: list[Path]) -> None:
    """Pictures whose names are numbers must not lack one: all after it would be shown too early."""
    found = [re.fullmatch(r"(.*?)(\d+)", image.stem) for image in images]
    if len(images) < 3 or not all(found) or len({match[1] for match in found}) > 1:
        return
    numbers = [int(match[2]) for match in found]
    steps = [after - before for before, after in zip(numbers, numbers[1:])]
    step = Counter(steps).most_common(1)[0][0]
    for image, before, wide in zip(images, numbers, steps):
        if wide != step:
            what = f"no picture {before + step}" if wide > step else "another picture of nearly the same number"
            raise SidecarError(f"{path}: after {image.name} comes {what}",
                               fix=f"number the pictures evenly, or give their times in {TIMESTAMPS}")


# --- arrays -----------------------------------------------------------------------------------------------------------

class ArrayReader(Stills):
    """.npy (T, H, W) or (T, H, W, C), or .npz with that as `frames`, and `time_s` (T,) or `rate_hz`.

    gray16: uint16, or floats in the unit of the spec's level; rgb8: uint8 (T, H, W, 3). A compressed .npz is unpacked
    from its beginning to where it is read."""

    def __init__(self, path: Path, spec: StreamSpec) -> None:
        self._path, self._spec = path, spec
        self._archive: zipfile.ZipFile | None = None
        self._file: IO[bytes] | None = None
        self._scaler = new_scaler()
        try:
            self._open()
            times_s, last_s = self._times()
            super().__init__(times_s, exact(float(times_s[-1])) + exact(last_s), self._picture)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            self.close()
            why = " ".join(str(error).split())
            raise SidecarError(f"{path} cannot be read: {why}", fix="save it with numpy") from error
        except SidecarError:
            self.close()
            raise

    def close(self) -> None:
        for each in (self._file, self._archive):
            if each is not None:
                each.close()

    def _open(self) -> None:
        if self._path.suffix.lower() == ".npz":
            self._archive = zipfile.ZipFile(self._path)
            self._file = self._member("frames")
        else:
            self._file = self._path.open("rb")
        self._shape, self._dtype = self._header(self._file)
        self._at = self._file.tell()
        spec, shape = self._spec, self._shape
        channels = 3 if spec.pixels == "rgb8" else 1
        fits = len(shape) == 4 and shape[3] == channels or len(shape) == 3 and channels == 1
        kinds = ("u1",) if spec.pixels == "rgb8" else ("u2", "f2", "f4", "f8")
        if not fits or self._dtype.str[1:] not in kinds or 0 in shape:
            wanted = "uint8 (T, H, W, 3)" if spec.pixels == "rgb8" else "uint16 (T, H, W)"
            raise SidecarError(f"{self._path}: its pictures are {self._dtype} {shape}, {wanted} is wanted",
                               fix=f"save them as {wanted}")
        if shape[0] > MOST_PICTURES or shape[1] * shape[2] > MOST_PIXELS:
            raise SidecarError(f"{self._path}: {shape} is too large", fix="save fewer or smaller pictures")

    def _member(self, name: str) -> IO[bytes]:
        held = [n.removesuffix(".npy") for n in self._archive.namelist()]
        if name not in held:
            raise SidecarError(f"{self._path} has no {name!r}, only {', '.join(map(repr, held)) or 'nothing'}",
                               fix="np.savez(path, frames=frames, time_s=times)")
        return self._archive.open(f"{name}.npy")

    def _header(self, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise SidecarError(f"{self._path} is a npy file of version {version}", fix="save it as plain numbers")
        shape, is_fortran, dtype = read(file)
        if is_fortran and len(shape) > 1:
            raise SidecarError(f"{self._path} is in Fortran order", fix="save np.ascontiguousarray(frames)")
        return shape, dtype

    def _small(self, name: str) -> np.ndarray:
        """A member with at most a number for each picture."""
        with self._member(name) as file:
            shape, dtype = self._header(file)
            if dtype.kind not in "fiu" or math.prod(shape) not in (1, self._shape[0]):
                raise SidecarError(f"{self._path}: {name} is {dtype} {shape}, for {self._shape[0]} pictures",
                                   fix=f"one number in {name} for each picture" if name == "time_s" else "one number")
            data = file.read(math.prod(shape) * dtype.itemsize)
        found = np.frombuffer(data, dtype).astype(np.float64)
        if len(found) != math.prod(shape) or not np.isfinite(found).all():
            raise SidecarError(f"{self._path}: {name} holds values that are no numbers", fix=f"give {name} in seconds")
        return found

    def _times(self) -> tuple[np.ndarray, float]:
        """When each picture is shown, and for how long the last one is."""
        count = self._shape[0]
        table = self._path.with_suffix(f".{TIMESTAMPS}")
        held = {n.removesuffix(".npy") for n in self._archive.namelist()} if self._archive else set()
        if "time_s" in held:
            times_s = self._small("time_s")
            check_times(times_s, lambda i: f"{self._path}, time_s[{i}]")
        elif "rate_hz" in held:
            rate_hz = self._small("rate_hz")
            if len(rate_hz) != 1 or not rate_hz[0] > 0:
                raise SidecarError(f"{self._path}: rate_hz is {rate_hz}", fix="give one number above 0")
            return np.arange(count) / rate_hz[0], 1 / rate_hz[0]
        elif table.exists():
            times_s, _ = read_times(table)
        else:
            raise SidecarError(f"{self._path} does not tell when its pictures were taken",
                               fix=f"add {table.name} with a column time_s, or save a .npz with time_s or rate_hz")
        if len(times_s) != count:
            raise SidecarError(f"{self._path} has {count} pictures and {len(times_s)} times", fix="give each a time")
        return times_s, float(times_s[-1] - times_s[-2]) if count > 1 else float(1 / self._spec.rate_hz)

    def _picture(self, number: int) -> np.ndarray:
        size = math.prod(self._shape[1:]) * self._dtype.itemsize
        try:
            self._file.seek(self._at + number * size)
            data = self._file.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
            raise SidecarError(f"{self._path}, picture {number}: {error}", fix="copy or save the file again") from error
        if len(data) < size:
            raise SidecarError(f"{self._path} is cut short: picture {number} of {self._shape[0]} is not whole",
                               fix="copy or save the file again")
        frame = np.frombuffer(data, self._dtype).reshape(self._shape[1:])
        if self._spec.pixels == "rgb8":
            return to_rgb(self._scaler, av.VideoFrame.from_ndarray(frame, "rgb24"), self._spec.size_px)
        try:
            return scaled(to_levels(frame, self._spec.level), self._spec.size_px)
        except InputError as error:
            raise SidecarError(f"{self._path}, picture {number} {error.message}", fix=error.fix) from None
