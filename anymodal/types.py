"""What flows between the stages: numpy only, times in seconds of media time.

Shapes: T samples or frames, H height, W width, C channels or axes, N pooled tokens, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

# What a picture sense's frames are made of: dtype and channels. rgb8 is colour; gray16 is one measurement a pixel.
PIXELS: Mapping[str, tuple[type[np.generic], int]] = {"rgb8": (np.uint8, 3), "gray16": (np.uint16, 1)}


@dataclass(frozen=True, slots=True)
class Packet:
    """A piece of one stream.

    pictures (video, depth, thermal, ...): `data` is one frame, shown from `pts_s` until the next packet: rgb8 is uint8
    (H, W, 3), gray16 is uint16 (H, W, 1), levels whose meaning is the encoder's.
    audio: float32 (T,) mono in [-1, 1] at `rate_hz`, first sample at `pts_s`.
    sensors (imu, ...): float32 (T, C) at `rate_hz`, first row at `pts_s`.
    """

    stream: str
    modality: str
    pts_s: float
    data: np.ndarray
    rate_hz: float


@dataclass(frozen=True, slots=True)
class Signal:
    """One stream's share of a window, on the bundle's sampling grid.

    `data`: pictures uint8 (T, H, W, 3) or uint16 (T, H, W, 1); audio float32 (T,); sensors float32 (T, C).
    `t0_s`: media time of data[0]; sample i is at t0_s + i / rate_hz.
    `closing`: pictures only, (H, W, 3) or (H, W, 1): a copy of the frame on show at the window's end, if there is one. It
    is the next window's first frame; with it a change in the last moment of a window is seen in that window.
    `still`: a picture that is no frame of a video; some models lay it out in another way.
    """

    modality: str
    data: np.ndarray
    rate_hz: float
    t0_s: float
    closing: np.ndarray | None = None
    still: bool = False

    @property
    def is_picture(self) -> bool:
        """Whether its samples are frames: told by the kind of data, whatever the sense is called."""
        return self.data.ndim == 4


@dataclass(frozen=True, slots=True)
class Window:
    """Media time [t0_s, t1_s) of a session, aligned over its streams. `dropped` counts late or shed packets;
    `videos`: names of the streams whose packets are a video's frames, there or not."""

    index: int
    t0_s: float
    t1_s: float
    signals: Mapping[str, Signal]  # by stream name
    dropped: Mapping[str, int] = field(default_factory=dict)
    videos: tuple[str, ...] = ("video",)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Pooled tokens of one modality of one window: `embeds` (N, D) in the bundle's dtype, ready for the LM.

    `joint` (Q, E) are unit vectors in the joint space, one for each query of the adapter; `familiarity` in [0, 1] says
    how much the signal looks like what the encoders were trained on. `features`: the name under which perception keeps what
    it will pool once a question is asked (`anymodal.asked`); there are no embeds until then.
    """

    session: str
    stream: str
    window: int
    modality: str
    t0_s: float
    t1_s: float
    embeds: np.ndarray
    joint: np.ndarray | None = None
    familiarity: float = 1.0
    positions: np.ndarray | None = None
    takes: tuple[int, int, int] = (0, 0, 0)
    extras: np.ndarray | None = None
    features: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A span of media time that an answer relies on."""

    start_s: float
    end_s: float
    modality: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `confidence` in [0, 1] is calibrated on held-out playground clips.

    `ttft_s`: from being asked to the first text, reading the media included.
    A session also says: `last_window`, the last one that was used; `windows_missing`, those up to it in which a live
    source brought nothing; `stale_s`, seconds of media that had come in and were not yet seen; `windows`, the numbers of
    those that were read, where they were read instead of all up to the last.
    """

    question: str
    text: str
    confidence: float
    evidence: tuple[Evidence, ...] = ()
    frames_seen: int = 0
    frames_dropped: int = 0
    windows_seen: int = 0
    ttft_s: float = 0.0
    last_window: int | None = None
    windows_missing: int = 0
    stale_s: float = 0.0
    windows: tuple[int, ...] = ()

    def to_json(self) -> dict:
        """The row that `ask --json` and jobs write; a session's answer has three keys more, or four."""
        session = {} if self.last_window is None else {
            "last_window": self.last_window,
            "windows_missing": self.windows_missing,
            "stale_s": round(self.stale_s, 4),
            **({"windows": list(self.windows)} if self.windows else {}),
        }
        return {
            "question": self.question,
            "answer": self.text,
            "confidence": round(self.confidence, 4),
            "evidence": [
                {"start_s": e.start_s, "end_s": e.end_s, "modality": e.modality} for e in self.evidence
            ],
            "frames_seen": self.frames_seen,
            "frames_dropped": self.frames_dropped,
            "windows_seen": self.windows_seen,
            "time_to_first_token_s": round(self.ttft_s, 4),
            **session,
        }


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer's text as it is generated."""

    text: str
