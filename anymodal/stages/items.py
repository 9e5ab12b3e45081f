"""What is handed from stage to stage: plain values that cross process boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anymodal.types import Tokens, Window

VIDEO = "video"
IMAGE = "image"  # a picture, for models that lay it out in another way than a video's frames


@dataclass(frozen=True, slots=True)
class Clip:
    """Media to watch as one session: a path, an address, or None for no media. `at_s`: only what had ended by then.
    `folder_rate_hz`: of a folder of images, None the usual one."""

    session: str
    media: str | None
    at_s: float | None = None
    sidecars: Mapping[str, str] = field(default_factory=dict)
    folder_rate_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Percept:
    """A window after perception: a few tokens, and the counts that an answer reports.

    `repeats`: stream -> the earlier window whose tokens it repeats, for a stream that had not changed; its Tokens are
    given all the same. `gap`: why a live source has nothing here; such a window may have no tokens.
    """

    session: str
    index: int
    t0_s: float
    t1_s: float
    tokens: tuple[Tokens, ...]
    frames: int = 0
    dropped: int = 0
    repeats: Mapping[str, int] = field(default_factory=dict)
    gap: str = ""

    @classmethod
    def of(cls, session: str, window: Window, tokens: list[Tokens]) -> Percept:
        """`tokens`: those of the window's signals, in prompt order."""
        seen = {name: len(signal.data) for name, signal in window.signals.items() if signal.modality == VIDEO}
        frames, dropped = sum(seen.values()), sum(window.dropped.get(name, 0) for name in {*seen, *window.videos})
        return cls(session, window.index, window.t0_s, window.t1_s, tuple(tokens), frames, dropped)


@dataclass(frozen=True, slots=True)
class Opening:
    """A session begins."""

    session: str


@dataclass(frozen=True, slots=True)
class Question:
    """The `number`-th question of a session. `windows`: how many it must have seen; None does not check. `pooled`: windows
    that were pooled for this question."""

    session: str
    number: int
    text: str
    at_s: float | None = None
    windows: int | None = None
    pooled: tuple[Percept, ...] = ()


@dataclass(frozen=True, slots=True)
class Closing:
    """A session ends."""

    session: str
