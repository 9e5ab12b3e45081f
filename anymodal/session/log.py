"""What a session's log stores, and the interface of a log. No torch, no database.

A log holds windows and entries. Windows are `Percept`s, numbered 0, 1, 2, ... without holes, each entering once; a
live source that has nothing sends a window with a `gap`. Entries are everything else that happened, in order.

    log.append_window(percept)   True, or False where the window is there already
    log.append(Turn(...))        its sequence number
    log.windows(first=40)        Percepts from window 40 on, as they were stored

Values are stored in one dtype, the bundle's. Round first (`values.as_stored`) and hand the same Percept to the log and
to the mind: then a state built from the log is the state that was live.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from anymodal.errors import ConfigError
from anymodal.stages.items import Percept
from anymodal.types import Evidence


class Entry(Protocol):
    """Something that happened. `window`: the last window that had entered the log when it did, or -1.

    `key`: if set, a second entry of this kind and key is recognised as a replay and not added again. A row's values
    are JSON's, and numpy arrays, which come back with their dtype and shape.
    """

    kind: ClassVar[str]

    @property
    def window(self) -> int: ...

    @property
    def key(self) -> str | None: ...

    def to_row(self) -> dict[str, Any]: ...

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Entry: ...


E = TypeVar("E", bound=Entry)
COMPACTION = "compaction"  # the kind of `anymodal.memory.Compaction`, which a log finds by its `effective_from`


class _Row:
    """Entries that are dataclasses of plain values."""

    __slots__ = ()

    @property
    def key(self) -> str | None:
        return None

    def to_row(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        if "evidence" in row:
            row["evidence"] = [[e.start_s, e.end_s, e.modality] for e in row["evidence"]]
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]):
        if "evidence" in row:
            row = {**row, "evidence": tuple(Evidence(*span) for span in row["evidence"])}
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Feed(_Row):
    """Watching some media began, behind window `window`: its window 0 is, or would be, the session's window `first_window`.

    `done`: it was read to its end. Without `media`: packets were pushed from there on, before it was at its end.
    """

    kind: ClassVar[str] = "feed"
    window: int
    media: str
    first_window: int = 0
    sidecars: Mapping[str, str] = field(default_factory=dict)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Turn(_Row):
    """A question and its finished answer, as of media time `at_s`. `dialogue`: which follow-ups may refer to it. `asking`:
    names the question where it may be asked again after a death; it is one turn all the same."""

    kind: ClassVar[str] = "turn"
    window: int
    at_s: float
    question: str
    text: str
    confidence: float = 0.0
    evidence: tuple[Evidence, ...] = ()
    dialogue: str = ""
    asking: str = ""

    @property
    def key(self) -> str | None:
        return self.asking or None


@dataclass(frozen=True, slots=True)
class RuleChange(_Row):
    """A standing rule was added, paused, resumed or removed (`action`); it holds from the window after `window` on."""

    kind: ClassVar[str] = "rule"
    window: int
    rule: str
    action: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class RuleEvent(_Row):
    """A rule's happening was seen: it `began`, or else ended, in `window`. Judging a window again adds no second one."""

    kind: ClassVar[str] = "event"
    window: int
    rule: str
    t_s: float
    began: bool = True
    confidence: float = 0.0
    evidence: tuple[Evidence, ...] = ()

    @property
    def key(self) -> str | None:
        return f"{self.rule}/{self.window}/{'began' if self.began else 'ended'}"


@dataclass(frozen=True, slots=True)
class Joint:
    """Joint-space vectors of one modality for search; row i is of stream `streams[i]` in window `windows[i]`."""

    windows: np.ndarray  # (N,) int64, ascending
    streams: tuple[str, ...]  # N
    vectors: np.ndarray  # (N, ...) float32


@dataclass(frozen=True, slots=True)
class LogInfo:
    """What a log says of itself."""

    session: str
    bundle: str
    identity: str
    window_s: float
    dtype: str


@dataclass(frozen=True, slots=True)
class Retention:
    """What may be dropped of a log's past, oldest first: windows more than `age_s` of media time before the newest, and
    as many as bring the log below `size_bytes`. None: nothing. Windows that the memory still has to be rebuilt from,
    those since its last compaction, always stay."""

    age_s: float | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("age_s", "size_bytes"):
            if (value := getattr(self, name)) is not None and not (isinstance(value, Real) and value > 0):
                raise ConfigError(f"a log's {name} must be positive, found {value!r}",
                                  fix="give a number above 0, or leave it out")


class SessionLog(Protocol):
    """One writer, fenced by a generation number, and any number of readers. Safe to use from several threads.

    Every call may raise LogError: FencedError once another writer has opened the log, LogFullError when nothing more
    can be stored. Whatever was appended before stays as it was.
    """

    info: LogInfo
    generation: int
    writes: bool  # or opened for reading only

    def append_window(self, percept: Percept) -> bool:
        """Store the next window; False for one that is there already. Raises LogError where one would be missing."""

    def append(self, entry: Entry) -> int:
        """Store an entry; returns its sequence number (that of the first, for a replay)."""

    def last_window(self) -> int:
        """The number of the newest window, or -1."""

    def first_window(self) -> int:
        """The number of the oldest window that retention has left; 0 in a log without windows."""

    def windows(self, first: int = 0, last: int | None = None) -> Iterator[Percept]:
        """Windows `first` to `last`, both included, with the tokens of repeated ones filled in."""

    def gaps(self, last: int) -> int:
        """How many of the windows up to `last` are gaps."""

    def entries(self, kind: type[E], *, before_s: float | None = None) -> Iterator[E]:
        """Entries of a kind in order; `before_s`: those whose window had ended by then."""

    def compaction_before(self, kind: type[E], t_s: float | None = None) -> E | None:
        """The newest compaction that was in effect at a media time, or now: its `effective_from` had ended by then."""

    def joint(self, modality: str, first: int = 0, last: int | None = None) -> Joint | None:
        """The joint-space vectors of a modality; None where there are none."""

    def close(self) -> None:
        """Let go of the log. Closing twice does nothing."""
