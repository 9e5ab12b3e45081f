"""What a bundle wants of a stream, and what a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from anymodal.media.levels import Level
from anymodal.types import PIXELS

VIDEO = "video"
AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream on a sampling grid: sample or frame j is at j / rate_hz seconds of media time.

    `size_px`: frames are stretched to size_px x size_px, or keep their own size when None.
    `axes`: names of a sensor's columns, in order; empty for pictures and audio.
    `pixels`: of pictures, a key of `anymodal.types.PIXELS`; video is rgb8 unless it says otherwise. `level`: of gray16,
    what a level says, where floats are to become levels.
    """

    modality: str
    rate_hz: float
    size_px: int | None = None
    axes: tuple[str, ...] = ()
    pixels: str | None = None
    level: Level | None = None

    def __post_init__(self) -> None:
        if not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, found {self.rate_hz!r}")
        if self.pixels is None and self.modality == VIDEO:
            object.__setattr__(self, "pixels", "rgb8")
        if self.pixels is not None and self.pixels not in PIXELS:
            raise ValueError(f"pixels must be one of {', '.join(PIXELS)}, found {self.pixels!r}")

    @property
    def is_picture(self) -> bool:
        """Whether its samples are frames."""
        return self.pixels is not None

    @property
    def frame(self) -> str:
        """What a frame is, in words: "uint8 (H, W, 3)" or "uint16 (48, 48, 1)". Only of pictures."""
        kind, channels = PIXELS[self.pixels]
        height, width = (self.size_px, self.size_px) if self.size_px else ("H", "W")
        return f"{np.dtype(kind).name} ({height}, {width}, {channels})"

    def is_frame(self, data: np.ndarray) -> bool:
        """Whether an array is a frame of these pictures, of their size if they have one."""
        kind, channels = PIXELS[self.pixels]
        size = (self.size_px, self.size_px) if self.size_px else data.shape[:2]
        return data.dtype == kind and data.ndim == 3 and data.shape == (*size, channels)


def stream_specs(modalities: Mapping[str, Any]) -> dict[str, StreamSpec]:
    """A bundle's `modalities` (name -> a StreamSpec, or an object with rate_hz, size_px, axes, pixels and level) -> stream
    specs by the same names."""
    return {name: spec if isinstance(spec, StreamSpec) else _stream_spec(name, spec) for name, spec in modalities.items()}


def _stream_spec(name: str, spec: Any) -> StreamSpec:
    pixels, level = getattr(spec, "pixels", None), getattr(spec, "level", None)
    if level is not None:
        level = Level(level.unit, level.scale, level.offset)
    return StreamSpec(name, spec.rate_hz, spec.size_px, tuple(spec.axes), pixels, level)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream as the container's header tells it. Times in seconds; None where the header is silent."""

    index: int
    modality: str
    codec: str
    decodable: bool = True
    start_s: float | None = None
    duration_s: float | None = None
    rate_hz: float | None = None  # average frames/s, or samples/s
    width_px: int = 0  # as shown, after rotation
    height_px: int = 0
    rotation_deg: int = 0  # clockwise, to show upright
    pixel_format: str = ""
    channels: int = 0
    attached_picture: bool = False


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file holds. `duration_s` is measured over packets: the media clock's last moment."""

    path: str
    container: str
    duration_s: float
    streams: tuple[StreamInfo, ...] = ()
    is_image: bool = False
    is_folder: bool = False
    sidecars: Mapping[str, str] = field(default_factory=dict)  # modality -> path

    def first(self, modality: str) -> StreamInfo | None:
        """The stream that is used when none is asked for: the first that is no attached picture."""
        return next((s for s in self.streams if s.modality == modality and not s.attached_picture), None)

    @property
    def has_video(self) -> bool:
        return self.first(VIDEO) is not None

    @property
    def has_audio(self) -> bool:
        return self.first(AUDIO) is not None


def exact(value: float | int | Fraction) -> Fraction:
    """A rate or a time as a small fraction, so that grids are computed without rounding (to 1e-9)."""
    return value if isinstance(value, Fraction) else Fraction(value).limit_denominator(10**9)


def ceil_index(time_s: Fraction, rate_hz: Fraction) -> int:
    """The first grid index j with j / rate_hz >= time_s."""
    product = time_s * rate_hz
    return -(-product.numerator // product.denominator)
